"""One node of ``paxos bench`` in a process of its own: ``python -m paxos.cli.bench_worker OPTIONS``.

Talks in JSON, a line each. It is told ``{"do": "status"}``, ``{"do": "load", …}`` or ``{"do": "stop"}`` on stdin, and
says ``{"event": …}`` on stdout. It stops when stdin ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import paxos

from .bench_load import LoadOptions, run_load
from .loops import run


class Echo(paxos.StateMachine):
    """Does as little as a state machine can, so that the library is measured and not the service."""

    def __init__(self) -> None:
        self._applied = -1

    def apply(self, instance: int, value: bytes) -> object:
        """The length of the value."""
        return len(value)

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        """The lengths of the values."""
        self._applied = instance
        return [len(value) for value in values]

    def read(self, query: bytes) -> object:
        """The length of the query."""
        return len(query)

    def last_applied(self) -> int:
        """The last instance applied."""
        return self._applied


def say(event: str, **fields: object) -> None:
    """One event to the parent."""
    print(json.dumps({"event": event, **fields}), flush=True)


async def work(options: dict[str, Any]) -> None:
    """Be a node until told to stop."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    stdin = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdin)
    node = await paxos.Node.open(
        options["data"],
        node_id=options["node_id"],
        cluster={int(number): address for number, address in options["cluster"].items()},
        state_machine=Echo,
        window=options["window"],
    )
    load: asyncio.Task[None] | None = None
    try:
        say("open")
        while line := await reader.readline():
            message = json.loads(line)
            if message["do"] == "stop":
                break
            if message["do"] == "load":
                load = asyncio.create_task(_load(node, LoadOptions(**message["options"])))
            elif message["do"] == "status":
                say("status", status=_status(node))
    finally:
        if load is not None:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        transport.close()
        await node.close()


def _status(node: paxos.Node) -> dict[str, object]:
    return dataclasses.asdict(node.status())


async def _load(node: paxos.Node, options: LoadOptions) -> None:
    try:
        result = await run_load(
            node,
            options,
            opened=lambda: say("opened", status=_status(node)),
            closed=lambda: say("closed", status=_status(node)),
        )
    except paxos.PaxosError as error:
        say("failed", error=f"{type(error).__name__}: {error}")
    else:
        say("result", result=dataclasses.asdict(result))


def main() -> int:
    """Run with the options given as JSON in the only argument; the exit status."""
    options = json.loads(sys.argv[1])
    # That a peer is not up yet is no news here; what ends a node is.
    logging.basicConfig(level=logging.ERROR, format=f"node {options['node_id']}: %(message)s")
    try:
        run(work(options), options["loop"])
    except (paxos.PaxosError, OSError) as error:
        say("failed", error=f"{type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
