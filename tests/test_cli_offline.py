"""``paxos verify``, ``paxos log`` and ``paxos checkpoint``: with good and with bad input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes import cluster
from paxos.cli import main
from paxos.kv import KvServer, KvStateMachine
from paxos.kv import values as v

SEGMENT = 16 << 20


async def _live(path: Path) -> None:
    async with cluster(path, 1, machine=KvStateMachine, mirror=False, log_hold=0) as nodes:
        for number in range(10):
            await nodes[1].propose(v.encode_set(b"key", b"value\x01%d" % number, 0))
        await nodes[1].checkpoint()
        await nodes[1].propose(v.encode_set(b"key", b"last", 0))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("offline")
    asyncio.run(_live(path))
    return path / "1"


@pytest.fixture
def directory(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "data")


def digest(path: Path) -> list[tuple[str, str]]:
    """Of all files, and when each was written."""
    return [
        (str(file.relative_to(path)), hashlib.sha256(file.read_bytes()).hexdigest() + str(file.stat().st_mtime_ns))
        for file in sorted(path.rglob("*"))
        if file.is_file()
    ]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(bytes(data))


def segment(directory: Path) -> Path:
    return directory / "log" / f"{1:016x}.seg"


def lines(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> list[dict[str, Any]]:
    assert main([str(argument) for argument in arguments]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# -- verify


def test_a_good_directory_is_good_and_left_alone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(directory)
    assert main(["verify", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "node 1 of 1" in out
    assert "good: " in out
    (report,) = lines(capsys, 0, "verify", directory, "--json")
    assert (report["good"], report["node"], report["members"], report["findings"]) == (True, 1, 1, [])
    assert report["checkpoints"] == [report["first_kept"]]
    assert report["bytes"] >= SEGMENT
    assert {file["state"] for file in report["files"]} == {"good"}
    assert digest(directory) == before


@pytest.mark.parametrize("offset", [100, 3 * 4096 + 60])
def test_a_damaged_segment(directory: Path, offset: int, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), offset)
    before = digest(directory)
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    (finding,) = [finding for finding in report["findings"] if finding["path"].endswith(".seg")]
    assert finding["level"] == "damage"
    assert finding["offset"] == offset // 4096 * 4096
    assert main(["verify", str(directory)]) == 1
    out = capsys.readouterr().out
    assert f"DAMAGE log/{segment(directory).name}, offset {offset // 4096 * 4096}" in out
    assert "refuses to start" in out
    assert "what to do: " in out
    assert "DAMAGED in" in out
    assert digest(directory) == before


def test_damaged_checkpoints(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data,) = (directory / "checkpoints").glob("*-0.data")
    flip(data, 3)
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    (finding,) = report["findings"]
    assert (finding["path"], finding["offset"]) == (f"checkpoints/{data.name}", 0)
    assert "refuses to start" in finding["meaning"]
    assert report["checkpoints"] == []
    shutil.rmtree(directory / "checkpoints")
    (report,) = lines(capsys, 1, "verify", directory, "--json")
    assert "there is no checkpoint of what was before it" in report["findings"][0]["what"]


def test_what_is_torn_or_left_over_is_no_damage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), SEGMENT - 5)
    (directory / "log" / "making-3.tmp").write_bytes(b"half")
    (directory / "checkpoints" / f"{99:016x}-0.data").write_bytes(b"of nothing")
    place = directory / "quarantine" / "001"
    place.mkdir(parents=True)
    (place / "why.txt").write_text("a bad sector\n")
    (report,) = lines(capsys, 0, "verify", directory, "--json")
    levels = {finding["path"].split("/")[-1]: finding["level"] for finding in report["findings"]}
    assert levels == {segment(directory).name: "torn", "making-3.tmp": "left over", f"{99:016x}-0.data": "left over",
                      "001": "left over"}  # fmt: skip
    assert main(["verify", str(directory)]) == 0
    assert "a bad sector" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify", "log"])
def test_what_cannot_be_looked_at(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1) as nodes:
            assert nodes[1].is_master()
            assert main([command, str(tmp_path / "1")]) == 2

    asyncio.run(body())
    out, err = capsys.readouterr()
    assert out == ""
    assert "is in use by the process with pid" in err
    assert err.count("\n") == 1
    assert main([command, str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    before = sorted(tmp_path.iterdir())
    assert main([command, str(tmp_path)]) == 2
    assert "there is no log/ in it" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


# -- log


def test_the_overview(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(directory)
    node, first = lines(capsys, 0, "log", directory, "--json")
    assert (node["kind"], node["node"], node["boot"], node["formed"], node["outcome"]) == ("node", 1, 1, True, "good")
    assert (node["chosen"], node["checkpoint"], node["first_kept"]) == (12, 11, 11)
    assert [member["node"] for member in node["members"]] == [1]
    assert node["promised"]["node"] == 1
    assert (first["kind"], first["number"], first["size"], first["header"]["node"]) == ("segment", 1, SEGMENT, 1)
    assert first["used"] == 4096 * (first["writes"] + 1)
    assert main(["log", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "watermark     12 instances known chosen" in out
    assert f"promise       round {node['promised']['round']} of node 1" in out
    assert digest(directory) == before


def test_records(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = lines(capsys, 0, "log", directory, "--records", "--json")
    assert {"identity", "formation", "formed", "promise", "accept", "base"} <= {record["type"] for record in every}
    assert [record["instance"] for record in every if record["type"] == "accept"] == list(range(12))
    some = lines(capsys, 0, "log", directory, "--records", "--from", 3, "--to", 5, "--json")
    assert [record["instance"] for record in some] == [3, 4, 5]
    assert [r["type"] for r in lines(capsys, 0, "log", directory, "--records", "--type", "promise", "--json")] == ["promise"]
    assert len(lines(capsys, 0, "log", directory, "--records", "--limit", 2, "--json")) == 2
    writes = lines(capsys, 0, "log", directory, "--records", "--type", "write", "--json")
    assert [write["offset"] for write in writes] == [4096 * (n + 1) for n in range(len(writes))]
    assert sum(write["records"] for write in writes) == len(every)
    assert main(["log", str(directory), "--records", "--limit", "1"]) == 0
    assert "1:4152  identity" in capsys.readouterr().out


def test_the_value_of_an_instance(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(directory), "--instance", "3"]) == 0
    out = capsys.readouterr().out
    assert "instance 3: chosen; accept at log/" in out
    assert "value\\x012" in out
    assert main(["log", str(directory), "--instance", "3", "--hex"]) == 0
    assert b"value\x012".hex() in capsys.readouterr().out
    (told,) = lines(capsys, 0, "log", directory, "--instance", 3, "--json")
    assert told["value"][0]["hex"] == v.encode_set(b"key", b"value\x012", 0).hex()
    assert segment(directory).read_bytes()[told["offset"] + 13] == 6
    (told,) = lines(capsys, 1, "log", directory, "--instance", 12, "--json")
    assert "nothing of it was accepted here" in told["why"]


def test_a_damaged_log_is_shown_up_to_the_damage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(segment(directory), 3 * 4096 + 60)
    *records, damage = lines(capsys, 1, "log", directory, "--records", "--json")
    assert [record["type"] for record in records] == ["identity", "formation"]
    assert (damage["kind"], damage["segment"], damage["offset"]) == ("damage", 1, 3 * 4096)
    *writes, damage = lines(capsys, 1, "log", directory, "--records", "--type", "write", "--json")
    assert [write["offset"] for write in writes] == [4096, 2 * 4096]
    assert main(["log", str(directory)]) == 1
    assert f"DAMAGE log/{segment(directory).name}, offset {3 * 4096}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "3"], "go with --records"),
        (["--hex"], "goes with --instance"),
        (["--records", "--instance", "3"], "not both"),
        (["--records", "--from", "5", "--to", "4"], "--from 5 is above --to 4"),
        (["--records", "--type", "write", "--from", "4"], "about no instance"),
        (["--records", "--type", "vote"], "'vote' is not one of"),
        (["--instance", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_options(directory: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(directory), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.parametrize("command", ["verify", "log", "checkpoint"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"  paxos {command} " in out


# -- checkpoint


async def _called(port: int, *options: str) -> int:
    return await asyncio.to_thread(main, ["checkpoint", f"127.0.0.1:{port}", *options])


def test_a_checkpoint_of_a_running_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1, machine=KvStateMachine, mirror=False) as nodes:
            server = KvServer(nodes[1])
            await server.start("127.0.0.1", 0)
            port = server.address[1]
            await nodes[1].propose(v.encode_set(b"k", b"v", 0))
            assert await _called(port, "--json") == 0
            assert json.loads(capsys.readouterr().out)["checkpoint"] == nodes[1].status().checkpoint == 2
            assert await _called(port) == 0
            assert "holds all 2 instances already" in capsys.readouterr().out
            await server.close()

    asyncio.run(body())


def test_a_node_that_makes_none_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> None:
        async with cluster(tmp_path, 1) as nodes:  # whose state machine has no snapshot()
            server = KvServer(nodes[1])
            await server.start("127.0.0.1", 0)
            assert await _called(server.address[1]) == 1
            await server.close()

    asyncio.run(body())
    assert "there is no way to make a checkpoint of it" in capsys.readouterr().err


@pytest.fixture
def stranger() -> Iterator[tuple[int, list[bytes]]]:
    """Somebody who says what it is told to, to whoever connects."""
    says: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(says[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], says
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"$8\r\n# Server\r\n", b":1\r\n", b""]
)
def test_who_is_no_node(stranger: tuple[int, list[bytes]], answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    port, says = stranger
    says.append(answer)
    assert main(["checkpoint", f"127.0.0.1:{port}"]) == 1
    err = capsys.readouterr().err
    assert "no node of the key-value service" in err
    assert err.count("\n") == 1


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert main(["checkpoint", f"127.0.0.1:{port}"]) == 1
    assert "Name the address that a running node was given with --resp" in capsys.readouterr().err
    assert main(["checkpoint", "nowhere"]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
