"""Reads without a log write, answered by the state machine of this very node.

A linearizable read may be answered here once everything is applied that was chosen when it came. How far that is the master says,
which asks a quorum whether it is the master still (``_reader``). One question is under way at a time, for all reads that had come
when it was sent; those that come meanwhile wait for the next, so load makes questions larger and not more.

The state here is as new as the newest question whose answer has been applied. That is what ``max_staleness`` of a stale read is
measured by, on this node's clock alone: no clock of another node is trusted, and no message may have been on its way for long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from paxos._handle import Handle
from paxos.completion import Completion, complete, complete_with
from paxos.errors import ConfigError, NodeClosed, NotAvailable, Overloaded, PaxosError
from paxos.statemachine import StateMachine

__all__ = ["CONSISTENCIES", "Consistency", "Reads"]

#: What a read promises; see :meth:`paxos.Node.read`.
Consistency: TypeAlias = Literal["linearizable", "lease", "stale"]

CONSISTENCIES = ("linearizable", "lease", "stale")
MAX_WAITING = 65536  # calls; more are refused
ANSWERED_AT_ONCE = 2048  # calls, before the event loop gets its turn
TIMER_SLACK = 50_000_000  # ns that a read may wait longer than it said, so that not each has a timer of its own


class _Read:
    """One call of read() or read_many()."""

    __slots__ = ("completion", "deadline", "machine", "queries", "single")

    def __init__(
        self, completion: Completion, queries: Sequence[Any], single: bool, machine: int, deadline: int
    ) -> None:
        self.completion = completion
        self.queries = queries
        self.single = single
        self.machine = machine
        self.deadline = deadline


class Reads:
    """Reads of one group. ``submit`` may be called on any thread, all else on the one that applies.

    ``known()``: how many instances are applied here. ``refusal(machine)``: why nothing can be read here, or None.
    """

    def __init__(
        self,
        engine: Handle,
        machines: Mapping[int, StateMachine],
        known: Callable[[], int],
        refusal: Callable[[int], PaxosError | None],
    ) -> None:
        self._engine = engine
        self._machines = machines
        self._known = known
        self._refusal = refusal
        self._lock = threading.Lock()  # over the three lists of reads, and the token
        self._new: list[_Read] = []  # not asked for yet
        self._asked: list[_Read] = []  # under `_token`, at `_asked_at`
        self._ready: deque[tuple[int, int, deque[_Read]]] = deque()  # (when asked, index, the reads)
        self._now: deque[_Read] = deque()  # to be answered from whatever is there
        self._waiting = 0
        self._token = 0
        self._asked_at = 0
        self._fresh_at: int | None = None  # the state is as new as this moment, at least
        self._timer_at: int | None = None
        #: ``later(seconds, call)``: a call on the applying thread
        self.later: Callable[[float, Callable[[], object]], None] | None = None
        self.answered = 0

    def submit(
        self,
        completion: Completion,
        queries: Sequence[Any],
        *,
        single: bool,
        machine: int,
        consistency: str,
        max_staleness: float | None,
        timeout: float,
        at_once: bool = False,
    ) -> None:
        """Takes a read. Raises what :meth:`paxos.Node.read` raises. ``at_once``: this is the applying thread, between two
        instances."""
        if consistency not in CONSISTENCIES:
            raise ConfigError(f"consistency={consistency!r}: there are {', '.join(map(repr, CONSISTENCIES))}")
        if max_staleness is not None and (consistency != "stale" or not max_staleness >= 0):
            raise ConfigError(f"max_staleness={max_staleness!r} is a time in seconds, for consistency='stale' only")
        now = self._engine.now()
        read = _Read(completion, queries, single, machine, now + int(min(timeout * 1e9, 10**17)))
        stale = consistency == "stale" and (
            max_staleness is None or (self._fresh_at is not None and now - self._fresh_at <= max_staleness * 1e9)
        )
        with self._lock:  # what is taken before `end` is settled there, what comes later is refused
            error = self._refusal(machine)
            if error is not None:
                raise error
            # (In this order: a lease that ends behind this line covers what was chosen before it.)
            leased = self._engine.lease() if consistency == "lease" else -1
            at_once = at_once and not self._now and (stale or 0 <= leased <= self._known())
            if not at_once:
                if self._waiting >= MAX_WAITING:
                    raise Overloaded(f"{self._waiting} reads are waiting already: try again later")
                self._waiting += 1
                if stale:
                    self._now.append(read)
                elif leased >= 0:
                    self._ready.append((now, leased, deque((read,))))
                else:
                    self._new.append(read)
                    if not self._asked:
                        self._ask()
                if not stale and (self._timer_at is None or read.deadline + TIMER_SLACK < self._timer_at):
                    self._expire_at(read.deadline)
        if at_once:
            self._answer(read)
        elif stale or leased >= 0:
            self._engine.poke()

    def _ask(self) -> None:
        """(With the lock.)"""
        self._asked, self._new = self._new, []
        self._asked_at = self._engine.now()
        self._token += 1
        self._engine.ask_read(self._token)

    def again(self) -> None:
        """The cluster is formed: what was asked before has met nobody."""
        with self._lock:
            if self._asked:
                self._engine.ask_read(self._token)

    def readable(self, index: int, token: int) -> None:
        """The reads under this token may be answered when all instances below ``index`` are applied."""
        with self._lock:
            if token != self._token or not self._asked:
                return
            self._ready.append((self._asked_at, index, deque(self._asked)))
            self._asked = []
            if self._new:
                self._ask()

    def answer(self) -> None:
        """Answers what can be answered from the state as it is now, or a part of it. Not within ``apply``."""
        last = self.answered + ANSWERED_AT_ONCE
        while self._now and self.answered < last:
            self._take(self._now)
        while self._ready and self._ready[0][1] <= self._known():
            asked_at, _, reads = self._ready[0]
            while reads and self.answered < last:
                self._take(reads)
            if reads:
                break
            self._ready.popleft()
            self._fresh_at = asked_at
        if self.answered >= last:
            self._engine.poke()

    def _take(self, reads: deque[_Read]) -> None:
        # One by one: an exception that leaves here (Ctrl-C, say) must not take those behind it along.
        with self._lock:
            if not reads:
                return
            read = reads.popleft()
            self._waiting -= 1
        self._answer(read)

    def _answer(self, read: _Read) -> None:
        if read.completion.done():
            return
        stopped = self._refusal(read.machine)
        if stopped is not None:
            complete_with(read.completion, stopped)
            return
        result: object
        try:
            answers = self._machines[read.machine].read_batch(read.queries)
            if len(answers) != len(read.queries):
                raise TypeError(
                    f"{type(self._machines[read.machine]).__name__}.read_batch returned {len(answers)} answers to "
                    f"{len(read.queries)} queries"
                )
            result = answers[0] if read.single else list(answers)
        except BaseException as error:
            # The caller's own query is at fault, or read() is: nothing was changed, so the node goes on.
            complete_with(read.completion, error)
            if not isinstance(error, Exception):
                self._engine.poke()  # for those behind it
                raise
            return
        self.answered += len(answers)
        complete(read.completion, result)

    # -- time

    def _expire_at(self, deadline: int) -> None:
        """(With the lock.)"""
        self._timer_at = deadline
        if self.later is not None:
            self.later(max(deadline - self._engine.now(), 0) / 1e9, lambda: self._expire(deadline))

    def _expire(self, timer: int) -> None:
        """Ends those whose time is up, and sets the clock for the next."""
        if timer != self._timer_at:
            return  # an earlier one was set since; it looks after all
        now = self._engine.now()
        late: list[_Read] = []

        def living(reads: list[_Read]) -> list[_Read]:
            late.extend(read for read in reads if read.deadline <= now)
            return [read for read in reads if read.deadline > now]

        with self._lock:
            self._new, asked = living(self._new), living(self._asked)
            if self._asked and not asked:
                self._asked = []
                if self._new:
                    self._ask()
            else:
                self._asked = asked
            ready = [(at, index, deque(living(list(reads)))) for at, index, reads in self._ready]
            self._ready = deque(entry for entry in ready if entry[2])
            self._waiting -= len(late)
            left = [*self._new, *self._asked, *(read for _, _, reads in self._ready for read in reads)]
            self._timer_at = None
            if left:
                self._expire_at(min(read.deadline for read in left))
        for read in late:
            complete_with(
                read.completion,
                NotAvailable(
                    "no master has confirmed the read in time, or this node has not caught up with it; nothing was read. "
                    "Try again, or another node; consistency='stale' needs nobody"
                ),
            )

    def end(self) -> None:
        """Nothing is read here any more: those that wait are told why."""
        with self._lock:
            waiting = [*self._now, *self._new, *self._asked, *(read for _, _, reads in self._ready for read in reads)]
            self._now.clear()
            self._new, self._asked = [], []
            self._ready.clear()
            self._waiting = 0
        for read in waiting:
            error = self._refusal(read.machine)
            if error is not None:
                complete_with(read.completion, error)

    def close(self) -> None:
        """The node is closed: those that wait are told so, and the group is let go of."""
        self.end()
        self.let_go()

    def let_go(self) -> None:
        """Lets go of the group, which would else be held in a circle. Who waits hears nothing: in a simulation, of a process that
        has ended."""
        self._known = lambda: 0
        self._refusal = lambda machine: NodeClosed("the node has been closed")
        self.later = None
        self._new, self._asked = [], []
        self._now.clear()
        self._ready.clear()
