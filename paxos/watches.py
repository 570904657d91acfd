"""Who wants to hear of changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Watches"]

T = TypeVar("T")

logger = logging.getLogger("paxos")


class Watches(Generic[T]):
    """Calls that hear of every change of one thing. ``add`` may be called on any thread, ``tell`` on one at a time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._calls: list[Callable[[T], object]] = []

    def add(self, call: Callable[[T], object]) -> Callable[[], None]:
        """``call`` hears of every change, until what is returned is called."""
        with self._lock:
            self._calls.append(call)

        def stop() -> None:
            with self._lock:
                if call in self._calls:
                    self._calls.remove(call)

        return stop

    def tell(self, now: T) -> None:
        """Calls them. What one raises is logged, and keeps no other from hearing."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            try:
                call(now)
            except Exception:
                logger.exception("what was to hear of a change of the %s has failed", self._what)

    def clear(self) -> None:
        """Nobody hears anything any more."""
        with self._lock:
            self._calls = []
