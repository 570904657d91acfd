"""Who is the master, as this node knows it: by what was chosen (node and version), and by whom it hears."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paxos.completion import Completion, complete, complete_with
from paxos.errors import NotAvailable, OutcomeUnknown
from paxos.watches import Watches

__all__ = ["LEASE_MAX", "Master", "Mastership", "lease_not_chosen", "not_taken_over"]

LEASE_MAX: Final = 60.0  # seconds; the core refuses more


@dataclass(frozen=True, slots=True)
class Master:
    """A master, and the version of its mastership.

    ``version`` counts how often a master has taken over since the cluster was formed; it is the same number on all nodes, never
    used twice, and so serves as a fencing token: what is done under a version is to be refused by whoever has seen a higher one.
    """

    node_id: int
    version: int


class Mastership:
    """``now`` and those who wait for it to change. Events on the applying thread; ``watch`` and ``wait`` on any."""

    def __init__(self) -> None:
        self.now: Master | None = None
        self.lease_ns = 0
        self._chosen: Master | None = None
        self._heard = 0
        self._lock = threading.Lock()
        self._watches: Watches[Master | None] = Watches("master")
        self._waits: list[tuple[Completion, Callable[[Mastership], Any]]] = []

    def chosen(self, master: Master, lease_ns: int) -> None:
        """By the instances chosen, that is the newest master."""
        self._chosen = master
        self.lease_ns = lease_ns
        self._look()

    def heard(self, node_id: int) -> None:
        """That node says so itself, and has taken over; 0: none is heard of."""
        self._heard = node_id
        self._look()

    def _look(self) -> None:
        # Both must agree: a version goes with its own master only.
        now = self._chosen if self._chosen is not None and self._chosen.node_id == self._heard != 0 else None
        changed = now != self.now
        self.now = now
        with self._lock:
            waits, self._waits = self._waits, []
        left = []
        for completion, wanted in waits:
            found = wanted(self)
            if found is not None:
                complete(completion, found if found != () else None)
            elif not completion.done():
                left.append((completion, wanted))
        with self._lock:
            self._waits += left
        if changed:
            self._watches.tell(now)

    def watch(self, call: Callable[[Master | None], object]) -> Callable[[], None]:
        """``call`` hears of every change, until what is returned is called."""
        return self._watches.add(call)

    def wait(self, completion: Completion, wanted: Callable[[Mastership], Any]) -> None:
        """Settles ``completion`` with what ``wanted`` says of a later state, when it is not None; () stands for None."""
        with self._lock:
            self._waits = [entry for entry in self._waits if not entry[0].done()]
            self._waits.append((completion, wanted))

    def end(self) -> None:
        """The node is closed."""
        with self._lock:
            waits, self._waits = self._waits, []
        for completion, _ in waits:
            complete_with(completion, OutcomeUnknown("the node was closed; what was asked for may yet come about"))


def not_taken_over(node_id: int, timeout: float) -> NotAvailable:
    """Why a hand-over has not come about."""
    who = f"node {node_id} has not" if node_id else "no other node has"
    return NotAvailable(
        f"{who} taken over within {timeout} s. Who takes over must be connected, level with the master, and not kept from "
        "leading (option priority=0, a full disk, a state machine that has failed)"
    )


def lease_not_chosen(timeout: float) -> OutcomeUnknown:
    """Why a new length of leases is not in force, as far as is known."""
    return OutcomeUnknown(
        f"the length of leases was not chosen within {timeout} s; it may yet be. Is a majority there?"
    )
