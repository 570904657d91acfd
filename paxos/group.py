"""Applying chosen values, and settling proposals: what stands between the engine and the state machines.

One call of the engine hands over everything that has become known; per value there is nothing here but the user's own ``apply``
and his own completion.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from paxos._engine import (
    EVENT_AHEAD,
    EVENT_BEHIND,
    EVENT_CARRY,
    EVENT_CHAIN,
    EVENT_CHOSEN,
    EVENT_DIVERGED,
    EVENT_FORMED,
    EVENT_LOG,
    EVENT_MASTER,
    EVENT_MASTERSHIP,
    EVENT_MEMBERSHIP,
    EVENT_READABLE,
    EVENT_SETTLED,
)
from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.changes import MESSAGES as CHANGES
from paxos.changes import Changes
from paxos.completion import Completion, complete, complete_with
from paxos.errors import (
    ConfigError,
    Diverged,
    NodeClosed,
    NotAvailable,
    OutcomeUnknown,
    Overloaded,
    PartialOutcome,
    PaxosError,
    Refused,
    StateMachineFailed,
    ValueTooLarge,
)
from paxos.mastership import LEASE_MAX, Master, Mastership
from paxos.reads import Reads
from paxos.reconcile import MESSAGES, Reconcile
from paxos.sessions import SESSIONS, SessionTable
from paxos.snapshot import make_machines
from paxos.statemachine import StateMachine, StateMachineFactory
from paxos.status import NodeStatus

if TYPE_CHECKING:
    from paxos._handle import _Event
    from paxos.background import Background
    from paxos.keeper import Keeper
    from paxos.manifest import Manifest
    from paxos.scrub import Scrub

__all__ = ["Group"]

logger = logging.getLogger("paxos")

FOREVER = 10**17  # ns; longer than any deadline, and still far from what 64 bits hold
DRAIN_VALUES = 2048  # applied in one go before the event loop gets its turn
SETTLE_NOT_AVAILABLE, SETTLE_OVERLOADED, SETTLE_UNKNOWN = 1, 2, 3


def _nanoseconds(seconds: float) -> int:
    return int(min(seconds * 1e9, FOREVER))


class _Part:
    """Completion of one chunk of a ``propose_many``."""

    __slots__ = ("count", "many", "start")

    def __init__(self, many: _Many, start: int, count: int) -> None:
        self.many = many
        self.start = start
        self.count = count


class _Many:
    """A ``propose_many``: results of its chunks, and the one completion behind them."""

    __slots__ = ("completion", "failed", "left", "lock", "outcomes")

    def __init__(self, completion: Completion, count: int) -> None:
        self.completion = completion
        self.lock = threading.Lock()  # a refusal is noted by the thread that proposes, all else by the one that applies
        self.outcomes: list[object] = [None] * count
        self.left = count
        self.failed = 0

    def put(self, start: int, results: Sequence[object]) -> None:
        self._note(start, results, 0)

    def fail(self, start: int, count: int, error: PaxosError) -> None:
        self._note(start, [error] * count, count)

    def _note(self, start: int, outcomes: Sequence[object], failed: int) -> None:
        with self.lock:
            self.outcomes[start : start + len(outcomes)] = outcomes
            self.failed += failed
            self.left -= len(outcomes)
            if self.left:
                return
        if self.failed:
            message = (
                f"{self.failed} of {len(self.outcomes)} values are not known to be applied; see .outcomes for each"
            )
            complete_with(self.completion, PartialOutcome(message, self.outcomes))
        else:
            complete(self.completion, self.outcomes)


class Group:
    """The Python side of one group. ``submit`` may be called on any thread, ``drain`` on one thread only."""

    def __init__(
        self,
        engine: Handle,
        factory: StateMachineFactory,
        alarms: Alarms,
        *,
        max_value: int,
        batch_bytes: int,
        batch_values: int,
        sessions: bool = True,
        addresses: Mapping[int, str] | None = None,
        close_removed: bool = False,
    ) -> None:
        self._machines = make_machines(factory)
        self._last = {id_: machine.last_applied() for id_, machine in self._machines.items()}
        self._claimed = max(self._last.values())  # what the state machines say that they had before this process began
        self._sessions = SessionTable() if sessions else None
        if sessions:
            self._last[SESSIONS] = -1
        self._engine = engine
        self._alarms = alarms
        self.max_value = max_value
        self._batch_bytes = batch_bytes
        self._batch_values = batch_values
        self._lock = threading.Lock()  # between submit + register and look-up of what has been chosen
        self._waiting: dict[int, Completion | _Part] = {}
        self.applying = False
        self.reads = Reads(engine, self._machines, lambda: self.applied + 1, self._cannot_read)
        self._events: deque[_Event] = deque()  # taken from the engine, not handled yet
        self.applied = min(self._last.values())
        self.checksum = 0
        self._chained = False  # whether that is the chain checksum behind `applied`, and not just unknown
        self.error: BaseException | None = None
        self.closed = False
        self.hollow = False  # the log no longer has what the state machines need next
        self.strict = False  # whether a failure with checkpoints may end the applying thread: in simulations
        self.master_id = 0
        self.settled = False
        self.mastership = Mastership()
        self.node_id = engine.status()["node_id"]
        self.changes = Changes(engine, alarms, self.mastership, addresses or {}, close=close_removed)
        self.on_ready: Callable[[], None] | None = None
        self._keeper: Keeper | None = None
        self._background: Background | None = None
        self._scrub: Scrub | None = None
        self._reconcile: Reconcile | None = None
        self._wanted: deque[Completion] = deque()  # checkpoints asked for

    # -- checkpoints

    @property
    def machines(self) -> dict[int, StateMachine]:
        """The state machines by id, and the table of sessions."""
        return self._machines if self._sessions is None else {**self._machines, SESSIONS: self._sessions}

    @property
    def keeper(self) -> Keeper:
        """Who keeps this group's checkpoints; there from ``start`` on."""
        assert self._keeper is not None, "the group has not been started"
        return self._keeper

    def start(
        self, keeper: Keeper, scrub: Scrub, reconcile: Reconcile, background: Background, start: Callable[[int], int]
    ) -> None:
        """Restores from a checkpoint what the log cannot give back, and starts the engine: ``start(applied)`` answers the chain
        checksum there, if that is known."""
        self._keeper, self._scrub, self._background = keeper, scrub, background
        self._reconcile = reconcile
        reconcile.stop = self.diverged
        self.reads.later = self.changes.later = background.later
        self.changes.begin()
        keeper.applied = lambda: (self.applied, self.checksum if self._chained else None)
        keeper.last = lambda: {id_: max(instance, self.applied) for id_, instance in self._last.items()}
        keeper.stopped = lambda: self.error is not None
        keeper.restored = self._restored
        keeper.failed = lambda error: self._fail(self.applied + 1, error)
        status = self._engine.status()
        if status["quarantined"] is not None:
            self._alarms.sound(
                "log-set-aside",
                "%s. The log was set aside in %s; nothing was deleted. This node gets well from the others, and votes again when "
                "it is chosen in place of what it was, and knows everything",
                status["damage"], status["quarantined"], path=status["quarantined"],
            )  # fmt: skip
        formed, _, first_kept, chosen = self._engine.found()
        manifest = keeper.open(self._last)
        if manifest is not None:
            self._restored(manifest)
        if self.applied + 1 < first_kept:
            self._engine.resign(False)  # until a checkpoint of another node has been installed
            self.hollow = True
        checksum = start(self.applied)
        if checksum:
            self.checksum, self._chained = checksum, True
        if manifest is not None and formed and manifest.instance > chosen:
            # Installed, and the process ended before the log knew.
            self._engine.install(manifest.instance, manifest.chain, manifest.membership)

    def _restored(self, manifest: Manifest) -> None:
        """The state machines have what is in a checkpoint."""
        last = manifest.instance - 1
        self._last = {id_: max(instance, last) for id_, instance in self._last.items()}
        if min(self._last.values()) == last:
            self.applied, self.checksum, self._chained = last, manifest.chain, True
        if self.hollow:
            self.hollow = False
            self._engine.resign(True)

    # -- proposals

    def submit(self, completion: Completion, value: bytes, timeout: float, machine: int) -> None:
        """Hands one value to the engine; ``completion`` is settled with its result or error."""
        if len(value) > self.max_value:
            raise self._too_large(value)
        engine = self._engine
        with self._lock:
            if self._refuses(machine):
                raise self._refusal(machine)
            seq = engine.submit(machine, (value,), engine.now() + _nanoseconds(timeout))
            self._waiting[seq] = completion

    def submit_many(self, completion: Completion, values: Sequence[bytes], timeout: float, machine: int) -> None:
        """Hands values to the engine in chunks that fit an instance; settled when every value is."""
        if self._refuses(machine):
            raise self._refusal(machine)
        if values:
            self._engine.admit()  # where nothing is taken, nothing need be looked at
        # All are looked at before the first is handed in: an error of the caller's must not leave half of them executed.
        values = [value if type(value) is bytes else memoryview(value).tobytes() for value in values]
        for value in values:
            if len(value) > self.max_value:
                raise self._too_large(value)
        many = _Many(completion, len(values))
        if not values:
            completion.set_result([])
            return
        deadline = self._engine.now() + _nanoseconds(timeout)
        start = 0
        for end in self._cuts(values):
            try:
                with self._lock:
                    if self._refuses(machine):
                        raise self._refusal(machine)
                    seq = self._engine.submit(machine, values[start:end], deadline)
                    self._waiting[seq] = _Part(many, start, end - start)
            except Refused as error:
                if start == 0:
                    raise
                many.fail(start, len(values) - start, error)
                return
            start = end

    def submit_record(self, completion: Completion, record: bytes, timeout: float, machine: int | None = None) -> None:
        """Hands in a record of sessions, which may be for a state machine; ``completion`` is settled with an ``Answer``."""
        with self._lock:
            if self._refuses(machine):
                raise self._refusal(machine or 0)
            if self._sessions is None:
                raise ConfigError("this node was opened with sessions=False: there are no sessions, and no tokens")
            seq = self._engine.submit(SESSIONS, (record,), self._engine.now() + _nanoseconds(timeout))
            self._waiting[seq] = completion

    def mark(self) -> int:
        """A number of the cluster's own, for the sessions that are opened here."""
        return int(self._engine.status()["signature"][:8] or "0", 16)

    def _cuts(self, values: list[bytes]) -> list[int]:
        """Where to cut a list of values so that every piece fits an instance."""
        cuts, size, count = [], 0, 0
        for i, value in enumerate(values):
            if count and (size + len(value) + 4 > self._batch_bytes - 64 or count == self._batch_values):
                cuts.append(i)
                size = count = 0
            size += len(value) + 4
            count += 1
        cuts.append(len(values))
        return cuts

    def _cannot_read(self, machine: int) -> PaxosError | None:
        """Why nothing can be read here; None: it can."""
        if self._refuses(machine):
            return self._refusal(machine, "read")
        return None

    def _too_large(self, value: bytes) -> ValueTooLarge:
        return ValueTooLarge(f"value of {len(value)} bytes is above the limit of {self.max_value} (option max_value)")

    def _refuses(self, machine: int | None) -> bool:
        return (
            self.closed or self.error is not None or self.changes.outside is not None
            or (machine is not None and machine not in self._machines)
        )  # fmt: skip

    def _refusal(self, machine: int, do: str = "propose") -> PaxosError:
        if self.closed:
            return NodeClosed("the node has been closed")
        if (outside := self.changes.refusal(do)) is not None:
            return outside
        if self.error is not None:
            why = "differs from others" if isinstance(self.error, Diverged) else "has failed"
            error = NotAvailable(f"the state machine of this node {why} ({self.error!r}); {do} at another node")
            error.__cause__ = self.error
            return error
        return ConfigError(f"there is no state machine {machine} in this group; there are {sorted(self._machines)}")

    # -- what the engine tells

    def drain(self) -> None:
        """Takes what the engine has, applies, settles. The engine's descriptor stays readable where more is left."""
        events = self._events
        events += self._engine.drain(DRAIN_VALUES)
        while events:
            # One by one: an exception that leaves here (Ctrl-C, say) must not take those behind it along.
            event = events.popleft()
            if event[0] == EVENT_CHOSEN:
                if self.error is None:
                    self._apply(event[2], event[3], event[4], event[5])
            elif event[0] == EVENT_SETTLED:
                self._settle(event[1], event[2])
            elif event[0] == EVENT_MASTER:
                self._on_master(event[2], event[4])
            elif event[0] == EVENT_LOG:
                if event[3] is not None:
                    self._alarms.sound(event[3], "%s", event[2], level=event[1])
                else:
                    logger.log(event[1], "%s", event[2])
            elif event[0] == EVENT_FORMED:
                logger.info("the cluster is formed")
                self.changes.changed()
                self.reads.again()
                if self._keeper is not None:
                    self._guarded(self._keeper.formed)
            elif event[0] == EVENT_AHEAD:
                self._ahead(event[2])
            elif event[0] == EVENT_BEHIND:
                if self._keeper is not None and self.error is None:
                    self._guarded(self._keeper.behind, event[2])
            elif event[0] == EVENT_CARRY:
                self._guarded(self._receive, event[2], event[3])
            elif event[0] == EVENT_MEMBERSHIP:
                self.changes.changed()
            elif event[0] == EVENT_DIVERGED:
                self._alarms.sound(
                    "values-differ", "values differ between nodes: chain checksum at instance %d is not that of node %d",
                    event[2], event[3], instance=event[2],
                )  # fmt: skip
                if self._reconcile is not None:
                    self._reconcile.compare()
            elif event[0] == EVENT_MASTERSHIP:
                self.mastership.chosen(Master(event[2], event[3]), event[4])
            elif event[0] == EVENT_READABLE:
                if event[2] <= self._claimed:
                    self._ahead(event[2])  # a quorum has confirmed it since this process began
                self.reads.readable(event[2], event[3])
            elif event[0] == EVENT_CHAIN and self._reconcile is not None:
                self._reconcile.known(event[2], event[3])
        self._guarded(self._members_turn)
        self.reads.answer()
        if self._background is not None:
            self._guarded(self._background.deliver)
            self.reads.answer()  # a checkpoint may have been restored just now
        if self._wanted:
            self._guarded(self._make_wanted)
        if self._keeper is not None:
            self._guarded(self._keeper.look)

    def _guarded(self, call: Callable[..., object], *arguments: object) -> None:
        """What goes wrong with checkpoints must not take the applying thread along. It is said, and tried again later."""
        try:
            call(*arguments)
        except Exception as error:
            if self.strict:
                raise
            self._alarms.sound("bug", "a bug, please report it: %s failed with %r", call.__name__, error, error=error)

    def _receive(self, node: int, data: bytes) -> None:
        """Bytes from another node's Python side."""
        if data and data[0] in MESSAGES:
            if self._reconcile is not None:
                self._reconcile.receive(node, data)
        elif data and data[0] in CHANGES:
            self.changes.receive(node, data)
        elif self._keeper is not None:
            self._keeper.receive(node, data)

    def _members_turn(self) -> None:
        if self.changes.turn():
            self.reads.end()

    def _apply(
        self, instance: int, chain: int, runs: list[tuple[int, list[bytes]]], settled: list[tuple[int, int, int, int]]
    ) -> None:
        if instance <= self.applied:
            # A checkpoint was faster. What it did is done; what it answered nobody here has seen.
            for seq, *_ in settled:
                self._settle(seq, SETTLE_UNKNOWN)
            return
        self.applying = True
        try:
            if instance != self.applied + 1:
                raise RuntimeError(f"instance {instance} was delivered behind instance {self.applied}")
            results = self._apply_runs(instance, runs)
        except BaseException as error:
            # Ctrl-C, too: nobody can tell what half of the instance was applied.
            self._fail(instance, error)
            if not isinstance(error, Exception):
                raise
            return
        finally:
            self.applying = False
        self.applied = instance
        self.checksum = chain
        self._chained = True
        if not settled:
            return
        if instance <= self._claimed:
            # What this process has handed in cannot be among what a state machine had before it began.
            self._ahead(instance)
        with self._lock:
            found = [(self._waiting.pop(seq, None), run, start, count) for seq, run, start, count in settled]
        for entry, run, start, count in found:
            if entry is None:
                continue  # told earlier that its outcome is unknown
            if isinstance(entry, _Part):
                entry.many.put(entry.start, results[run][start : start + count])
            else:
                complete(entry, results[run][start])

    def _apply_runs(self, instance: int, runs: list[tuple[int, list[bytes]]]) -> list[Sequence[object]]:
        """One call of apply_batch per machine; the results per run."""
        machines = self._machines
        if len(machines) == 1 and len(runs) == 1 and runs[0][0] in machines:
            return [self._apply_one(runs[0][0], instance, runs[0][1])]
        values: dict[int, list[bytes]] = {id_: [] for id_ in machines}
        spans = []
        for id_, run in runs:
            if id_ not in values:
                if id_ == SESSIONS:
                    return self._apply_sessions(instance, runs)
                raise ConfigError(
                    f"instance {instance} has values for state machine {id_}, which this node does not have"
                )
            spans.append((id_, len(values[id_]), len(run)))
            values[id_] += run
        results = {id_: self._apply_one(id_, instance, batch) for id_, batch in values.items()}
        return [results[id_][start : start + count] for id_, start, count in spans]

    def _apply_sessions(self, instance: int, runs: list[tuple[int, list[bytes]]]) -> list[Sequence[object]]:
        """The same for an instance that has records of sessions in it."""
        if self._sessions is None:
            raise ConfigError(
                f"instance {instance} has to do with sessions, and this node was opened with sessions=False: all nodes of a "
                "cluster must have them, or none"
            )
        step = self._sessions.unwrap(instance, runs)
        return step.wrap(self._apply_runs(instance, step.runs), self._machines)

    def _apply_one(self, id_: int, instance: int, values: list[bytes]) -> Sequence[object]:
        if instance <= self._last[id_]:
            return [None] * len(values)  # another machine of the group needs the replay, this one has it
        results = self._machines[id_].apply_batch(instance, values)
        if len(results) != len(values):
            name = type(self._machines[id_]).__name__
            raise TypeError(
                f"{name}.apply_batch returned {len(results)} results for {len(values)} values of instance {instance}"
            )
        if self._reconcile is not None and self._reconcile.results is not None:
            self._reconcile.results.note(id_, instance, results)
        # A list: what is taken out of it below must not be able to fail.
        return results if type(results) is list else list(results)

    def _fail(self, instance: int, error: BaseException) -> None:
        """The state machine raised (design rule 17): no more applying, no mastership; voting and logging go on."""
        self._alarms.sound(
            "apply-failed",
            "the state machine raised at instance %d; this node stops applying and gives up mastership, and goes on voting. "
            "Mend the state machine and restart the node: it replays from instance %d.",
            instance,
            self.applied + 1,
            instance=instance,
            error=error,
        )
        self._halt(error, f"the state machine of this node raised at instance {instance}: {error!r}")

    def diverged(self, instance: int, error: Diverged) -> None:
        """This node is not what the others are (design rule 19): it applies no more, and gives nothing away of what it has."""
        self._alarms.sound("diverged", "%s", error, instance=instance)
        if self.error is None:
            self._halt(
                error, f"this node differs from others at instance {instance}, and has stopped applying: {error}"
            )
        self.keeper.withdraw()

    def _halt(self, error: BaseException, text: str) -> None:
        """No more applying, no mastership."""
        with self._lock:  # what is handed in before this is settled below, what comes later is refused
            self.error = error
        self._engine.resign(False)

        def failed() -> PaxosError:
            outcome = StateMachineFailed(text)
            outcome.__cause__ = error
            return outcome

        self._settle_all(failed)
        self.reads.end()
        if self.on_ready is not None:
            self.on_ready()

    def _settle(self, seq: int, code: int) -> None:
        error: PaxosError
        if code == SETTLE_NOT_AVAILABLE:
            error = NotAvailable("no master could be reached in time; the proposal was not executed")
        elif code == SETTLE_OVERLOADED:
            error = Overloaded("the master's queue is full; the proposal was not executed")
        else:
            error = OutcomeUnknown(
                "the proposal was under way when its time was up, or the master changed; it may have been chosen"
            )
        with self._lock:
            entry = self._waiting.pop(seq, None)
        self._settle_entry(entry, error)

    @staticmethod
    def _settle_entry(entry: Completion | _Part | None, error: PaxosError) -> None:
        if entry is None:
            return
        if isinstance(entry, _Part):
            entry.many.fail(entry.start, entry.count, error)
        else:
            complete_with(entry, error)

    def _settle_all(self, make: Callable[[], PaxosError]) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for entry in waiting.values():
            self._settle_entry(entry, make())

    def _on_master(self, master_id: int, settled: bool) -> None:
        if master_id != self.master_id:
            logger.info("master is node %d", master_id) if master_id else logger.info("no master is known")
        self.master_id = master_id
        self.settled = settled
        self.mastership.heard(master_id if settled else 0)
        if settled:
            status = self._engine.status()
            # A master that has taken over since this process began knows all that was chosen before. Of another node's
            # mastership nobody can say here when it began, and whether it still lasts.
            if master_id == status["node_id"] and max(self.applied, self._claimed) >= status["heard_chosen"]:
                self._ahead(status["heard_chosen"])
            if self.on_ready is not None:
                self.on_ready()

    def _ahead(self, chosen: int) -> None:
        """The state machine says that it has had instances which the cluster has not chosen before now (design rule 16)."""
        if self.error is None:
            self._fail(
                self.applied,
                ConfigError(
                    f"the state machine has applied instance {max(self.applied, self._claimed)}, but the cluster has chosen "
                    f"only {chosen}; it belongs to another cluster, or the cluster has lost its log"
                ),
            )

    def hand_over(self, node_id: int, completion: Completion) -> None:
        """Hands the mastership over; ``completion`` is settled with the new master. On any thread."""
        self._as_master("hand over")
        others = [voter for voter in self.changes.present().voters if voter != self.node_id]
        if node_id and node_id not in others:
            raise ConfigError(f"node_id={node_id}: the mastership can be handed over to the nodes {others}")

        def wanted(mastership: Mastership) -> Master | None:
            now = mastership.now
            there = now is not None and now.node_id != self.node_id and node_id in (0, now.node_id)
            return now if there else None

        self.mastership.wait(completion, wanted)
        self._engine.transfer(node_id)

    def set_lease(self, seconds: float, completion: Completion) -> None:
        """Has the length of leases chosen; ``completion`` is settled when it is. On any thread."""
        self._as_master("change the lease")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LEASE_MAX:
            raise ConfigError(f"a lease of {seconds!r} s: give a number of seconds from 0 (none) to {LEASE_MAX}")
        lease = int(seconds * 1e9)
        self.mastership.wait(completion, lambda m: () if m.lease_ns == lease else None)
        self._engine.set_lease(lease)

    def _as_master(self, do: str) -> None:
        if self.closed:
            raise NodeClosed("the node has been closed")
        master = self.mastership.now
        if master is None or master.node_id != self.node_id:
            there = f"node {master.node_id} is: call it there" if master else "none is known; try again later"
            raise NotAvailable(f"this node cannot {do}, for it is not the master; {there}")

    def checkpoint(self, completion: Completion) -> None:
        """Has a checkpoint made, at the next turn of the applying thread. On any thread."""
        self._wanted.append(completion)
        self._engine.poke()

    def _make_wanted(self) -> None:
        while self._wanted:
            completion = self._wanted.popleft()

            def done(
                manifest: Manifest | None, error: BaseException | None, completion: Completion = completion
            ) -> None:
                if manifest is not None:
                    complete(completion, manifest.instance)
                elif error is not None:
                    complete_with(completion, error)

            self.keeper.make(done)

    def stop(self) -> None:
        """Ends what goes on in the background, and waits for that. Again: nothing."""
        if self._scrub is not None:
            self._scrub.close()
        if self._reconcile is not None:
            self._reconcile.close()
        if self._keeper is not None:
            self._keeper.close()
        if self._background is not None:
            self._background.close()

    def close(self) -> None:
        """Settles what is still waiting as unknown. The engine has been stopped."""
        self.closed = True
        self.stop()
        if self._keeper is not None:
            self._keeper.abandon()
        self.mastership.end()
        self.changes.close()
        while self._wanted:
            complete_with(self._wanted.popleft(), NodeClosed("the node was closed before the checkpoint was made"))
        self._settle_all(lambda: OutcomeUnknown("the node was closed while the proposal was under way"))
        self.reads.close()

    # -- what others see

    def status(self) -> NodeStatus:
        s = self._engine.status()
        return NodeStatus(
            node_id=s["node_id"], role=s["role"], master_id=s["master_id"], mastership=s["mastership"][1],
            lease=s["lease_ns"] / 1e9, formed=s["formed"], chosen=s["chosen"],
            members_version=self.changes.members.version, member_role=self.changes.role,
            applied=self.applied + 1, commits=s["commits"], checksum=self.checksum, fsyncs=s["fsyncs"],
            log_writes=s["log_writes"], log_bytes=s["log_bytes"],
            log_records=s["log_records"], log_seconds=s["log_ns"] / 1e9,
            log_mode=s["log_mode"], first_kept=s["first_kept"], log_segments=s["log_segments"],
            disk_full=s["disk_full"],
            checkpoint=self._keeper.newest if self._keeper is not None else 0,
            installed=self._keeper.installed if self._keeper is not None else 0, votes=s["votes"],
            compared=self._reconcile.compared if self._reconcile is not None else 0,
            scrubbed_bytes=self._scrub.scrubbed_bytes if self._scrub is not None else 0,
            scrub_damage=self._scrub.damage if self._scrub is not None else 0,
            elections=s["elections"], rounds=s["rounds"], proposed_values=s["proposed_values"],
            frames_sent=s["frames_sent"], frames_received=s["frames_received"], bytes_sent=s["bytes_sent"],
            bytes_received=s["bytes_received"], frames_refused=s["frames_refused"], pending=s["pending_chunks"],
            reads=self.reads.answered, read_rounds=s["read_rounds"],
            peers=s["peers"], state_machine_error=repr(self.error) if self.error is not None else None,
            alarms=self._alarms.counts,
        )  # fmt: skip
