"""What a user brings: the state machine that every node feeds with the same values in the same order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from paxos.errors import ConfigError

__all__ = ["SnapshotReader", "SnapshotWriter", "StateMachine", "StateMachineFactory", "has_files", "has_snapshot"]


class SnapshotWriter(Protocol):
    """Where a state machine writes its state to."""

    def write(self, data: bytes, /) -> object:
        """Takes all of ``data``."""


class SnapshotReader(Protocol):
    """What a state machine reads its state from."""

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer, or none, only where the state ends."""


class StateMachine:
    """Base class of replicated state machines. All methods are called on one thread, one after the other.

    For :class:`paxos.Node` that is the thread of its event loop, for :class:`paxos.SyncNode` a thread of the node's own. So
    ``apply`` should be quick, and a state that others read while it runs needs a lock of its own only with ``SyncNode``.

    What ``apply`` does must depend on nothing but the state and the values: no clock, no randomness, no ``hash()`` of strings,
    no order of sets. Errors of the domain are *results* (return them). An exception that leaves ``apply`` stops this node's
    applying for good: the value would fail in the same way on every node, and nobody can tell what half of it did.
    """

    def apply(self, instance: int, value: bytes) -> object:
        """Applies one value of an instance and returns its result, which goes to whoever proposed the value, on his node."""
        raise NotImplementedError(f"{type(self).__name__} must define apply() or apply_batch()")

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        """Applies all values of an instance, in order, and returns one result for each.

        Called exactly once for every instance, in order, with an empty sequence where the instance has no value for this
        machine. Override it for speed, or to commit a whole instance at once in a durable state machine: the unit that is
        applied or not is the instance, so its number is to be committed together with its values.
        """
        apply = self.apply
        return [apply(instance, value) for value in values]

    def last_applied(self) -> int:
        """The last instance whose effects this state machine still has; -1 for none.

        Asked once, when the node opens: only later instances are replayed into it. A state machine in memory keeps the default
        and is replayed from the start. One that lost data and went back says so here, and gets what it lost again.
        """
        return -1

    def read(self, query: Any) -> object:
        """Answers a query of :meth:`paxos.Node.read` from the state as it is, and changes nothing.

        It is called on this node only, between two instances, and may return anything, but nothing that a later ``apply`` changes
        under the caller's hands. What it raises goes to the caller.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read(): define it, or propose what is to be read")

    def read_batch(self, queries: Sequence[Any]) -> Sequence[object]:
        """Answers queries in order, one answer for each. Override it for speed."""
        read = self.read
        return [read(query) for query in queries]

    # What follows is optional: two ways to put the state into a checkpoint. With neither of them the log is kept, and
    # replayed, from the beginning.

    def snapshot(self, writer: SnapshotWriter) -> None:
        """Writes the whole state. Comes with :meth:`restore`.

        Equal states are to give equal bytes on every node: sort what comes out of dicts and sets. Give the format a version, so
        that a later release can read it; do not pickle. Write piece by piece rather than all in one ``bytes``.

        Where the factory can be imported by another process, a copy of the state machine in a child process is asked, which
        has been fed from the same log; else this one, and nothing is applied until it returns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no snapshot()")

    def restore(self, reader: SnapshotReader) -> None:
        """Replaces the whole state by one that :meth:`snapshot` wrote, perhaps on another node or under an older release.

        Afterwards everything is as behind the last instance of the checkpoint, and so is :meth:`last_applied` of a durable state
        machine. What cannot be read is an exception, and leaves the state as it was, or this object is not used any more.
        """
        raise NotImplementedError(f"{type(self).__name__} has no restore()")

    def snapshot_files(self, directory: Path) -> None:
        """Fills an empty directory with the files of the state. Comes with :meth:`restore_files`; where there is
        :meth:`snapshot` as well, this one is asked.

        For a state that lies in files. Nothing is applied until it returns, so it should not copy: hard links to files that never
        change again, or what a database has for the purpose. The directory is on the file system of the data directory, and is
        removed when its files have been copied. Only plain files and directories may be in it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no snapshot_files()")

    def restore_files(self, directory: Path) -> None:
        """Replaces the whole state by the files that :meth:`snapshot_files` left, in a directory that may be taken apart."""
        raise NotImplementedError(f"{type(self).__name__} has no restore_files()")


def _has(machine: StateMachine, write: str, read: str) -> bool:
    own = [getattr(type(machine), name) is not getattr(StateMachine, name) for name in (write, read)]
    if own[0] != own[1]:
        there, missing = (write, read) if own[0] else (read, write)
        raise ConfigError(
            f"{type(machine).__name__} has {there}() but no {missing}(): what the one writes the other must read; define both"
        )
    return own[0]


def has_snapshot(machine: StateMachine) -> bool:
    """Whether it has ``snapshot`` and ``restore``. ConfigError where it has only one of them."""
    return _has(machine, "snapshot", "restore")


def has_files(machine: StateMachine) -> bool:
    """Whether it has ``snapshot_files`` and ``restore_files``. ConfigError where it has only one of them."""
    return _has(machine, "snapshot_files", "restore_files")


StateMachineFactory = Callable[[], StateMachine] | Mapping[int, Callable[[], StateMachine]]
"""A class or function that makes a state machine, or several of them under ids of your choice (0 to 2**32 - 1)."""
