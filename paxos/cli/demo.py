"""``paxos demo``: three nodes, a load, a killed master, and the proof that nothing was lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import paxos

from .demo_load import Load
from .demo_view import View
from .loops import cancel_on_sigterm
from .processes import NodeProcess, free_ports, stop_all
from .resp_client import ReplyError, RespClient

T = TypeVar("T")

NODES: Final = 3
#: Seconds each step may take; far above what it takes on a machine that works.
_STEP: Final = 15.0
_PERIOD: Final = 0.1
#: Keys read in one command when the writes are read back.
_READ: Final = 500


@dataclass(frozen=True)
class DemoOptions:
    """What ``paxos demo`` was told. ``seconds``: length of each phase of load."""

    as_json: bool
    keep: bool
    seconds: float
    writers: int
    data: Path | None


class DemoFailed(paxos.PaxosError):
    """A step of the demonstration did not come about."""


@dataclass
class Report:
    """What the demonstration has found; the keys of ``--json``."""

    ok: bool = False
    acknowledged: int = 0
    unavailable: int = 0
    unknown: int = 0
    missing: int = 0
    wrong: int = 0
    killed_node: int = 0
    new_master: int = 0
    writes_resumed_s: float = 0.0
    aligned_s: float = 0.0
    writes_per_s: int = 0
    applied: dict[int, int] = field(default_factory=dict)
    checksums: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


class Demo:
    """The nodes of one run and the connections that watch them."""

    def __init__(self, options: DemoOptions, directory: Path, view: View) -> None:
        self.options = options
        self.view = view
        self.report = Report()
        ports = free_ports(2 * NODES)
        cluster = {number: f"127.0.0.1:{ports[number - 1]}" for number in range(1, NODES + 1)}
        self.nodes = {number: NodeProcess(number, cluster, ports[NODES + number - 1], directory) for number in cluster}
        self.status: dict[int, dict[str, str]] = {}
        self._restarted = False
        self._looking = asyncio.Lock()
        self._watching: dict[int, RespClient] = {}
        self.load = Load({number: node.resp_port for number, node in self.nodes.items()}, options.writers)

    async def run(self) -> None:
        """All steps. Raises :class:`DemoFailed`."""
        began = time.monotonic()
        report, load, view = self.report, self.load, self.view
        view.say("starting three nodes")
        for node in self.nodes.values():
            node.start(detached=self.options.keep)
        master = await self._until("a master is elected", self._master)
        view.say(f"node {master} is master; writing through {self.options.writers} connections")
        watch = asyncio.create_task(self._watch())
        load.start()
        try:
            await self._phase(self.options.seconds)
            if not load.acknowledged:
                raise DemoFailed(f"no write was acknowledged within {self.options.seconds} s")
            report.writes_per_s = round(len(load.acknowledged) / self.options.seconds)
            master = await self._until("a master is known", self._master)
            report.killed_node = master
            killed = time.monotonic()
            self.nodes[master].kill()
            view.say(f"kill -9 of the master, node {master}, after {len(load.acknowledged):,} writes")
            resumed = await self._until("writes go on", lambda: load.first_after(killed))
            report.writes_resumed_s = round(resumed - killed, 3)
            view.say(f"writes go on after {report.writes_resumed_s:.3f} s")
            await self._phase(self.options.seconds)
            report.new_master = await self._until("the others name their master", self._master)
            behind = max(self._applied(number) or 0 for number in self.nodes if number != master)
            started = time.monotonic()
            self.nodes[master].start(detached=self.options.keep)
            self._restarted = True
            view.say(f"node {report.new_master} is master; node {master} is started again")
            await self._until(f"node {master} is aligned", lambda: (self._applied(master) or 0) >= behind)
            report.aligned_s = round(time.monotonic() - started, 3)
            view.say(f"node {master} has caught up {behind:,} instances after {report.aligned_s:.3f} s")
            await self._phase(self.options.seconds)
        finally:
            await load.stop()
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        report.acknowledged = len(load.acknowledged)
        report.unavailable, report.unknown = load.unavailable, load.unknown
        view.say(f"reading {report.acknowledged:,} acknowledged writes back through node {report.killed_node}")
        await self._read_back()
        await self._until("all nodes have applied the same", self._level)
        report.applied = {number: int(status["paxos_applied"]) for number, status in sorted(self.status.items())}
        report.checksums = {number: status["paxos_checksum"] for number, status in sorted(self.status.items())}
        report.ok = not report.missing and not report.wrong and len(set(report.checksums.values())) == 1
        report.seconds = round(time.monotonic() - began, 1)

    async def close(self, keep: bool) -> None:
        """Drop the connections; end the nodes unless they are to be kept."""
        for client in self._watching.values():
            client.close()
        self._watching.clear()
        if not keep:
            await stop_all(self.nodes.values())

    # -- watching

    async def _look(self) -> None:
        """Ask every node for its status; one that does not answer has none."""
        # The steps and the view both look: one at a time, a connection carries one call.
        async with self._looking:
            await self._look_at_all()
        self.view.update(self.status, len(self.load.acknowledged))

    async def _look_at_all(self) -> None:
        async def ask(number: int) -> None:
            try:
                client = self._watching.get(number)
                if client is None:
                    client = self._watching[number] = await RespClient.connect(self.nodes[number].resp_port)
                self.status[number] = await client.info(timeout=2.0)
            except (OSError, TimeoutError):
                self.status.pop(number, None)
                client = self._watching.pop(number, None)
                if client is not None:
                    client.close()

        await asyncio.gather(*(ask(number) for number in self.nodes))

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(_PERIOD)

    async def _phase(self, seconds: float) -> None:
        """Let the load run; end early when a node that should run has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check_alive()
            await asyncio.sleep(_PERIOD)

    def _check_alive(self) -> None:
        # Between the kill and the restart the killed node is meant to be down.
        down = self.report.killed_node if not self._restarted else 0
        for number, node in self.nodes.items():
            if not node.running and number != down:
                raise DemoFailed(f"node {number} has ended: {node.tail()}")

    async def _until(self, what: str, condition: Callable[[], T | None]) -> T:
        """Look at the nodes until ``condition`` gives something true; that."""
        end = time.monotonic() + _STEP
        while True:
            await self._look()
            found = condition()
            if found:
                return found
            self._check_alive()
            if time.monotonic() > end:
                state = {number: status.get("paxos_master_id") for number, status in sorted(self.status.items())}
                raise DemoFailed(f"not within {_STEP:.0f} s: {what} (nodes that answer, and their masters: {state})")
            await asyncio.sleep(0.02)

    def _applied(self, number: int) -> int | None:
        status = self.status.get(number)
        return int(status["paxos_applied"]) if status else None

    def _master(self) -> int | None:
        """The master that all running nodes agree on."""
        running = [number for number, node in self.nodes.items() if node.running]
        named = {int(self.status[number]["paxos_master_id"]) if number in self.status else 0 for number in running}
        return named.pop() or None if len(named) == 1 else None

    def _level(self) -> bool:
        return len(self.status) == NODES and len({status["paxos_applied"] for status in self.status.values()}) == 1

    # -- the proof

    async def _read_back(self) -> None:
        """Read every acknowledged write through the node that was killed."""
        client = await RespClient.connect(self.nodes[self.report.killed_node].resp_port)
        try:
            items = list(self.load.acknowledged.items())
            for at in range(0, len(items), _READ):
                part = items[at : at + _READ]
                found = await self._read(client, [key for key, _ in part])
                for (_, wanted), value in zip(part, found, strict=True):
                    self.report.missing += value is None
                    self.report.wrong += value is not None and value != wanted
        except (OSError, TimeoutError, ReplyError) as error:
            raise DemoFailed(f"the writes could not be read back: {error}") from error
        finally:
            client.close()

    @staticmethod
    async def _read(client: RespClient, keys: list[bytes]) -> list[bytes | None]:
        end = time.monotonic() + _STEP
        while True:
            try:
                found: list[bytes | None] = await client.call("MGET", *keys)
                return found
            except ReplyError as error:
                if error.code not in ("UNAVAILABLE", "UNKNOWN") or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.02)


async def demo(options: DemoOptions) -> bool:
    """Run the demonstration and report; whether it proved what it should. Ends what it started, however it ends."""
    cancel_on_sigterm()
    directory = _directory(options)
    view = View(live=not options.as_json and sys.stdout.isatty(), silent=options.as_json)
    run = Demo(options, directory, view)
    succeeded = False
    problem: str | None = None
    try:
        with view:
            try:
                await run.run()
                succeeded = run.report.ok
                if not succeeded:
                    problem = "the proof failed: a write is missing or the nodes differ"
            except DemoFailed as error:
                problem = str(error)
    finally:
        await run.close(keep=options.keep and succeeded)
        if options.data is None and problem is None and not (options.keep and succeeded):
            shutil.rmtree(directory)
    _print_result(run, directory, problem)
    return succeeded


def _directory(options: DemoOptions) -> Path:
    if options.data is None:
        return Path(tempfile.mkdtemp(prefix="paxos-demo-"))
    options.data.mkdir(parents=True, exist_ok=True)
    if any(options.data.iterdir()):
        raise paxos.ConfigError(f"--data {options.data}: the directory is not empty; give an empty one")
    return options.data


def _print_result(run: Demo, directory: Path, problem: str | None) -> None:
    report, options = run.report, run.options
    nodes = {number: {"port": node.resp_port, "pid": node.pid} for number, node in run.nodes.items() if node.started}
    if options.as_json:
        result: dict[str, object] = dict(vars(report))
        if problem is not None:
            result["error"] = problem
            result["directory"] = str(directory)
        if options.keep and report.ok:
            result["nodes"] = nodes
            result["directory"] = str(directory)
        print(json.dumps(result))
    elif report.applied:
        verdict = "every one is there" if not report.missing and not report.wrong else (
            f"{report.missing:,} MISSING, {report.wrong:,} WRONG"
        )  # fmt: skip
        same = "equal" if len(set(report.checksums.values())) == 1 else "DIFFERENT"
        print(f"acknowledged writes: {report.acknowledged:,}: {verdict}")
        print(f"chain checksums over {max(report.applied.values()):,} instances on three nodes: {same}", end=" ")
        print(f"({', '.join(report.checksums.values())})")
        print(f"writes stood still for {report.writes_resumed_s:.3f} s after the master was killed")
        print(f"{'proved' if report.ok else 'FAILED'} in {report.seconds} s")
    if problem is not None:
        print(f"paxos demo: {problem}; the nodes' logs are in {directory}", file=sys.stderr)
    if options.keep and report.ok and not options.as_json:
        for number, node in nodes.items():
            print(f"node {number}: redis-cli -p {node['port']} info paxos")
        print(f"stop them: kill {' '.join(str(node['pid']) for node in nodes.values())}; then remove {directory}")
