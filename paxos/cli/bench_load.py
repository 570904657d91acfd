"""The load of ``paxos bench``, in the process of a node: tasks that propose (or read), one call under way each."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import paxos


class LoadedNode(Protocol):
    """What the load needs of :class:`paxos.Node`."""

    def propose(self, value: bytes, *, timeout: float = ...) -> Awaitable[object]: ...
    def propose_many(self, values: Sequence[bytes], *, timeout: float = ...) -> Awaitable[Sequence[object]]: ...
    def read(self, query: bytes, *, timeout: float = ...) -> Awaitable[object]: ...
    def read_many(self, queries: Sequence[bytes], *, timeout: float = ...) -> Awaitable[Sequence[object]]: ...


@dataclass(frozen=True)
class LoadOptions:
    """``clients`` tasks; a call carries ``batch`` values of ``value_size`` bytes; times in seconds. ``read``: they are read, and
    not proposed."""

    clients: int
    value_size: int
    batch: int
    seconds: float
    warmup: float
    read: bool = False


@dataclass(frozen=True)
class LoadResult:
    """What was measured in the window. Latencies are of calls, in ms, over all calls that ended in it."""

    values: int
    seconds: float
    calls: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that ``share`` of the samples do not exceed. 0 without samples."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 1)  # ceil
    return ordered[max(int(rank), 1) - 1]


async def run_load(
    node: LoadedNode, options: LoadOptions, opened: Callable[[], None], closed: Callable[[], None]
) -> LoadResult:
    """Warm up, measure, stop. ``opened`` and ``closed`` are called at the two ends of the window, under load.

    A refused call is counted and made again; any other error ends the load and is raised.
    """
    value = b"v" * options.value_size
    values = [value] * options.batch
    one, many = (node.read, node.read_many) if options.read else (node.propose, node.propose_many)
    clock = time.perf_counter
    samples = array("d")
    measuring = stopping = False
    refused = 0

    async def client() -> None:
        nonlocal refused
        while not stopping:
            began = clock()
            try:
                if options.batch == 1:
                    await one(value)
                else:
                    await many(values)
            except (paxos.Refused, paxos.PartialOutcome) as error:
                if isinstance(error, paxos.PartialOutcome) and any(
                    isinstance(outcome, paxos.OutcomeUnknown) for outcome in error.outcomes
                ):
                    raise
                refused += 1
                await asyncio.sleep(0.001)
                continue
            if measuring:
                samples.append(clock() - began)

    async def conduct() -> float:
        nonlocal measuring, refused
        await asyncio.sleep(options.warmup)
        refused = 0
        measuring = True
        began = clock()
        opened()
        await asyncio.sleep(options.seconds)
        measuring = False
        closed()
        return clock() - began

    tasks = [asyncio.create_task(client()) for _ in range(options.clients)]
    conductor = asyncio.create_task(conduct())
    try:
        # Whatever ends first: the window, or a client by its error.
        await asyncio.wait([conductor, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if not conductor.done():
            conductor.cancel()
    finally:
        stopping = True
    outcomes = await asyncio.gather(conductor, *tasks, return_exceptions=True)
    for outcome in outcomes[1:]:
        if isinstance(outcome, BaseException):
            raise outcome
    seconds = conductor.result()
    ordered = sorted(samples)
    return LoadResult(
        values=len(ordered) * options.batch,
        seconds=seconds,
        calls=len(ordered),
        p50_ms=percentile(ordered, 0.50) * 1000,
        p99_ms=percentile(ordered, 0.99) * 1000,
        max_ms=(ordered[-1] if ordered else 0.0) * 1000,
        refused=refused,
    )
