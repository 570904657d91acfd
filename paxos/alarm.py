"""What an operator must hear of, all at one place: each alarm is a line in the log, a count, and a call of the owner's own."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Alarm", "Alarms", "Kind"]

logger = logging.getLogger("paxos")

#: What is to be done at each is in docs/operations.md.
Kind = Literal[
    "apply-failed",
    "bug",
    "checkpoint-damaged",
    "checkpoint-foreign",
    "disk-full",
    "diverged",
    "heal-failed",
    "log-damaged",
    "log-lost",
    "log-set-aside",
    "removed",
    "replaced",
    "values-differ",
]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that an operator must hear of."""

    kind: Kind
    """A short name that programs may go by, as ``log-damaged``; docs/operations.md has all, and what to do at each."""
    text: str
    """What the log says: what, where, and the way out."""
    node_id: int
    """The node that it is about, which is the one that raises it."""
    instance: int | None = None
    """The instance that it is about (a checkpoint's: it holds those below), if it is about one."""
    path: str | None = None
    """The directory that it is about, if it is about one."""
    error: BaseException | None = None
    """What was raised, where that is the cause."""


class Alarms:
    """Raises the alarms of one node. On the thread that opens the node, then on the one that applies.

    :param callback: is called with each; what it raises is logged, and has no other effect.
    :param call: calls the callback, as ``call(function, alarm)``, for those who want it on another thread. Default: at once.
    """

    def __init__(
        self,
        node_id: int,
        callback: Callable[[Alarm], object] | None = None,
        call: Callable[[Callable[[Alarm], None], Alarm], object] | None = None,
    ) -> None:
        self._node_id = node_id
        self._callback = callback
        self._call = call or (lambda function, alarm: function(alarm))
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind since the start; kinds without any are left out. A copy; on any thread."""
        return dict(self._counts)

    def sound(
        self,
        kind: Kind,
        text: str,
        *arguments: object,
        level: int = logging.CRITICAL,
        instance: int | None = None,
        path: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Raises one. ``text`` and ``arguments`` as in logging."""
        logger.log(level, text, *arguments, exc_info=error, stacklevel=2)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if self._callback is not None:
            said = text % arguments if arguments else text
            self._call(self._tell, Alarm(kind, said, self._node_id, instance, path, error))

    def _tell(self, alarm: Alarm) -> None:
        assert self._callback is not None
        try:
            self._callback(alarm)
        except (Exception, SystemExit, CancelledError):
            # On the thread that applies, the last two would end that thread, and nothing else.
            logger.exception("on_alarm has failed, at an alarm of the kind %s", alarm.kind)
