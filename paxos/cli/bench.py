"""``paxos bench``: node processes on this machine, a load in one of them, and what a value costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

import paxos

from .bench_load import LoadOptions
from .floor import Floor, measure_floor
from .loops import cancel_on_sigterm
from .processes import free_ports

#: Seconds for a step that does not depend on the length of the run.
_STEP: Final = 20.0


@dataclass(frozen=True)
class BenchOptions:
    """What ``paxos bench`` was told."""

    nodes: int
    clients: int
    value_size: int
    seconds: float
    warmup: float
    batch: int
    window: int
    remote: bool
    floor: bool
    data: Path | None
    as_json: bool
    loop: str


class BenchFailed(paxos.PaxosError):
    """The cluster did not come up, or the load ended early."""


class Worker:
    """The process of one node."""

    def __init__(self, node_id: int, process: asyncio.subprocess.Process) -> None:
        self.node_id = node_id
        self._process = process

    @classmethod
    async def start(cls, node_id: int, cluster: dict[int, str], directory: Path, options: BenchOptions) -> Worker:
        told = {
            "node_id": node_id,
            "cluster": cluster,
            "data": str(directory / str(node_id)),
            "window": options.window,
            "loop": options.loop,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "paxos.cli.bench_worker", json.dumps(told)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is for us; they end when their stdin does.
            start_new_session=True,
        )
        return cls(node_id, process)

    def tell(self, **message: object) -> None:
        """Send a message."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def hear(self, event: str, timeout: float = _STEP) -> dict[str, Any]:
        """Its next message, which must be ``event``. Raises :class:`BenchFailed` for another, an end, or none."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchFailed(f"node {self.node_id} did not say '{event}' within {timeout:.0f} s") from None
        if not line:
            raise BenchFailed(f"node {self.node_id} has ended; what it said is above")
        message: dict[str, Any] = json.loads(line)
        if message["event"] != event:
            raise BenchFailed(f"node {self.node_id}: {message.get('error', message['event'])}")
        return message

    async def status(self) -> dict[str, Any]:
        """Its status now."""
        self.tell(do="status")
        status: dict[str, Any] = (await self.hear("status"))["status"]
        return status

    async def stop(self) -> None:
        """End it, with SIGKILL when it does not end by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(5.0):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


async def bench(options: BenchOptions) -> None:
    """Run the benchmark and print what it found. Raises :class:`BenchFailed`."""
    cancel_on_sigterm()
    directory = Path(tempfile.mkdtemp(prefix="paxos-bench-", dir=_parent(options)))
    try:
        floor = await measure_floor(directory, options.nodes) if options.floor else None
        result = await _measure(options, directory)
    finally:
        shutil.rmtree(directory)
    if floor is not None:
        result.update(asdict(floor))
        result["target_p50_ms"] = target_p50_ms(floor)
    _print(options, result)


def target_p50_ms(floor: Floor) -> float:
    """What one client with small values may take: 60 µs and 1.3 times the bare write and round trip, in ms."""
    return 0.060 + 1.3 * (floor.floor_write_ms + floor.floor_rtt_ms)


def _parent(options: BenchOptions) -> Path | None:
    if options.data is not None:
        options.data.mkdir(parents=True, exist_ok=True)
    return options.data


async def _measure(options: BenchOptions, directory: Path) -> dict[str, Any]:
    ports = free_ports(options.nodes)
    cluster = {number: f"127.0.0.1:{port}" for number, port in enumerate(ports, 1)}
    workers: list[Worker] = []
    try:
        for number in cluster:
            workers.append(await Worker.start(number, cluster, directory, options))
        for worker in workers:
            await worker.hear("open")
        master = await _master(workers)
        others = [worker for worker in workers if worker is not master]
        loaded = others[0] if options.remote and others else master
        load = LoadOptions(options.clients, options.value_size, options.batch, options.seconds, options.warmup)
        loaded.tell(do="load", options=asdict(load))
        # Each node's counts are divided by the values that this node committed between its own two looks, so it does
        # no harm that the looks of different nodes are not at the same moment.
        before = {loaded.node_id: (await loaded.hear("opened", options.warmup + _STEP))["status"]}
        for worker in workers:
            if worker is not loaded:
                before[worker.node_id] = await worker.status()
        after = {loaded.node_id: (await loaded.hear("closed", options.seconds + _STEP))["status"]}
        for worker in workers:
            if worker is not loaded:
                after[worker.node_id] = await worker.status()
        measured = (await loaded.hear("result"))["result"]
        for worker in workers:
            await worker.stop()
    finally:
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(worker.stop() for worker in workers))
    return summarise(options, measured, before, after, master.node_id)


async def _master(workers: Sequence[Worker]) -> Worker:
    """The node that all agree on as master, and that knows itself to be it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _STEP
    while True:
        statuses = [await worker.status() for worker in workers]
        named = {status["master_id"] for status in statuses}
        for worker, status in zip(workers, statuses, strict=True):
            if status["role"] == "master" and named == {worker.node_id}:
                return worker
        if loop.time() > end:
            raise BenchFailed(f"no master within {_STEP:.0f} s; the nodes name {sorted(named)}")
        await asyncio.sleep(0.05)


def summarise(
    options: BenchOptions,
    measured: dict[str, Any],
    before: dict[int, dict[str, Any]],
    after: dict[int, dict[str, Any]],
    master: int,
) -> dict[str, Any]:
    """The figures from the load's own clock and from the differences of the nodes' counts."""

    def per_value(name: str) -> list[float]:
        """For each node, the count ``name`` per value that it committed."""
        shares = []
        for number, then in before.items():
            commits = after[number]["commits"] - then["commits"]
            if commits <= 0:
                raise BenchFailed(f"node {number} committed nothing in the measured window")
            shares.append((after[number][name] - then[name]) / commits)
        return shares

    proposed = after[master]["proposed_values"] - before[master]["proposed_values"]
    rounds = after[master]["rounds"] - before[master]["rounds"]
    writes, syncs = per_value("log_writes"), per_value("fsyncs")
    return {
        "values_per_s": measured["values"] / measured["seconds"],
        "p50_ms": measured["p50_ms"],
        "p99_ms": measured["p99_ms"],
        "max_ms": measured["max_ms"],
        "rtts_per_value": rounds / proposed if proposed > 0 else 0.0,
        "messages_per_value": sum(per_value("frames_sent")),
        "log_writes_per_value_per_node": sum(writes) / len(writes),
        "syncs_per_value_per_node": sum(syncs) / len(syncs),
        "bytes_per_value": sum(per_value("bytes_sent")),
        "log_bytes_per_value_per_node": sum(per_value("log_bytes")) / len(before),
        "values": measured["values"],
        "seconds": measured["seconds"],
        "refused": measured["refused"],
        "elections": sum(after[number]["elections"] - before[number]["elections"] for number in before),
        "log_mode": after[master]["log_mode"],
        "nodes": options.nodes,
        "clients": options.clients,
        "value_size": options.value_size,
        "batch": options.batch,
        "window": options.window,
        "remote": options.remote,
        "loop": options.loop,
    }


def _print(options: BenchOptions, result: dict[str, Any]) -> None:
    if options.as_json:
        print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in result.items()}))
        return
    table = Table(title=f"paxos bench: {options.nodes} nodes, {options.clients} clients, {options.value_size} bytes")
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
