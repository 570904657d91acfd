"""Three node processes of ``paxos bench``, kept running over many loads, and what each load cost per value."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_running import Running

from paxos.cli.bench import BenchFailed, BenchOptions, Worker, summarise
from paxos.cli.bench_load import LoadOptions
from paxos.cli.processes import free_ports
from paxos.config import Options

NODES = 3
STEP = 20.0  # seconds for what does not depend on the length of a load; beyond it the run fails

#: What of a window goes into extra_info.
KEYS = (
    "values_per_s", "p50_ms", "p99_ms", "rtts_per_value", "log_writes_per_value_per_node", "syncs_per_value_per_node",
    "messages_per_value", "bytes_per_value", "log_bytes_per_value_per_node",
)  # fmt: skip
#: Counters of NodeStatus that only grow.
GROWING = (
    "commits", "log_writes", "fsyncs", "log_seconds", "frames_sent", "bytes_sent", "elections", "reads", "read_rounds",
)  # fmt: skip


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Workers are started with this process's environment; here it has some more."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Nodes(Running):
    """Three nodes, a process each, on free loopback ports. Not thread-safe; use as a context manager.

    ``environments``: what is added to the environment of a node's process, by node. Raises BenchFailed where the nodes do
    not come up, name no master, or where a load ends early.
    """

    def __init__(self, directory: Path, environments: Mapping[int, Mapping[str, str]] | None = None) -> None:
        super().__init__()
        self.directory = directory
        self._environments = environments or {}
        self._workers: dict[int, Worker] = {}
        self.cluster: dict[int, str] = {}

    def _options(self, load: LoadOptions) -> BenchOptions:
        return BenchOptions(
            nodes=NODES, clients=load.clients, value_size=load.value_size, seconds=load.seconds, warmup=load.warmup,
            batch=load.batch, window=Options().window, remote=False, floor=False, data=self.directory, as_json=True,
            loop="asyncio",
        )  # fmt: skip

    async def _start(self) -> None:
        self.cluster = cluster = {number: f"127.0.0.1:{port}" for number, port in enumerate(free_ports(NODES), 1)}
        options = self._options(LoadOptions(1, 100, 1, 1.0, 0.0))
        for number in cluster:
            with _environment(self._environments.get(number, {})):
                self._workers[number] = await Worker.start(number, cluster, self.directory, options)
        for worker in self._workers.values():
            await worker.hear("open")
        await self._find_master()

    async def _stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()))

    async def _find_master(self) -> int:
        loop = asyncio.get_running_loop()
        end = loop.time() + STEP
        while True:
            statuses = {number: await worker.status() for number, worker in self._workers.items()}
            named = {status["master_id"] for status in statuses.values()}
            if len(named) == 1 and (master := named.pop()) and statuses[master]["role"] == "master":
                return int(master)
            if loop.time() > end:
                raise BenchFailed(f"no master within {STEP:.0f} s")
            await asyncio.sleep(0.01)

    @property
    def master(self) -> int:
        """The node that all agree on."""
        return self._runner.run(self._find_master())

    def load(
        self, *, clients: int, batch: int = 1, value_size: int = 100, seconds: float, warmup: float
    ) -> dict[str, Any]:
        """One window of load in the master's process: what a caller saw, and what it cost, per value.

        The counts are differences of the nodes' own counters between the two ends of the window. ``calm``: no election and no
        refusal in it, so that the counts are those of the steady state. ``counts``: for each node, how much its counters grew.
        """
        return self._runner.run(self._load(LoadOptions(clients, value_size, batch, seconds, warmup)))

    def reads(
        self, *, clients: int, batch: int = 1, at_master: bool = True, seconds: float, warmup: float
    ) -> dict[str, Any]:
        """One window of reads in the master's process, or in another node's: as ``load``, but per read."""
        return self._runner.run(self._reads(LoadOptions(clients, 100, batch, seconds, warmup, read=True), at_master))

    async def _reads(self, load: LoadOptions, at_master: bool) -> dict[str, Any]:
        master = await self._find_master()
        at = master if at_master else next(number for number in self._workers if number != master)
        measured, before, after = await self._window(load, at)
        counts = {
            number: {name: after[number][name] - then[name] for name in GROWING} for number, then in before.items()
        }
        reads = counts[at]["reads"]
        return {
            "reads_per_s": measured["values"] / measured["seconds"],
            "p50_ms": measured["p50_ms"],
            "p99_ms": measured["p99_ms"],
            "read_rounds_per_read": sum(count["read_rounds"] for count in counts.values()) / reads,
            "messages_per_read": sum(count["frames_sent"] for count in counts.values()) / reads,
            "log_writes": sum(count["log_writes"] for count in counts.values()),
            "calm": not measured["refused"] and not any(count["elections"] for count in counts.values()),
        }

    async def _load(self, load: LoadOptions) -> dict[str, Any]:
        master = await self._find_master()
        measured, before, after = await self._window(load, master)
        result = summarise(self._options(load), measured, before, after, master)
        result["calm"] = result["elections"] == 0 and result["refused"] == 0
        result["master"] = master
        result["counts"] = {
            number: {name: after[number][name] - then[name] for name in GROWING} for number, then in before.items()
        }
        return result

    async def _window(
        self, load: LoadOptions, at: int
    ) -> tuple[dict[str, Any], dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
        """What the load at a node measured, and the counters of all nodes before and after."""
        loaded = self._workers[at]
        loaded.tell(do="load", options=asdict(load))
        before = {at: (await loaded.hear("opened", load.warmup + STEP))["status"]}
        others = {number: worker for number, worker in self._workers.items() if number != at}
        for number, worker in others.items():
            before[number] = await worker.status()
        after = {at: (await loaded.hear("closed", load.seconds + STEP))["status"]}
        for number, worker in others.items():
            after[number] = await worker.status()
        return (await loaded.hear("result"))["result"], before, after


def figures(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median window by throughput, as what goes into extra_info."""
    middle = sorted(windows, key=lambda window: window["values_per_s"])[len(windows) // 2]
    return {key: middle[key] for key in KEYS} | {"log_mode": middle["log_mode"], "windows": len(windows)}
