"""Everything this library raises on purpose, under one root: :class:`PaxosError`.

The question a caller has after an error is: *was it executed?* The types answer it. :class:`Refused` and what is below
it say *certainly not*; :class:`OutcomeUnknown` says *nobody here can tell*; the two are never mixed.
"""

from __future__ import annotations

__all__ = [
    "CheckpointFailed",
    "ConfigError",
    "DamagedCheckpoint",
    "DamagedLog",
    "DirectoryInUse",
    "DiskFull",
    "Diverged",
    "Fenced",
    "MembershipRefused",
    "NodeClosed",
    "NotAvailable",
    "OutcomeUnknown",
    "Overloaded",
    "PartialOutcome",
    "PaxosError",
    "RecoveryRefused",
    "Refused",
    "ResultNotKept",
    "SessionExpired",
    "StateMachineFailed",
    "StorageError",
    "ValueTooLarge",
    "WrongDirectory",
]


class PaxosError(Exception):
    """Root of all errors of this library."""


class Refused(PaxosError):
    """The proposal was certainly not executed, and never will be. It may be proposed again."""


class NotAvailable(Refused):
    """No majority could be reached in time, or no master was known; the proposal never left this node."""


class Overloaded(Refused):
    """A queue is at its bound, or would make one wait too long. Propose again later, or less.

    ``expected_wait``: how long a proposal would have waited, in seconds, where that is the reason (option ``max_wait``);
    else None.
    """

    def __init__(self, message: str = "", expected_wait: float | None = None) -> None:
        super().__init__(message)
        self.expected_wait = expected_wait

    def __reduce__(self) -> tuple[type[Overloaded], tuple[str, float | None]]:
        return type(self), (str(self), self.expected_wait)


class DiskFull(Refused):
    """The disk of this node has no room for more log. Make room, or propose at another node; the node goes on by itself."""


class ValueTooLarge(Refused):
    """The value is above the limit (``max_value``, bytes)."""


class NodeClosed(Refused):
    """The node has been closed."""


class MembershipRefused(Refused):
    """A change of the members was refused: it is not possible, or would do harm. The message says what, why, and the way out."""


class Fenced(Refused):
    """``outcome()`` has settled the token before its proposal was executed: it never will be. Another token is needed."""


class OutcomeUnknown(PaxosError):
    """The proposal may have been chosen, or may yet be, or never. Read the state before you try again."""


class StateMachineFailed(OutcomeUnknown):
    """``apply`` of the state machine raised, so this node has stopped applying.

    The value is chosen or may be; its result will not be known here. The node goes on voting and logging, and the cause
    is in ``__cause__`` and in the log.
    """


class SessionExpired(OutcomeUnknown):
    """The token's session is not there, or not any more, or its client has acknowledged the token.

    The proposal was certainly not executed now, and no copy of it that is still under way will be. If it was proposed before
    under this token, nobody can tell what came of that. To propose again with the token is in vain.
    """


class ResultNotKept(PaxosError):
    """The proposal was executed, once; its result is not there. It was longer than what is kept, or no ``bytes``, or was
    computed before the restart of a state machine that keeps its state itself."""


class PartialOutcome(PaxosError):
    """``propose_many`` could not settle all of its values.

    ``outcomes`` has one item for each value, in order: what ``apply`` returned, or the error that value ended with
    (a :class:`Refused` or an :class:`OutcomeUnknown`).
    """

    def __init__(self, message: str, outcomes: list[object]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class ConfigError(PaxosError, ValueError):
    """An option or a combination of options cannot work. The message names it and the way out."""


class Diverged(PaxosError):
    """What this node has applied is not what the others have. It has stopped applying; the message names the instance."""


class StorageError(PaxosError):
    """The data directory cannot be used. The message names the file and the way out."""


class DamagedLog(StorageError):
    """Data that was acknowledged as durable does not verify. Nothing has been changed on disk."""


class DamagedCheckpoint(StorageError):
    """A checkpoint, or what was sent of one, does not verify. The message names the file and the offset."""


class DirectoryInUse(StorageError):
    """Another living process holds the data directory."""


class WrongDirectory(StorageError):
    """The data directory belongs to another node."""


class RecoveryRefused(StorageError):
    """From these directories no new cluster can, or may, be made. Nothing was changed; the message says why, and what to do."""


class CheckpointFailed(PaxosError):
    """A checkpoint was not made. The node goes on without it, and keeps its log; the message says why."""
