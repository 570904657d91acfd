"""The commands as a user runs them: real processes, real sockets, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from paxos.cli.processes import free_ports

pytestmark = pytest.mark.processes

DEADLINE = 60


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paxos", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("paxos")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


class Served:
    """A cluster of one, served until the end of the block."""

    def __init__(self, data: Path) -> None:
        peer, self.resp = free_ports(2)
        self.arguments = ["serve", "--id", "1", "--cluster", f"1=127.0.0.1:{peer}", "--data", str(data)]
        self.arguments += ["--resp", f"127.0.0.1:{self.resp}"]

    def __enter__(self) -> Served:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paxos", *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.resp, socket_timeout=DEADLINE)


def set_until_ready(client: redis.Redis, key: str, value: str) -> None:
    """Set, again while the node refuses because it has no master yet."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            client.set(key, value)
        except redis.ResponseError as error:
            if not str(error).startswith(("UNAVAILABLE", "UNKNOWN")):
                raise
        else:
            return
    raise AssertionError("the node never became available")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_a_signal_and_again(tmp_path: Path, number: signal.Signals) -> None:
    with Served(tmp_path / "data") as served:
        assert f"127.0.0.1:{served.resp}" in served.ready
        with served.client() as client:
            set_until_ready(client, "k", "v")
        served.process.send_signal(number)
        assert served.process.wait(DEADLINE) == 0
    with served, served.client() as client:
        set_until_ready(client, "other", "w")
        assert client.get("k") == b"v"


def test_a_directory_in_use_and_one_of_another_node(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Served(data) as served:
        other = Served(data)
        second = run(*other.arguments)
        assert second.returncode == 1
        assert str(data) in one_line(second.stderr)
        served.process.terminate()
        assert served.process.wait(DEADLINE) == 0
    peer, resp = free_ports(2)
    third = run("serve", "--id", "2", "--cluster", f"2=127.0.0.1:{peer}", "--data", str(data),
                "--resp", f"127.0.0.1:{resp}")  # fmt: skip
    assert third.returncode == 1
    assert str(data) in one_line(third.stderr)


def test_the_port_for_the_other_nodes_in_use(tmp_path: Path) -> None:
    with Served(tmp_path / "1") as served:
        other = Served(tmp_path / "2")
        other.arguments[other.arguments.index("--cluster") + 1] = served.arguments[4]
        second = run(*other.arguments)
        assert second.returncode == 1
        assert served.arguments[4].partition("=")[2] in one_line(second.stderr)


def test_demo_proves_that_nothing_is_lost() -> None:
    done = run("demo", "--json", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["acknowledged"] > 0
    assert report["missing"] == report["wrong"] == 0
    assert report["killed_node"] != report["new_master"]
    assert len(set(report["checksums"].values())) == 1
    assert len(report["checksums"]) == 3


def test_demo_keep_leaves_a_cluster_that_answers(tmp_path: Path) -> None:
    done = run("demo", "--json", "--keep", "--seconds", "1", "--data", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    try:
        for node in nodes.values():
            with redis.Redis(port=node["port"], socket_timeout=DEADLINE) as client:
                assert client.set("after", "all")
    finally:
        for node in nodes.values():
            os.kill(node["pid"], signal.SIGKILL)


def processes_that_name(path: Path) -> list[int]:
    """The living processes with ``path`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(path).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["demo", "bench"])
def test_what_is_interrupted_takes_its_nodes_along(tmp_path: Path, command: str, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "paxos", command, "--data", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A runner in the background may have been told to ignore Ctrl-C, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        deadline = time.monotonic() + DEADLINE
        while len(processes_that_name(tmp_path)) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(number)
        assert process.wait(DEADLINE) == (143 if number == signal.SIGTERM else 130)
        assert processes_that_name(tmp_path) == []
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("extra", [[], ["--remote", "--batch", "5", "--clients", "4"], ["--floor"]])
def test_bench_counts_what_a_value_costs(extra: list[str]) -> None:
    done = run("bench", "--json", "--seconds", "1", "--warmup", "0.3", *extra)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    keys = (
        "values_per_s p50_ms p99_ms rtts_per_value messages_per_value log_writes_per_value_per_node "
        "syncs_per_value_per_node bytes_per_value"
    )
    for key in keys.split():
        assert result[key] > 0, key
    if not extra:
        assert result["rtts_per_value"] == 1
    if extra == ["--floor"]:
        floor = result["floor_write_ms"] + result["floor_rtt_ms"]
        assert result["target_p50_ms"] == pytest.approx(0.060 + 1.3 * floor, abs=0.001)
