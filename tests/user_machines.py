"""State machines and a client of users, for the tests of paxos.testing."""

from __future__ import annotations

import asyncio
from typing import Any

import paxos
from paxos.testing import SimCluster


class Counter(paxos.StateMachine):
    def __init__(self) -> None:
        self.total = 0

    def apply(self, instance: int, value: bytes) -> int:
        self.total += int(value)
        return self.total

    def digest(self) -> int:
        return self.total


class Durable(Counter):
    """As if all it has done were on a disk of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.instance = -1
        self.starts = 0

    def last_applied(self) -> int:
        self.starts += 1
        return self.instance

    def apply_batch(self, instance: int, values: Any) -> list[int]:
        self.instance = instance
        return [self.apply(instance, value) for value in values]


async def clients(cluster: SimCluster, number: int = 3) -> None:
    """Proposes at random nodes while there are faults."""

    async def client() -> None:
        while cluster.now < cluster.seconds:
            try:
                await cluster.propose(b"1", timeout=cluster.random.choice([0.3, 1, 5]))
            except paxos.PaxosError:
                await cluster.sleep(0.05)
            await cluster.sleep(cluster.random.random() * 0.2)

    await asyncio.gather(*(client() for _ in range(number)))
