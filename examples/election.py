"""Something that one node of a cluster does and no other: printing pages, in order, each once.

    python examples/election.py 1        in three terminals: 1, 2 and 3
    python examples/election.py --demo   all three in this process, with a hand-over and a close

The printer is outside of the cluster, and cannot know who leads. It knows the highest version of the mastership that it was
given, and refuses what comes under a lower one (a fencing token). So a master that was paused, and does not know yet that another
one leads, prints nothing any more. Here the printer is a file with a lock on it; it could as well be a database, or a device.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import paxos

CLUSTER = {1: "127.0.0.1:27141", 2: "127.0.0.1:27142", 3: "127.0.0.1:27143"}


class Printed(paxos.StateMachine):
    """How many pages have been printed. A value is the number of the page that is next: whoever proposes it first has it."""

    def __init__(self) -> None:
        self.pages = 0

    def apply(self, instance: int, value: bytes) -> bool:
        mine = int(value) == self.pages + 1
        self.pages += mine
        return mine

    def read(self, query: object) -> int:
        return self.pages


class Printer:
    """Prints lines under a version, none under one that is lower than the highest it has seen."""

    def __init__(self, paper: Path) -> None:
        self.paper = paper

    def print(self, version: int, line: str) -> bool:
        with self.paper.open("a+") as paper:
            fcntl.flock(paper, fcntl.LOCK_EX)
            paper.seek(0)
            lines = paper.read().splitlines()
            if lines and int(lines[-1].split()[0]) > version:
                return False
            paper.write(f"{version} {line}\n")
            return True


async def lead(node: paxos.Node, me: int, version: int, printer: Printer, every: float) -> None:
    """What the master does, until it is cancelled."""
    while True:
        page = await node.read(None) + 1
        # First chosen, then printed: a master that dies in between has left a page out, and none is printed twice.
        if await node.propose(b"%d" % page) and not printer.print(version, f"page {page} by node {me}"):
            return  # another one leads already; the next change will tell
        await asyncio.sleep(every)


async def serve(node: paxos.Node, me: int, printer: Printer, every: float) -> None:
    """Leads whenever this node is the master. Ends when the node is closed."""
    leading: asyncio.Task[None] | None = None
    try:
        async for master in node.masters():
            if leading is not None:
                leading.cancel()
                with contextlib.suppress(asyncio.CancelledError, paxos.PaxosError):
                    await leading
                leading = None
            if master is not None and master.node_id == me:
                leading = asyncio.create_task(lead(node, me, master.version, printer, every))
    finally:
        if leading is not None:
            leading.cancel()


@contextlib.asynccontextmanager
async def running(me: int, data: Path, every: float = 1.0) -> AsyncIterator[paxos.Node]:
    """A node that does its part."""
    async with await paxos.Node.open(data / str(me), node_id=me, cluster=CLUSTER, state_machine=Printed) as node:
        task = asyncio.create_task(serve(node, me, Printer(data / "paper"), every))
        try:
            yield node
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def demo(data: Path) -> None:
    """Three nodes: the first master hands over, the second one is closed, and the pages go on."""

    async def pages(count: int) -> list[str]:
        while True:
            lines = (data / "paper").read_text().splitlines() if (data / "paper").exists() else []
            if len(lines) >= count:
                return lines
            await asyncio.sleep(0.01)

    async with contextlib.AsyncExitStack() as stack:
        stacks = {me: await stack.enter_async_context(contextlib.AsyncExitStack()) for me in CLUSTER}
        nodes = {me: await stacks[me].enter_async_context(running(me, data, 0.02)) for me in CLUSTER}
        for node in nodes.values():
            await node.wait_ready(30)
        await pages(5)
        first = next(node for node in nodes.values() if node.is_master())
        second = await first.resign(timeout=30)
        await pages(len((data / "paper").read_text().splitlines()) + 5)
        await stacks[second.node_id].aclose()
        lines = await pages(len((data / "paper").read_text().splitlines()) + 5)
    print("\n".join(lines))
    versions = [int(line.split()[0]) for line in lines]
    numbers = [int(line.split()[2]) for line in lines]
    assert versions == sorted(versions), "no old master has printed"
    assert len(set(versions)) >= 3, "three masters have"
    assert numbers == sorted(set(numbers)), "in order, no page twice"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Pages printed by whoever leads.")
    parser.add_argument("node", type=int, nargs="?", choices=list(CLUSTER))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "paxos-election"))
    parser.add_argument("--demo", action="store_true", help="all three nodes here, for a moment")
    options = parser.parse_args()
    if options.demo:
        with tempfile.TemporaryDirectory() as data:
            await demo(Path(data))
    elif options.node is None:
        parser.error("which node? 1, 2 or 3; or --demo")
    else:
        async with running(options.node, options.data) as node:
            async for master in node.masters():
                print("nobody leads" if master is None else f"node {master.node_id} leads, version {master.version}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
