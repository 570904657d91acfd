"""One node in a process of its own that does what it is told on stdin: one JSON command a line, one JSON answer a line."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paxos


class Echo(paxos.StateMachine):
    def apply(self, instance: int, value: bytes) -> int:
        return len(value)


async def serve(arguments: dict[str, Any]) -> None:
    cluster = {int(node): address for node, address in arguments.pop("cluster").items()}
    node = await paxos.Node.open(cluster=cluster, state_machine=Echo, **arguments)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, argument = json.loads(line)
        answer: Any = None
        if command == "status":
            answer = dataclasses.asdict(node.status())
        elif command == "ready":
            await node.wait_ready(argument)
        elif command == "propose":
            answer = await node.propose(b"x" * 100, timeout=argument)
        elif command == "try":
            # [timeout, size]: the type of the error, and what it says; or "", and the result.
            try:
                answer = ["", await node.propose(b"x" * argument[1], timeout=argument[0])]
            except paxos.PaxosError as error:
                answer = [type(error).__name__, str(error)]
        elif command == "hog":
            # PyDLL keeps the GIL while the C function sleeps: no other Python thread of this process runs meanwhile.
            print(json.dumps("hogging"), flush=True)
            ctypes.PyDLL(None).usleep(int(argument * 1e6))
        print(json.dumps(answer), flush=True)
    await node.close()


class Worker:
    """The other end: starts such a process and talks to it. Commands are sent and answered one at a time."""

    def __init__(
        self,
        path: Path,
        node_id: int,
        cluster: dict[int, str],
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            text=True,
            bufsize=1,
        )
        self._write({"path": str(path), "node_id": node_id, "cluster": cluster, **options})

    def _write(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def send(self, command: str, argument: Any = None) -> None:
        self._write([command, argument])

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the worker ended with {self.process.wait()}"
        return json.loads(line)

    def call(self, command: str, argument: Any = None) -> Any:
        self.send(command, argument)
        return self.answer()

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.stdin.readline())))
