"""Three node processes, in which loads run: as many proposals as are done (``peak``), or so many a second, whatever becomes of
them (``offer``).

    python benchmarks/bench_overload.py OPTIONS         a node, told what to do on stdin: JSON, a line each, answered on stdout
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_running import Running

import paxos
from paxos.cli.processes import free_ports

NODES = 3
STEP = 60.0  # seconds for what does not depend on the length of a load; beyond it the run fails
TICK = 0.001  # seconds between two bursts of what is offered
CATCH_UP = 20  # ticks that a burst may make up for: the loop must get to what is done


class Length(paxos.StateMachine):
    """Does as little as a state machine can."""

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        return [len(value) for value in values]


async def peak(node: paxos.Node, values: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """Calls done in the window, with always so many under way."""
    done = refused = 0
    stopping = False

    async def client() -> None:
        nonlocal done, refused
        while not stopping:
            try:
                await call(node, values)
                done += 1
            except paxos.Overloaded:
                refused += 1
                await asyncio.sleep(TICK)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    await asyncio.sleep(min(seconds / 4, 0.5))
    before, refused, begun = done, 0, time.perf_counter()
    await asyncio.sleep(seconds)
    found = {"per_s": (done - before) * len(values) / (time.perf_counter() - begun), "refused": refused}
    stopping = True
    await asyncio.gather(*tasks)
    return found


def call(node: paxos.Node, values: list[bytes]) -> asyncio.Future[Any]:
    return node.propose(values[0], timeout=STEP) if len(values) == 1 else node.propose_many(values, timeout=STEP)


async def offer(node: paxos.Node, values: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """``rate`` values a second. What was offered, refused, done within the window, and how long what was taken took."""
    clock = time.perf_counter
    waits: list[float] = []
    expected: list[float] = []
    full = 0  # refused as too much was under way, whatever the wait
    ended: Counter[str] = Counter()
    done = under_way = most = offered = ticks = 0
    nothing = asyncio.Event()

    def settled(at: float, future: asyncio.Future[Any]) -> None:
        nonlocal done, under_way
        under_way -= 1
        now = clock()
        if (error := future.exception()) is not None:
            ended[type(error).__name__] += 1
        else:
            waits.append(now - at)
            done += now < end
        if not under_way:
            nothing.set()

    calls_a_second = rate / len(values)
    begun = clock()
    end = begun + seconds
    while (now := clock()) < end:
        due = int((now - begun) * calls_a_second) - offered
        for _ in range(min(due, max(1, int(calls_a_second * TICK * CATCH_UP)))):
            offered += 1
            at = clock()
            try:
                future = call(node, values)
            except paxos.Overloaded as error:
                if error.expected_wait is None:
                    full += 1
                else:
                    expected.append(error.expected_wait)
            else:
                under_way += 1
                future.add_done_callback(functools.partial(settled, at))
        most = max(most, under_way)
        ticks += 1
        await asyncio.sleep(TICK)
    spent = clock() - begun
    if under_way:
        nothing.clear()
        async with asyncio.timeout(STEP):
            await nothing.wait()
    return {
        "offered": offered, "seconds": spent, "done": done, "refused": len(expected) + full, "ended": ended, "most": most,
        "least_expected": min(expected, default=None), "waits": [round(wait, 6) for wait in waits],
        "pending": node.status().pending,
    }  # fmt: skip


async def serve(told: dict[str, Any]) -> None:
    cluster = {int(number): address for number, address in told["cluster"].items()}
    loop = asyncio.get_running_loop()
    async with await paxos.Node.open(
        told["data"], node_id=told["node"], cluster=cluster, state_machine=Length, **told["options"]
    ) as node:
        await node.wait_ready(STEP)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            what = command.pop("do")
            answer: Any
            if what == "status":
                answer = dataclasses.asdict(node.status())
            else:
                values = [bytes(command.pop("size"))] * command.pop("batch")
                answer = await (peak if what == "peak" else offer)(node, values, **command)
            print(json.dumps(answer), flush=True)


class Overloaded(Running):
    """The nodes, on free loopback ports. Use as a context manager."""

    def __init__(
        self, directory: Path, options: Mapping[str, Any], environments: Mapping[int, Mapping[str, str]]
    ) -> None:
        super().__init__()
        self.directory = directory
        self.options = dict(options)
        self.environments = environments
        self.processes: dict[int, asyncio.subprocess.Process] = {}

    async def _start(self) -> None:
        cluster = {number: f"127.0.0.1:{port}" for number, port in enumerate(free_ports(NODES), 1)}
        for number in cluster:
            told = {
                "node": number, "cluster": cluster, "data": str(self.directory / str(number)), "options": self.options,
            }  # fmt: skip
            self.processes[number] = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, json.dumps(told)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self.environments.get(number, {})},
                limit=1 << 26,  # a line holds what each call took
            )

    async def _stop(self) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes.values():
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def tell(self, nodes: Sequence[int], **command: Any) -> list[dict[str, Any]]:
        """The same to each of these nodes at once; their answers."""
        return self._runner.run(self._tell(nodes, command))

    async def _tell(self, nodes: Sequence[int], command: dict[str, Any]) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(self._ask(self.processes[node], command) for node in nodes)))

    async def _ask(self, process: asyncio.subprocess.Process, command: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(command.get("seconds", 0) + 2 * STEP):
            line = await process.stdout.readline()
        assert line, "a node has ended; what it said is above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def statuses(self) -> dict[int, dict[str, Any]]:
        nodes = list(self.processes)
        return dict(zip(nodes, self.tell(nodes, do="status"), strict=True))

    def master(self) -> int:
        """The node that all agree on."""
        end = time.monotonic() + STEP
        while True:
            named = {status["master_id"] for status in self.statuses().values()}
            if len(named) == 1 and (master := int(named.pop())):
                return master
            assert time.monotonic() < end, f"no master within {STEP:.0f} s"
            time.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
