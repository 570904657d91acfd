"""How long nobody leads: when a master hands over, when it closes, and when it is killed.

The figures are the longest time between two acknowledged writes of a steady load at all nodes, from just before until all nodes
know the new master; and, for a killed one, the time from the kill until a write that was sent behind it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import paxos
from paxos.cli.demo_load import Load
from paxos.cli.processes import NodeProcess, free_ports, stop_all
from paxos.cli.resp_client import RespClient

CLIENTS = 4  # at each node


class Counting(paxos.StateMachine):
    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        return values


class Live:
    """Three nodes in this process, and a steady load on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.addresses = {i + 1: f"127.0.0.1:{port}" for i, port in enumerate(free_ports(3))}
        self.nodes: dict[int, paxos.Node] = {}
        self.acknowledged: list[float] = []
        self.failed = 0
        self.loads: dict[int, list[asyncio.Task[None]]] = {}

    async def open(self, i: int) -> None:
        self.nodes[i] = await paxos.Node.open(
            self.path / str(i), node_id=i, cluster=self.addresses, state_machine=Counting, segment_bytes=16 << 20
        )
        await self.nodes[i].wait_ready(30)
        self.loads[i] = [asyncio.create_task(self.client(self.nodes[i])) for _ in range(CLIENTS)]

    async def start(self) -> None:
        await asyncio.gather(*(self.open(i) for i in self.addresses))

    async def client(self, node: paxos.Node) -> None:
        while True:
            try:
                await node.propose(b"x" * 100, timeout=5)
                self.acknowledged.append(time.perf_counter())
            except paxos.NodeClosed:
                return
            except paxos.PaxosError:
                self.failed += 1

    async def stop(self, i: int) -> None:
        for task in self.loads.pop(i):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.nodes.pop(i).close()

    async def settled(self, not_node: int = 0) -> int:
        """All know the same master."""
        while True:
            known = {node.master() for node in self.nodes.values()}
            if len(known) == 1 and (master := known.pop()) is not None and master.node_id != not_node:
                return master.node_id
            await asyncio.sleep(0.002)

    def longest(self, begun: float) -> float:
        """The longest gap since just before ``begun``."""
        times = [at for at in self.acknowledged if at > begun - 0.1]
        return max(b - a for a, b in itertools.pairwise(times))


def _figures(benchmark: BenchmarkFixture, gaps: list[float], name: str = "gap") -> None:
    milliseconds = sorted(gap * 1000 for gap in gaps)
    benchmark.extra_info.update(
        {
            "times": len(gaps),
            f"{name} p50 ms": round(statistics.median(milliseconds), 1),
            f"{name} max ms": round(milliseconds[-1], 1),
        }
    )


@pytest.mark.parametrize("how", ["transfer", "resign", "close"])
def test_hand_over(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, how: str) -> None:
    """... while 12 clients write. No proposal at another node fails."""

    async def main() -> tuple[list[float], int]:
        live = Live(tmp_path)
        await live.start()
        gaps = []
        try:
            for _ in range(2 if tiny else 20):
                master = await live.settled()
                await asyncio.sleep(0.05 if tiny else 0.5)
                master = await live.settled()
                begun = time.perf_counter()
                if how == "transfer":
                    await live.nodes[master].transfer(next(i for i in live.nodes if i != master), timeout=10)
                elif how == "resign":
                    await live.nodes[master].resign(timeout=10)
                else:
                    await live.stop(master)
                await live.settled(master)
                await asyncio.sleep(0.1)
                gaps.append(live.longest(begun))
                if how == "close":
                    await live.open(master)
        finally:
            for i in list(live.nodes):
                await live.stop(i)
        return gaps, live.failed

    found: list[tuple[list[float], int]] = []
    benchmark.pedantic(lambda: found.append(asyncio.run(main())), rounds=1, iterations=1)
    gaps, failed = found[0]
    _figures(benchmark, gaps)
    benchmark.extra_info["failed proposals"] = failed
    assert failed == 0


def test_killed(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool) -> None:
    """The master's process is killed (``kill -9``), again and again, under the load of ``paxos demo``."""
    ports = free_ports(6)
    addresses = {i: f"127.0.0.1:{ports[i - 1]}" for i in (1, 2, 3)}
    nodes = {i: NodeProcess(i, addresses, ports[i + 2], tmp_path) for i in addresses}

    async def info(node: NodeProcess) -> dict[str, str]:
        try:
            client = await RespClient.connect(node.resp_port)
            try:
                return await client.info(timeout=2.0)
            finally:
                client.close()
        except (OSError, TimeoutError):
            return {}

    async def agreed() -> int:
        """All are there, know the same master, and are level within a moment."""
        while True:
            found = [await info(node) for node in nodes.values()]
            masters = {fields.get("paxos_master_id", "0") for fields in found}
            applied = [int(fields.get("paxos_applied", "-1000000")) for fields in found]
            if len(masters) == 1 and masters != {"0"} and max(applied) - min(applied) < 1000:
                return int(masters.pop())
            await asyncio.sleep(0.05)

    async def main() -> list[float]:
        pauses = []
        load = Load({i: node.resp_port for i, node in nodes.items()}, 8)
        for node in nodes.values():
            node.start(detached=False)
        try:
            master = await agreed()
            load.start()
            for _ in range(2 if tiny else 20):
                await asyncio.sleep(0.1 if tiny else 1.0)
                master = await agreed()
                killed = time.monotonic()
                nodes[master].kill()
                while (resumed := load.first_after(killed)) is None:
                    await asyncio.sleep(0.005)
                pauses.append(resumed - killed)
                nodes[master].start(detached=False)
            await load.stop()
        finally:
            await stop_all(nodes.values())
        return pauses

    found: list[Any] = []
    benchmark.pedantic(lambda: found.append(asyncio.run(main())), rounds=1, iterations=1)
    _figures(benchmark, found[0], "pause")
