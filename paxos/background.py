"""Work of a node that may take long (files, child processes), and time: the simulator has its own of both."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

__all__ = ["Background", "Serial", "Threads"]

T = TypeVar("T")


class Background(Protocol):
    """Runs work beside the group, and brings the outcome back to the thread that applies."""

    def run(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], object]) -> None:
        """``done(result, None)`` or ``done(None, error)`` is called on the applying thread, in ``deliver``."""

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """``call`` on the applying thread, not before so many seconds have passed."""

    def deliver(self) -> None:
        """Calls what is due. On the applying thread."""

    def close(self) -> None:
        """Nothing is called any more. Waits for work that has begun."""


class Threads:
    """Two threads of a node's own, and timers. ``poke`` has ``deliver`` called soon on the applying thread."""

    def __init__(self, poke: Callable[[], None]) -> None:
        self._poke = poke
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="paxos-files")
        self._due: deque[Callable[[], object]] = deque()
        self._timers: set[threading.Timer] = set()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], object]) -> None:
        def worker() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as caught:
                error = caught
            self._bring(lambda: done(result, error))

        with self._lock:
            if not self._closed:
                self._pool.submit(worker)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        def fire() -> None:
            with self._lock:
                self._timers.discard(timer)
            self._bring(call)

        timer = threading.Timer(seconds, fire)
        timer.daemon = True
        with self._lock:
            if self._closed:
                return
            self._timers.add(timer)
            timer.start()

    def _bring(self, call: Callable[[], object]) -> None:
        with self._lock:
            if self._closed:
                return
            self._due.append(call)
        self._poke()

    def deliver(self) -> None:
        while self._due:
            self._due.popleft()()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            timers, self._timers = self._timers, set()
        for timer in timers:
            timer.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._due.clear()


class Serial:
    """Work that must not overlap (all of it on one transfer's files, say), one piece after the other."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False

    def run(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], object]) -> None:
        """As ``Background.run``, when what was handed in before has ended."""

        def ended(result: T | None, error: BaseException | None) -> None:
            self._busy = False
            self._next()
            done(result, error)

        self._waiting.append(lambda: self._background.run(work, ended))
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            self._waiting.popleft()()
