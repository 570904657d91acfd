"""The command line's own words: options, usage errors in one line, exit statuses, help with an example."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import paxos
from paxos.cli import main
from paxos.cli.params import parse_cluster
from paxos.cli.serve import listen

GOOD = ["serve", "--id", "1", "--cluster", "1=127.0.0.1:1", "--data", "nowhere"]


def test_cluster() -> None:
    assert parse_cluster("1=a:1, 2=[::1]:2,30=c:65535") == {1: "a:1", 2: "[::1]:2", 30: "c:65535"}


@pytest.mark.parametrize(
    "text", ["", "1", "a:1", "0=a:1", "-1=a:1", "1=a", "1=:1", "1=a:0", "1=a:65536", "1=a:x", "1=a:1,", "1=a:1,1=b:1",
             "1=a:1,2=a:1", "1=::1:1"]
)  # fmt: skip
def test_bad_clusters(text: str) -> None:
    with pytest.raises(paxos.ConfigError):
        parse_cluster(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "No such command 'nope'"),
        (["--nope"], "No such option"),
        (["serve"], "Missing option '--id'"),
        ([*GOOD, "--resp", "9"], "'9' is not HOST:PORT"),
        ([*GOOD, "--resp", "a:1", "--bind", "b"], "'b' is not HOST:PORT"),
        ([*GOOD, "--resp", "a:1", "--id", "2"], "2 is not in --cluster"),
        ([*GOOD, "--resp", "a:1", "--cluster", "1=a:1,1=b:1"], "node 1 is named twice"),
        ([*GOOD, "--resp", "a:1", "--log-level", "loud"], "'loud' is not one of"),
        (["bench", "--clients", "0"], "0 is not in the range"),
        (["demo", "--seconds", "x"], "'x' is not a valid float"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "--help" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["serve"], ["demo"], ["bench"]])
def test_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example" in out
    assert f"  {' '.join(['paxos', *command])} --" in out or "  paxos demo" in out


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_a_port_in_use_is_told_before_the_data_directory_is_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        data = tmp_path / "data"
        arguments = [*GOOD, "--data", str(data), "--resp", f"127.0.0.1:{port}"]
        assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"paxos: --resp 127.0.0.1:{port}: the port is in use; stop the process that has it, or give another port\n"
    )
    assert not data.exists()


def test_where_to_listen_is_named_when_it_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        port, resp = taken.getsockname()[1], other.getsockname()[1]
        other.close()
        arguments = [
            *GOOD,
            "--data",
            str(tmp_path / "data"),
            "--resp",
            f"127.0.0.1:{resp}",
            "--bind",
            f"127.0.0.1:{port}",
        ]
        assert main(arguments) == 1
    assert f"node 1 cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_an_address_of_another_machine() -> None:
    # 192.0.2.0/24 is for documentation: no machine has an address in it.
    with pytest.raises(paxos.ConfigError, match="is not one of this machine"):
        listen(("192.0.2.1", 1), "--resp")


def test_demo_refuses_a_directory_with_something_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").touch()
    assert main(["demo", "--data", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "the directory is not empty" in err
    assert err.count("\n") == 1
