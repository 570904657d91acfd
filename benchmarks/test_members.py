"""What changes of the members cost those who write: three nodes become five and three again, then each is replaced once.

The figures are the longest time between two acknowledged writes of a steady load, for each kind of change from just before it was
asked for until it is in force at all nodes; and how long that took.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

import paxos
from paxos.cli.processes import free_ports

CLIENTS = 4  # at each of the first three nodes, or whoever has come in their place


class Counting(paxos.StateMachine):
    """Remembers how often it was given each value; a checkpoint brings it back."""

    def __init__(self) -> None:
        self.values: dict[bytes, int] = {}

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        for value in values:
            self.values[value] = self.values.get(value, 0) + 1
        return values

    def read(self, query: object) -> dict[bytes, int]:
        return dict(self.values)


class Fleet:
    """Nodes in this process, and a steady load on those that have a vote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.addresses = {i + 1: f"127.0.0.1:{port}" for i, port in enumerate(free_ports(8))}
        self.nodes: dict[int, paxos.Node] = {}
        self.loads: dict[int, list[asyncio.Task[None]]] = {}
        self.acknowledged: list[float] = []
        self.written: list[bytes] = []
        self.failed = 0
        self.number = 0
        self.gaps: dict[str, list[float]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)

    async def open(self, i: int) -> None:
        told = {k: self.addresses[k] for k in {*(self.nodes or (1, 2, 3)), i}}
        self.nodes[i] = await paxos.Node.open(
            self.path / str(i), node_id=i, cluster=told, state_machine=Counting, segment_bytes=16 << 20
        )

    def load(self, i: int) -> None:
        self.loads[i] = [asyncio.create_task(self.client(i, self.nodes[i])) for _ in range(CLIENTS)]

    async def client(self, i: int, node: paxos.Node) -> None:
        while i in self.loads:
            self.number += 1
            value = b"%099d" % self.number
            try:
                await node.propose(value, timeout=10)
            except paxos.Overloaded:
                await asyncio.sleep(0.01)
            except paxos.PaxosError:
                self.failed += 1
            else:
                self.acknowledged.append(time.perf_counter())
                self.written.append(value)

    async def idle(self, i: int) -> None:
        """Nobody writes at that node any more; what is under way ends first."""
        await asyncio.gather(*self.loads.pop(i, []))

    async def voters(self, *voters: int) -> None:
        while any(self.nodes[i].members().voters != voters or self.nodes[i].members().pending for i in voters):
            await asyncio.sleep(0.002)

    async def change(self, kind: str, asked: Awaitable[object], *voters: int) -> None:
        begun = time.perf_counter()
        await asked
        await self.voters(*voters)
        ended = time.perf_counter()
        await asyncio.sleep(0.1)
        times = [at for at in self.acknowledged if at > begun - 0.1]
        self.gaps[kind].append(max(b - a for a, b in itertools.pairwise(times)))
        self.times[kind].append(ended - begun)

    def asker(self, *but: int) -> paxos.Node:
        return next(node for i, node in self.nodes.items() if i not in but)

    async def grow_and_shrink(self) -> None:
        for i in (4, 5):
            await self.open(i)
            await self.change("add", self.asker(i).add(i, self.addresses[i], timeout=30), *range(1, i + 1))
        for i in (5, 4):
            await self.change("remove", self.asker(i).remove(i, timeout=30), *range(1, i))
            await self.nodes.pop(i).close()

    async def replace_all(self) -> None:
        for old, new in ((1, 6), (2, 7), (3, 8)):
            await self.open(new)
            await self.idle(old)
            left = sorted({*self.nodes} - {old})
            await self.change("replace", self.asker(old, new).replace(old, new, self.addresses[new], timeout=30), *left)
            await self.nodes.pop(old).close()
            self.load(new)

    async def run(self) -> None:
        try:
            await asyncio.gather(*(self.open(i) for i in (1, 2, 3)))
            for i in (1, 2, 3):
                await self.nodes[i].wait_ready(30)
                self.load(i)
            await asyncio.sleep(0.2)
            await self.grow_and_shrink()
            await self.replace_all()
            for i in list(self.loads):
                await self.idle(i)
            for node in self.nodes.values():
                found = await node.read(None, timeout=30)
                lost = [value for value in self.written if found.get(value) != 1]
                assert not lost, f"{len(lost)} acknowledged values are not there once, as {lost[0]!r}"
        finally:
            for i in list(self.loads):
                await self.idle(i)
            for node in self.nodes.values():
                await node.close()


def test_members(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """... while clients write at three nodes. No write fails, and none that was acknowledged is lost."""
    fleets: list[Fleet] = []

    def play() -> None:
        fleets.append(Fleet(tmp_path / str(len(fleets))))
        asyncio.run(fleets[-1].run())

    benchmark.pedantic(play, rounds=1 if tiny else 5, iterations=1)
    for kind in ("add", "remove", "replace"):
        gaps = [gap * 1000 for fleet in fleets for gap in fleet.gaps[kind]]
        times = [length * 1000 for fleet in fleets for length in fleet.times[kind]]
        benchmark.extra_info.update(
            {
                f"{kind}: gap p50 ms": round(statistics.median(gaps), 1),
                f"{kind}: gap max ms": round(max(gaps), 1),
                f"{kind}: in force after p50 ms": round(statistics.median(times), 1),
            }
        )
    benchmark.extra_info["writes"] = sum(len(fleet.written) for fleet in fleets)
    benchmark.extra_info["failed writes"] = failed = sum(fleet.failed for fleet in fleets)
    assert failed == 0
