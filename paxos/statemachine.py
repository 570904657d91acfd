"""What a user brings: the state machine that every node feeds with the same values in the same order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

__all__ = ["StateMachine", "StateMachineFactory"]


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


StateMachineFactory = Callable[[], StateMachine] | Mapping[int, Callable[[], StateMachine]]
"""A class or function that makes a state machine, or several of them under ids of your choice (0 to 2**32 - 1)."""
