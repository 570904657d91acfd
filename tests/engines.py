"""Several engines in one process, driven by one thread: the harness of the engine's tests."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paxos._engine import Engine
from ports import free_ports

if TYPE_CHECKING:
    from paxos._engine import _Event

# Nothing is decided by time: this is when a test that waits for something gives up.
PATIENCE = 30.0
HOUR = 3600 * 10**9


class Engines:
    """Engines by node id, and everything that each of them delivered since it was opened."""

    def __init__(self, directory: Path, count: int = 3, **options: Any) -> None:
        self.directory = directory
        self.options: dict[str, Any] = {"segment_size": 4 << 20, "max_value": 1 << 20} | options
        self.addresses = {i + 1: ("127.0.0.1", port) for i, port in enumerate(free_ports(count))}
        self.running: dict[int, Engine] = {}
        self.events: dict[int, list[_Event]] = {}

    def open(self, node: int, **options: Any) -> Engine:
        engine = Engine(str(self.directory / str(node)), node, self.addresses, **(self.options | options))
        self.running[node] = engine
        self.events[node] = []
        return engine

    def start(self, *nodes: int, applied: int = -1, **options: Any) -> None:
        for node in nodes or tuple(self.addresses):
            self.open(node, **options).start(applied)

    def stop(self, *nodes: int) -> None:
        for node in nodes or tuple(self.running):
            self.running.pop(node).stop()

    def pump(self, timeout: float = 0.02, silent: Iterable[int] = ()) -> None:
        """Waits for one of the engines (``silent`` ones are left alone) and takes what is there."""
        nodes = {e.fileno(): n for n, e in self.running.items() if n not in set(silent)}
        readable, _, _ = select.select(list(nodes), [], [], timeout)
        for fd in readable:
            node = nodes[fd]
            self.events[node] += self.running[node].drain(10000)

    def until(self, what: Callable[[], bool], silent: Iterable[int] = ()) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            if time.monotonic() > end:
                raise AssertionError(f"waited {PATIENCE} s in vain; {[e.status() for e in self.running.values()]}")
            self.pump(silent=silent)

    # -- what to wait for
    def master(self, among: Iterable[int] | None = None) -> int:
        """The established master that all running nodes (or those named) agree on, or 0."""
        seen = {self.running[n].status()["master_id"] for n in (among or self.running)}
        node = seen.pop()
        if seen or node not in self.running or not self.running[node].status()["established"]:
            return 0
        return node

    def wait_master(self, among: Iterable[int] | None = None, silent: Iterable[int] = ()) -> int:
        self.until(lambda: self.master(among) != 0, silent)
        return self.master(among)

    def chosen(self, node: int) -> list[tuple[int, list[tuple[int, list[bytes]]]]]:
        return [(e[2], e[4]) for e in self.events[node] if e[0] == 0]

    def values(self, node: int) -> list[bytes]:
        return [value for _, runs in self.chosen(node) for _, values in runs for value in values]

    def settled(self, node: int) -> dict[int, list[bytes] | int]:
        """By submission: the values it was delivered as, or the code of its refusal."""
        result: dict[int, list[bytes] | int] = {}
        for event in self.events[node]:
            if event[0] == 1:
                assert event[1] not in result
                result[event[1]] = event[2]
            elif event[0] == 0:
                for seq, run, start, count in event[5]:
                    assert seq not in result
                    result[seq] = event[4][run][1][start : start + count]
        return result

    def logs(self, node: int) -> str:
        return "\n".join(e[2] for e in self.events[node] if e[0] == 3)

    def propose(self, node: int, *values: bytes, machine: int = 0, silent: Iterable[int] = ()) -> None:
        """Submits and waits until it is delivered here."""
        engine = self.running[node]
        seq = engine.submit(machine, values, engine.now() + HOUR)
        self.until(lambda: seq in self.settled(node), silent)
        assert self.settled(node)[seq] == list(values)

    def wait_level(self, *nodes: int) -> None:
        """Until these nodes (or all running) have the same chain at the same watermark, and have delivered all of it."""
        which = nodes or tuple(self.running)

        def level() -> bool:
            states = [self.running[n].status() for n in which]
            return len({(s["chosen"], s["chain"], s["delivered"]) for s in states}) == 1 and all(
                s["chosen"] == s["delivered"] and self.last(n) == s["chosen"] - 1
                for n, s in zip(which, states, strict=True)
            )

        self.until(level)

    def last(self, node: int) -> int:
        return next((e[2] for e in reversed(self.events[node]) if e[0] == 0), -1)
