"""The smallest service: what is said at one node is heard at all of them, in one order.

python examples/echo.py 1            in three terminals: 1, 2 and 3; then type lines
python examples/echo.py --demo       all three in this process
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path

import paxos

CLUSTER = {1: "127.0.0.1:27151", 2: "127.0.0.1:27152", 3: "127.0.0.1:27153"}


class Echo(paxos.StateMachine):
    """Says what it hears. Behind a restart it hears everything again, from the log."""

    def __init__(self, me: int) -> None:
        self.me = me
        self.heard: list[bytes] = []

    def apply(self, instance: int, value: bytes) -> int:
        self.heard.append(value)
        print(f"node {self.me}: {value.decode()}", flush=True)
        return len(self.heard)


async def talk(me: int, data: Path) -> None:
    """Proposes what is typed."""
    async with await paxos.Node.open(
        data / str(me), node_id=me, cluster=CLUSTER, state_machine=lambda: Echo(me)
    ) as node:
        await node.wait_ready()
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                await node.propose(line.strip().encode())
            except paxos.Refused as error:
                print(f"not said: {error}")
            except paxos.OutcomeUnknown as error:
                print(f"perhaps said: {error}")


async def demo(data: Path) -> None:
    """Each node says something, and all hear the same."""
    machines = {me: Echo(me) for me in CLUSTER}
    async with contextlib.AsyncExitStack() as stack:
        nodes = {}
        for me in CLUSTER:
            opening = paxos.Node.open(
                data / str(me), node_id=me, cluster=CLUSTER, state_machine=partial(machines.__getitem__, me)
            )
            nodes[me] = await stack.enter_async_context(await opening)
        for me, node in nodes.items():
            await node.wait_ready(30)
            await node.propose(b"node %d was here" % me, timeout=30)
        while any(len(machine.heard) < len(CLUSTER) for machine in machines.values()):
            await asyncio.sleep(0.01)
    assert len({tuple(machine.heard) for machine in machines.values()}) == 1, "the same, in the same order"


async def main() -> None:
    parser = argparse.ArgumentParser(description="What is said at one node is heard at all.")
    parser.add_argument("node", type=int, nargs="?", choices=list(CLUSTER))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "paxos-echo"))
    parser.add_argument("--demo", action="store_true", help="all three nodes here, for a moment")
    options = parser.parse_args()
    if options.demo:
        with tempfile.TemporaryDirectory() as data:
            await demo(Path(data))
    elif options.node is None:
        parser.error("which node? 1, 2 or 3; or --demo")
    else:
        await talk(options.node, options.data)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
