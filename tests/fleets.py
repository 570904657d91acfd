"""Clusters whose members come and go, and clients that write to them all the time, for tests of membership."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import paxos
from nodes import DEADLINE, Journal, book, cluster, until
from ports import free_port

SMALL: dict[str, Any] = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


class Kept(Journal):
    """... that a checkpoint brings back, and that can be read."""

    def read(self, query: object) -> int:
        return len(self.values)

    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(b"\n".join(self.values))

    def restore(self, reader: paxos.SnapshotReader) -> None:
        data = b""
        while part := reader.read(1 << 16):
            data += part
        self.values = data.split(b"\n") if data else []


class Fleet:
    """A cluster that grows and shrinks, and clients that write to it all the time."""

    def __init__(self, path: Path, nodes: dict[int, paxos.Node], addresses: dict[int, str], **options: Any) -> None:
        self.path, self.nodes, self.addresses, self.options = path, nodes, addresses, options
        self.usable = set(nodes)
        self.under_way: dict[int, int] = {}
        self.results: list[int] = []
        self.going = True
        self.clients: list[asyncio.Task[None]] = []

    @property
    def master(self) -> paxos.Node:
        return next(node for node in self.nodes.values() if node.is_master())

    @property
    def master_id(self) -> int:
        return next(i for i, node in self.nodes.items() if node.is_master())

    def other(self, *but: int) -> int:
        return next(i for i in self.nodes if i not in (self.master_id, *but))

    def address(self, node_id: int) -> str:
        return self.addresses.setdefault(node_id, f"127.0.0.1:{free_port()}")

    async def open(self, node_id: int, known: Sequence[int] = (), **options: Any) -> paxos.Node:
        """Starts a node that is new, with an empty directory; it is told of the members of today, and itself."""
        told = {i: self.address(i) for i in [*(known or self.nodes), node_id]}
        options = {"machine": Kept} | self.options | options
        self.nodes[node_id] = node = await paxos.Node.open(
            self.path / str(node_id), node_id=node_id, cluster=told, state_machine=options.pop("machine"), **options
        )
        return node

    async def votes(self, *voters: int) -> None:
        """Until all nodes that are left know just these as members with a vote, and every change is in force."""
        await until(
            lambda: all(
                self.nodes[i].members().voters == voters and not self.nodes[i].members().pending for i in voters
            ),
            f"{voters} vote: {[n.members() for n in self.nodes.values()]}",
        )

    async def leave(self, node_id: int) -> None:
        """Nobody writes at this node any more."""
        self.usable.discard(node_id)
        await until(lambda: not self.under_way.get(node_id), f"nothing is under way at node {node_id}")

    async def remove(self, node_id: int) -> paxos.Members:
        await self.leave(node_id)
        at = self.other(node_id)
        return await self.nodes[at].remove(node_id, timeout=DEADLINE)

    async def write(self, name: bytes) -> None:
        number = 0
        while self.going:
            number += 1
            node_id = sorted(self.usable)[number % len(self.usable)]
            self.under_way[node_id] = self.under_way.get(node_id, 0) + 1
            try:
                self.results.append(await self.nodes[node_id].propose(b"%b%d" % (name, number), timeout=DEADLINE))
            except paxos.Overloaded:
                await asyncio.sleep(0)
            finally:
                self.under_way[node_id] -= 1

    @contextlib.asynccontextmanager
    async def written(self, clients: int = 4) -> AsyncIterator[None]:
        """Clients write meanwhile; in the end every value has a place of its own, and no node lacks one."""
        self.clients = [asyncio.create_task(self.write(b"%d." % i)) for i in range(clients)]
        try:
            yield
            await self.more()
        finally:
            self.going = False
            await asyncio.gather(*self.clients)  # raises what any of them ended with
        assert sorted(self.results) == list(range(len(self.results)))
        last = await self.nodes[min(self.usable)].propose(b"the last", timeout=DEADLINE)
        assert last == len(self.results)
        for i in self.usable:
            assert await self.nodes[i].read(None, timeout=DEADLINE) == last + 1

    async def more(self, count: int = 20) -> None:
        have = len(self.results)
        await until(
            lambda: len(self.results) >= have + count or any(client.done() for client in self.clients),
            "values are chosen",
        )


@contextlib.asynccontextmanager
async def fleet(path: Path, count: int = 3, **options: Any) -> AsyncIterator[Fleet]:
    addresses = book(count)
    options = {**SMALL, **options}
    async with cluster(path, machine=Kept, addresses=addresses, **options) as nodes:
        yield Fleet(path, nodes, dict(addresses), **options)


def run(main: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(main(), 4 * DEADLINE))


# ---- growing and shrinking ----
