"""A key-value store that survives its machines.

    python examples/kv.py 1          in three terminals: 1, 2 and 3; then type: set NAME VALUE, get NAME, add NAME NUMBER
    python examples/kv.py --demo     all three in this process

A retry must not add twice: each command goes under a token of its own, and is tried again, at any time, under the same one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import paxos

CLUSTER = {1: "127.0.0.1:27161", 2: "127.0.0.1:27162", 3: "127.0.0.1:27163"}


class Store(paxos.StateMachine):
    """Names and values. Results are bytes, because they are kept under tokens."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, instance: int, value: bytes) -> bytes:
        command, name, word = json.loads(value)
        if command == "add":
            word = str(int(self.values.get(name, "0")) + int(word))
        self.values[name] = word
        return word.encode()

    def read(self, query: str) -> str | None:
        return self.values.get(query)

    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(json.dumps(self.values, sort_keys=True).encode())

    def restore(self, reader: paxos.SnapshotReader) -> None:
        self.values = json.loads(b"".join(iter(lambda: reader.read(1 << 16), b"")))


async def execute(node: paxos.Node, session: paxos.Session, line: str) -> str:
    """What came of a line that was typed."""
    match line.split():
        case ["get", name]:
            return str(await node.read(name))
        case ["set" | "add" as command, name, word] if command == "set" or word.lstrip("-").isdecimal():
            token = session.token()
            while True:
                try:
                    result = await node.propose(json.dumps([command, name, word]).encode(), token=token)
                except paxos.SessionExpired:
                    return "nobody can tell any more whether it was done"
                except (paxos.NotAvailable, paxos.Overloaded, paxos.OutcomeUnknown):
                    await asyncio.sleep(0.1)
                else:
                    session.acknowledge(token)
                    return str(result.decode())
    return "there are: set NAME VALUE, get NAME, add NAME NUMBER"


async def demo(data: Path) -> None:
    """Writes at one node, reads at another."""
    async with contextlib.AsyncExitStack() as stack:
        opening = [paxos.Node.open(data / str(me), node_id=me, cluster=CLUSTER, state_machine=Store) for me in CLUSTER]
        nodes = [await stack.enter_async_context(await one) for one in opening]
        await nodes[0].wait_ready(30)
        session = await nodes[0].open_session(timeout=30)
        for number, line in enumerate(
            ["set answer 40", "add answer 2", "get answer", "get question", "add answer two"]
        ):
            print(f"{line}: {await execute(nodes[number % 3], session, line)}")


async def main() -> None:
    parser = argparse.ArgumentParser(description="A key-value store that survives its machines.")
    parser.add_argument("node", type=int, nargs="?", choices=list(CLUSTER))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "paxos-kv"))
    parser.add_argument("--demo", action="store_true", help="all three nodes here, for a moment")
    options = parser.parse_args()
    if options.demo:
        with tempfile.TemporaryDirectory() as data:
            await demo(Path(data))
        return
    if options.node is None:
        parser.error("which node? 1, 2 or 3; or --demo")
    place = options.data / str(options.node)
    async with await paxos.Node.open(place, node_id=options.node, cluster=CLUSTER, state_machine=Store) as node:
        await node.wait_ready()
        session = await node.open_session()
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await execute(node, session, line))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
