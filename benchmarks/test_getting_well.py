"""Nodes that are behind, new or wiped: how fast they are level, and what the clients of the others feel.

The node that gets well has a process of its own, as it has in life; the others share this one with the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import paxos

MIB = 1 << 20


class Counting(paxos.StateMachine):
    """As cheap as a state machine can be; its state may be given any size."""

    size = 0
    block = os.urandom(MIB)

    def __init__(self) -> None:
        self.count = 0

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        self.count += len(values)
        return values

    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(self.count.to_bytes(8, "little"))
        for number in range(int(os.environ.get("PAXOS_BENCH_STATE_MIB", "0"))):
            writer.write(number.to_bytes(8, "little") + self.block[8:])

    def restore(self, reader: paxos.SnapshotReader) -> None:
        self.count = int.from_bytes(reader.read(8), "little")
        while reader.read(MIB):
            pass


class Cluster:
    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, options
        sockets = [socket.socket() for _ in range(3)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        self.addresses = {i + 1: f"127.0.0.1:{s.getsockname()[1]}" for i, s in enumerate(sockets)}
        for s in sockets:
            s.close()
        self.nodes: dict[int, paxos.Node] = {}
        self.latencies: list[float] = []

    async def start(self, *ids: int, **options: Any) -> None:
        for id_ in ids:
            self.nodes[id_] = await paxos.Node.open(
                self.path / str(id_), node_id=id_, cluster=self.addresses, state_machine=Counting,
                **(self.options | options),
            )  # fmt: skip

    @contextlib.asynccontextmanager
    async def apart(self, id_: int, **options: Any) -> AsyncIterator[Apart]:
        """A node in a process of its own."""
        arguments = [str(self.path / str(id_)), id_, self.addresses, self.options | options]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            json.dumps(arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield Apart(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert await process.wait() == 0

    async def stop(self, *ids: int) -> None:
        for id_ in ids:
            await self.nodes.pop(id_).close()

    async def ready(self) -> None:
        for node in self.nodes.values():
            await node.wait_ready(30)

    def statuses(self) -> list[paxos.NodeStatus]:
        """Of those in this process."""
        return [node.status() for node in self.nodes.values()]

    def master(self) -> int:
        return next((id_ for id_, node in self.nodes.items() if node.is_master()), 0)

    async def fill(self, values: int, size: int = 100) -> None:
        """So many values, in large batches."""
        batch = [bytes(size)] * 4000
        under_way: set[asyncio.Future[Any]] = set()
        while values > 0 or under_way:
            while values > 0 and len(under_way) < 8:
                node = self.nodes[self.master() or min(self.nodes)]
                try:
                    under_way.add(node.propose_many(batch[:values], timeout=60))
                except paxos.Overloaded as error:
                    await asyncio.sleep(error.expected_wait or 0.01)
                    continue
                values -= len(batch)
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if isinstance(error, paxos.PaxosError):
                    values += len(batch)  # of an election: again
                elif error is not None:
                    raise error

    async def clients(self, rate: int) -> None:
        """Single values at a rate, for as long as the task lives; their latencies are noted."""
        at = time.perf_counter()
        while True:
            at += 20 / rate
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            node = self.nodes[self.master() or min(self.nodes)]
            for _ in range(20):
                begun = time.perf_counter()
                node.propose(bytes(100), timeout=30).add_done_callback(lambda f, b=begun: self._answered(f, b))

    def _answered(self, future: asyncio.Future[Any], begun: float) -> None:
        if not future.cancelled() and future.exception() is None:
            self.latencies.append(time.perf_counter() - begun)

    def p99(self) -> float:
        """In ms, of what was noted since the last call."""
        found, self.latencies = self.latencies, []
        return statistics.quantiles(found, n=100)[98] * 1e3 if len(found) > 100 else float("nan")

    async def until(self, condition: Callable[[], bool], seconds: float = 300) -> float:
        begun = time.perf_counter()
        while not condition():
            assert time.perf_counter() - begun < seconds, "not in time"
            await asyncio.sleep(0.002)
        return time.perf_counter() - begun


class Apart:
    """What a node in a process of its own tells of itself, every few ms: see ``apart``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def until(self, condition: Callable[[dict[str, int]], bool]) -> float:
        """The condition holds; seconds."""
        begun = time.perf_counter()
        assert self._process.stdout is not None
        async with asyncio.timeout(300):
            while True:
                line = await self._process.stdout.readline()
                assert line, "the node's process has ended"
                if condition(json.loads(line)):
                    return time.perf_counter() - begun


async def apart(directory: str, id_: int, addresses: dict[str, str], options: dict[str, Any]) -> None:
    """The process: one node, until its standard input ends."""
    cluster = {int(node): address for node, address in addresses.items()}
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with await paxos.Node.open(
        directory, node_id=id_, cluster=cluster, state_machine=Counting, **options
    ) as node:
        while not ended.done():
            status = node.status()
            told = {key: getattr(status, key) for key in ("installed", "votes", "commits", "applied", "checksum")}
            print(json.dumps(told), flush=True)
            await asyncio.sleep(0.005)


def run(
    benchmark: BenchmarkFixture, path: Path, story: Callable[[Cluster], Awaitable[dict[str, Any]]], **options: Any
) -> None:
    figures: dict[str, Any] = {}

    async def main() -> None:
        cluster = Cluster(path, **options)
        await cluster.start(1, 2, 3)
        await cluster.ready()
        try:
            figures.update(await story(cluster))
        finally:
            await cluster.stop(*list(cluster.nodes))

    benchmark.pedantic(lambda: asyncio.run(main()), rounds=1)
    benchmark.extra_info.update(figures)
    shutil.rmtree(path)


def follower(c: Cluster) -> int:
    return next(id_ for id_ in (3, 2, 1) if id_ != c.master())


async def wiped(c: Cluster, path: Path) -> int:
    """A follower, stopped, that has lost its directory."""
    lost = follower(c)
    await c.stop(lost)
    shutil.rmtree(path / str(lost))
    return lost


def test_alignment(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """A node stopped through 1,000,000 values of 100 bytes, while 5,000 writes/s go on: goal 300,000 values/s."""
    values = 20_000 if tiny else 1_000_000

    async def story(c: Cluster) -> dict[str, Any]:
        away = follower(c)
        await c.stop(away)
        await c.fill(values)
        clients = asyncio.create_task(c.clients(5000))
        await asyncio.sleep(0.1 if tiny else 3)
        before = c.p99()
        async with c.apart(away) as node:
            opened = await node.until(lambda status: True)
            aligned = await node.until(
                lambda status: (
                    status["commits"] >= values and status["applied"] + 50 >= max(s.applied for s in c.statuses())
                )
            )
            during = c.p99()
        clients.cancel()
        figures = {"open_s": opened, "align_s": aligned, "values_per_s": values / aligned}
        return figures | {"p99_ms_before": before, "p99_ms_during": during}

    run(benchmark, tmp_path, story, log_budget=8 << 30)


def test_transfer(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of 1 GB to a wiped node over loopback: goal 150 MB/s. Then throttled to 50 MB/s, beside clients: p99 at most 3
    times as without."""
    size = 4 if tiny else 1024
    monkeypatch.setenv("PAXOS_BENCH_STATE_MIB", str(size))

    async def story(c: Cluster) -> dict[str, Any]:
        await c.fill(1000)
        made: list[float] = []
        for node in c.nodes.values():
            begun = time.perf_counter()
            await node.checkpoint()
            made.append(time.perf_counter() - begun)
        figures: dict[str, Any] = {"checkpoint_MB_per_s": size * 1.048 / statistics.median(made)}
        for rate in (0, 50_000_000):
            lost = await wiped(c, tmp_path)
            clients = asyncio.create_task(c.clients(1000))
            await asyncio.sleep(0.1 if tiny else 3)
            before = c.p99()
            async with c.apart(lost, fetch_rate=rate) as node:
                await node.until(lambda status: True)
                took = await node.until(lambda status: bool(status["installed"] and status["votes"]))
                during = c.p99()
            clients.cancel()
            name = "throttled_" if rate else ""
            figures |= {f"{name}MB_per_s": size * 1.048 / took, f"{name}p99_ms_before": before}
            figures[f"{name}p99_ms_during"] = during
            await c.start(lost)
        return figures

    run(benchmark, tmp_path, story, log_hold=0)


def test_paced_checkpoint(
    benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paced checkpoint of a 1 GB state by a mirror: p99 of the clients at most 3 times as without."""
    size = 4 if tiny else 1024
    monkeypatch.setenv("PAXOS_BENCH_STATE_MIB", str(size))

    async def story(c: Cluster) -> dict[str, Any]:
        clients = asyncio.create_task(c.clients(1000))
        await asyncio.sleep(0.1 if tiny else 5)
        before = c.p99()
        begun = time.perf_counter()
        await c.nodes[follower(c)].checkpoint()
        took = time.perf_counter() - begun
        clients.cancel()
        return {"seconds": took, "p99_ms_before": before, "p99_ms_during": c.p99()}

    run(benchmark, tmp_path, story, checkpoint_rate=50_000_000)


def test_restart(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """A node with a 2 GB log, most of it below the checkpoint: goal 2 s and the time to apply what follows."""
    gigabytes = 0.02 if tiny else 2

    async def story(c: Cluster) -> dict[str, Any]:
        await c.fill(int(gigabytes * 1e9 / 1000), 980)
        node = follower(c)
        await c.nodes[node].checkpoint()
        await c.fill(1000)
        log = sum(file.stat().st_size for file in (tmp_path / str(node) / "log").glob("*.seg"))
        await c.stop(node)
        begun = time.perf_counter()
        await c.start(node)
        took = time.perf_counter() - begun
        return {"log_MB": log / 1e6, "open_s": took}

    run(benchmark, tmp_path, story, log_budget=16 << 30, log_hold=1 << 40)


def test_soak(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """20 times the disk budget: the log stays within it and two segments, memory stays flat."""
    budget, segment = (32 * MIB, 4 * MIB) if tiny else (128 * MIB, 8 * MIB)

    async def story(c: Cluster) -> dict[str, Any]:
        most, memory = 0.0, []
        for _ in range(2 if tiny else 20):
            await c.fill(budget // 1000, 1000)
            for node in c.nodes.values():
                most = max(most, node.status().log_segments * segment / budget)
            with open("/proc/self/statm", encoding="ascii") as file:
                memory.append(int(file.read().split()[1]) * resource.getpagesize() / MIB)
        return {"most_of_budget": most, "rss_MiB_first": memory[len(memory) // 4], "rss_MiB_last": memory[-1]}

    run(benchmark, tmp_path, story, log_budget=budget, segment_bytes=segment, max_value=1 << 20)


def test_swap(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """A wiped node under 5,000 writes/s: seconds until it is level and has a vote."""

    async def story(c: Cluster) -> dict[str, Any]:
        await c.fill(20_000 if tiny else 500_000)
        for node in c.nodes.values():
            await node.checkpoint()
        lost = await wiped(c, tmp_path)
        clients = asyncio.create_task(c.clients(5000))
        await asyncio.sleep(0.1 if tiny else 2)
        before = c.p99()
        async with c.apart(lost) as node:
            await node.until(lambda status: True)
            took = await node.until(lambda status: bool(status["votes"]))
            during = c.p99()
            clients.cancel()
            await node.until(
                lambda status: (
                    {(status["applied"], status["checksum"])} == {(s.applied, s.checksum) for s in c.statuses()}
                )
            )
        return {"seconds": took, "p99_ms_before": before, "p99_ms_during": during}

    run(benchmark, tmp_path, story, log_hold=0)


if __name__ == "__main__":
    asyncio.run(apart(*json.loads(sys.argv[1])))
