"""Linearizable reads: through the service beside writes, and one call at a time in the process of a node; reads under a lease.

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
from bench_running import Running
from pytest_benchmark.fixture import BenchmarkFixture

import paxos
from nodes import cluster, master_of
from paxos import Options
from paxos.cli.processes import NodeProcess, free_ports, stop_all
from paxos.cli.resp_client import ReplyError, RespClient

CONNECTIONS = 50
SIZE = 100
STEP = 30.0  # seconds for what does not depend on the length of a window
TRIES = 5
# Frames a second of three nodes that have nothing to do, three times over: heartbeats to two followers every 50 ms, and answers.
BACKGROUND = 3 * 2 * 2 / Options().heartbeat
LEASE = 5.0  # seconds: a machine that stands still for shorter does not end it


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


class Service(Running):
    """Three ``paxos serve`` processes. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        ports = free_ports(6)
        cluster = {number: f"127.0.0.1:{port}" for number, port in enumerate(ports[:3], 1)}
        self.nodes = {number: NodeProcess(number, cluster, ports[2 + number], directory) for number in cluster}
        self.master = 0

    async def _stop(self) -> None:
        await stop_all(self.nodes.values())

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
        return self._runner.run(self._window(at, command, seconds, warmup))

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
        # How many wait for one round depends on who gets the processor: in the tiny mode, beside anything, that proves nothing.
        share = 1.0 if tiny else 0.2
        assert found["read_rounds"] <= share * found["reads"], f"reads do not share their rounds: {found}"
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
        # To the two followers and back, and from another node to the master and back; beside that heartbeats.
        heartbeats = BACKGROUND / found["reads_per_s"]
        assert found["messages_per_read"] < 1.5 * (4 if at_master else 6) + heartbeats, f"too many messages: {found}"
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


class Table(paxos.StateMachine):
    """One value for each key, which is its first byte."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def apply(self, instance: int, value: bytes) -> object:
        self.values[value[:1]] = value
        return None

    def read(self, query: bytes) -> object:
        return self.values.get(query)


async def _leased_reads(master: paxos.Node, nodes: list[paxos.Node], batch: int, seconds: float) -> dict[str, float]:
    """One client that reads over and over: reads a second, and how much the counters of all nodes grew meanwhile."""
    queries = [b"k"] * batch
    before = [node.status() for node in nodes]
    calls = 0
    began = now = time.perf_counter()
    while now - began < seconds:
        for _ in range(max(1, 1000 // batch)):
            if batch == 1:
                await master.read(b"k", consistency="lease")
            else:
                await master.read_many(queries, consistency="lease")
            calls += 1
        await asyncio.sleep(0)  # what is read at once has not waited for anything, so nobody else had a turn
        now = time.perf_counter()
    after = [node.status() for node in nodes]

    def grown(name: str) -> int:
        return sum(getattr(late, name) - getattr(early, name) for early, late in zip(before, after, strict=True))

    names = ("log_writes", "fsyncs", "commits", "reads", "read_rounds", "frames_sent", "elections")
    return {
        "reads_per_s": calls * batch / (now - began),
        "seconds": now - began,
        "asked": calls * batch,
        **{name: grown(name) for name in names},
    }


@pytest.mark.parametrize("batch", [1, 100], ids=["read", "read_many_100"])
def test_leased(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, batch: int) -> None:
    """Under a lease, at the master; its state machine looks a key up. The other nodes share the process, and do nothing."""
    seconds, turns = (0.1, 1) if tiny else (2.0, 5)
    windows: list[dict[str, float]] = []

    async def main() -> None:
        async with cluster(tmp_path, machine=Table) as nodes:
            master = master_of(nodes)
            await master.propose(b"k" * SIZE)
            await master.set_lease(LEASE)

            async def held() -> bool:
                before = master.status().read_rounds
                assert await master.read(b"k", consistency="lease") == b"k" * SIZE
                return master.status().read_rounds == before

            def written() -> int:
                return sum(node.status().log_writes for node in nodes.values())

            async with asyncio.timeout(STEP):
                while not await held():
                    await asyncio.sleep(0.01)
                # That the followers know the last of the above to be chosen is written behind it.
                before = -1
                while before != (before := written()):
                    await asyncio.sleep(0.2)
            for _ in range(turns):
                windows.append(await _leased_reads(master, list(nodes.values()), batch, seconds))

    benchmark.group = "leases"
    benchmark.pedantic(lambda: asyncio.run(main()), rounds=1, iterations=1)
    for found in windows:
        assert found["reads"] == found["asked"], f"not all were answered by the state machine: {found}"
        assert found["log_writes"] == found["commits"] == 0, f"reads cost log writes: {found}"
        assert found["read_rounds"] == 0, f"reads under a lease are confirmed: {found}"
        assert found["frames_sent"] <= BACKGROUND * found["seconds"] + 50, f"reads cost messages: {found}"
    rates = [found["reads_per_s"] for found in windows]
    benchmark.extra_info.update(
        reads_per_s=statistics.median(rates),
        reads_per_s_worst=min(rates),
        ns_per_read=1e9 / statistics.median(rates),
        frames_per_s=statistics.median(found["frames_sent"] / found["seconds"] for found in windows),
        log_writes=sum(found["log_writes"] for found in windows),
        read_rounds=sum(found["read_rounds"] for found in windows),
        turns=turns,
    )
