"""Linearizable reads: through the service beside writes, and one call at a time in the process of a node.

Windows of one kind and the other take turns, so that whatever else the machine does meanwhile meets both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
from bench_nodes import Nodes
from pytest_benchmark.fixture import BenchmarkFixture

from paxos.cli.processes import NodeProcess, free_ports, stop_all
from paxos.cli.resp_client import ReplyError, RespClient

CONNECTIONS = 50
SIZE = 100
STEP = 30.0  # seconds for what does not depend on the length of a window
TRIES = 5


class Client(asyncio.Protocol):
    """A connection with one command under way, the same over and over."""

    def __init__(self, command: bytes) -> None:
        self.command = command
        self.replies = 0
        self.errors: list[object] = []
        self.reader = hiredis.Reader(replyError=ReplyError)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.command)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, ReplyError):
                self.errors.append(reply)
            self.replies += 1
            self.transport.write(self.command)


class Service:
    """Three ``paxos serve`` processes. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(6)
        cluster = {number: f"127.0.0.1:{port}" for number, port in enumerate(ports[:3], 1)}
        self.nodes = {number: NodeProcess(number, cluster, ports[2 + number], directory) for number in cluster}
        self.runner = asyncio.Runner()
        self.master = 0

    def __enter__(self) -> Service:
        try:
            self.runner.run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.runner.run(stop_all(self.nodes.values()))
        finally:
            self.runner.close()

    async def _start(self) -> None:
        for node in self.nodes.values():
            node.start(detached=False)
        async with asyncio.timeout(STEP):
            while True:
                try:
                    found = await self.info()
                    named = {fields["paxos_master_id"] for fields in found.values()}
                    if len(named) == 1 and "0" not in named:
                        self.master = int(named.pop())
                        client = await RespClient.connect(self.nodes[self.master].resp_port)
                        await client.call("SET", "k", b"v" * SIZE)
                        client.close()
                        return
                except (OSError, ReplyError):
                    pass
                await asyncio.sleep(0.05)

    async def info(self) -> dict[int, dict[str, str]]:
        found = {}
        for number, node in self.nodes.items():
            client = await RespClient.connect(node.resp_port)
            found[number] = await client.info()
            client.close()
        return found

    def window(self, at: int, command: bytes, seconds: float, warmup: float) -> dict[str, float]:
        """CONNECTIONS clients at a node: replies a second, and how much the counters of all nodes grew meanwhile."""
        return self.runner.run(self._window(at, command, seconds, warmup))

    async def _window(self, at: int, command: bytes, seconds: float, warmup: float) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        port = self.nodes[at].resp_port
        clients = [
            (await loop.create_connection(lambda: Client(command), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)
        ]
        await asyncio.sleep(warmup)
        before = await self.info()
        began, replies = time.perf_counter(), sum(client.replies for client in clients)
        await asyncio.sleep(seconds)
        replies = sum(client.replies for client in clients) - replies
        spent = time.perf_counter() - began
        after = await self.info()
        for client in clients:
            client.transport.abort()
            assert not client.errors, client.errors[0]

        def grown(name: str) -> int:
            return sum(int(after[number][name]) - int(before[number][name]) for number in before)

        names = ("paxos_log_writes", "paxos_commits", "paxos_reads", "paxos_read_rounds", "paxos_elections")
        return {"replies_per_s": replies / spent, **{name.removeprefix("paxos_"): grown(name) for name in names}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as started:
        yield started


@pytest.mark.parametrize("where", ["master", "follower"])
def test_get_beside_set(benchmark: BenchmarkFixture, service: Service, tiny: bool, where: str) -> None:
    """50 connections, one command under way each."""
    seconds, warmup, turns = (0.1, 0.3, 1) if tiny else (2.0, 0.5, 5)
    at = service.master if where == "master" else next(number for number in service.nodes if number != service.master)
    commands = {
        "set": hiredis.pack_command(("SET", "k", b"v" * SIZE)),
        "get": hiredis.pack_command(("GET", "k")),
    }
    windows: dict[str, list[dict[str, float]]] = {"set": [], "get": []}

    def turn() -> None:
        for kind, command in commands.items():
            for _ in range(TRIES):
                found = service.window(at, command, seconds, warmup)
                if not found["elections"]:
                    windows[kind].append(found)
                    break
            else:
                pytest.fail(f"no window without an election in {TRIES}: {found}")

    benchmark.group = f"service, {CONNECTIONS} connections, {SIZE} bytes"
    benchmark.pedantic(turn, rounds=turns, iterations=1)
    for found in windows["get"]:
        assert found["log_writes"] == 0, f"reads cost log writes: {found}"
        assert found["commits"] == 0
        assert found["read_rounds"] <= 0.2 * found["reads"], f"reads do not share their rounds: {found}"
    rates = {kind: statistics.median(found["replies_per_s"] for found in windows[kind]) for kind in windows}
    benchmark.extra_info.update(
        set_per_s=rates["set"],
        get_per_s=rates["get"],
        get_over_set=rates["get"] / rates["set"],
        log_writes_of_gets=sum(found["log_writes"] for found in windows["get"]),
        read_rounds_per_get=sum(found["read_rounds"] for found in windows["get"])
        / sum(found["reads"] for found in windows["get"]),
        turns=turns,
    )


@pytest.mark.parametrize("at_master", [True, False], ids=["master", "follower"])
def test_one_client(benchmark: BenchmarkFixture, nodes: Nodes, tiny: bool, at_master: bool) -> None:
    """One call at a time: ``await node.read(…)`` beside ``await node.propose(…)`` at the master."""
    seconds, warmup, turns = (0.05, 0.3, 1) if tiny else (1.0, 0.5, 5)
    proposals: list[dict[str, Any]] = []
    reads: list[dict[str, Any]] = []

    def turn() -> None:
        for _ in range(TRIES):
            proposed = nodes.load(clients=1, value_size=SIZE, seconds=seconds, warmup=warmup)
            read = nodes.reads(clients=1, at_master=at_master, seconds=seconds, warmup=warmup)
            if proposed["calm"] and read["calm"]:
                proposals.append(proposed)
                reads.append(read)
                return
        pytest.fail(f"no windows without an election or a refusal in {TRIES}")

    benchmark.group = "one client"
    benchmark.pedantic(turn, rounds=turns, iterations=1)
    for found in reads:
        assert found["log_writes"] == 0, f"reads cost log writes: {found}"
        # The nodes are not looked at in one moment, so a few are in one of the two counts only.
        assert found["read_rounds_per_read"] < 1.5, "one round a read, and no more"
    for name in ("p50_ms", "p99_ms"):
        benchmark.extra_info[f"read_{name}"] = statistics.median(found[name] for found in reads)
        benchmark.extra_info[f"propose_{name}"] = statistics.median(found[name] for found in proposals)
    for name in ("reads_per_s", "read_rounds_per_read", "messages_per_read"):
        benchmark.extra_info[name] = statistics.median(found[name] for found in reads)
    benchmark.extra_info["turns"] = turns


@pytest.mark.parametrize("clients", [1000])
def test_1000_clients(benchmark: BenchmarkFixture, nodes: Nodes, tiny: bool, clients: int) -> None:
    """Many calls at the master: they share the rounds."""
    seconds, warmup, turns = (0.05, 0.3, 1) if tiny else (2.0, 0.5, 3)
    found: list[dict[str, Any]] = []
    benchmark.group = "1,000 clients"
    benchmark.pedantic(
        lambda: found.append(nodes.reads(clients=clients, seconds=seconds, warmup=warmup)), rounds=turns, iterations=1
    )
    for window in found:
        assert window["log_writes"] == 0
        assert window["read_rounds_per_read"] < 0.2
    middle = sorted(found, key=lambda window: float(window["reads_per_s"]))[len(found) // 2]
    benchmark.extra_info.update(middle, turns=turns)
