"""Clusters of nodes inside the test's own process, for tests of the API."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import paxos
from ports import free_port

DEADLINE = 30.0


class Journal(paxos.StateMachine):
    """Remembers what it was given, as (instance, value); the result of a value is how many came before it."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.instances: list[tuple[int, list[bytes]]] = []

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        first = len(self.values)
        self.instances.append((instance, list(values)))
        self.values += values
        return range(first, first + len(values))


#: What an engine tells of itself at least; it is member 1, by `table`.
STATUS: dict[str, Any] = {
    "node_id": 1, "boot": 1, "incarnation": f"{1:016x}" * 2, "chosen": 0, "replaced": False, "disowned": [], "peers": {},
}  # fmt: skip


def table(*rows: tuple[int, int]) -> bytes:
    """Members as an engine tells of them: (node, role), each of the incarnation of that number, in two halves."""
    head = struct.pack("<IIQQQQQII", 1, len(rows), 0, 0, 0, 0, 0, 0, 0)
    return head + b"".join(struct.pack("<IIQQQII", node, role, node, node, 0, 0, 0) for node, role in rows)


def book(count: int = 3) -> dict[int, str]:
    return {i: f"127.0.0.1:{free_port()}" for i in range(1, count + 1)}


async def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> None:
    """Waits until the condition holds; AssertionError after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not condition():
        assert loop.time() < end, f"not within {deadline:.0f} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def cluster(
    path: Path, count: int = 3, *, machine: Any = Journal, addresses: dict[int, str] | None = None, **options: Any
) -> AsyncIterator[dict[int, paxos.Node]]:
    """A formed cluster whose nodes all know the master."""
    options = {"segment_bytes": 16 << 20, "max_value": 1 << 20} | options
    addresses = addresses or book(count)
    nodes: dict[int, paxos.Node] = {}
    try:
        for i in addresses:
            nodes[i] = await paxos.Node.open(
                path / str(i), node_id=i, cluster=addresses, state_machine=machine, **options
            )
        for node in nodes.values():
            await node.wait_ready(DEADLINE)
        yield nodes
    finally:
        for node in nodes.values():
            await node.close()


def master_of(nodes: dict[int, paxos.Node]) -> paxos.Node:
    return next(node for node in nodes.values() if node.is_master())
