"""A simulated cluster: the nodes over all their lives, and what is true of what they apply.

Everything below :class:`paxos.Node` is what runs in production: the group, the rounds, the core, the log's layout and recovery.
Only time, network, disk and the places where a process may end are simulated (``_world``). One thread; nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from paxos.alarm import Alarm, Alarms
from paxos.checkpoint import CheckpointStore
from paxos.completion import Completion
from paxos.errors import DamagedLog, PaxosError, StorageError
from paxos.group import Group
from paxos.keeper import CheckpointPolicy, Keeper
from paxos.making import InlineMaker
from paxos.manifest import Manifest
from paxos.mastership import Master
from paxos.reads import Consistency
from paxos.reconcile import Reconcile
from paxos.scrub import Scrub
from paxos.statemachine import SnapshotReader, SnapshotWriter, StateMachine, has_snapshot
from paxos.testing._sim import SimHandle, Violation, World

__all__ = ["MS", "SECOND", "Cluster", "Diverged", "Replica", "Violation"]

MS = 1_000_000
SECOND = 1_000_000_000

#: Simulated seconds between two passes of a scrub.
SCRUB_PAUSE: Final = 0.5

#: One state machine, or several by id.
Machines: TypeAlias = StateMachine | Mapping[int, StateMachine]
#: Makes what a node (by id) has as it comes up; ``None`` at first, else what it had when it went down.
Factory: TypeAlias = Callable[[int, Any], Machines]


class Diverged(Violation):
    """Two replicas did something different with the same values (row B15)."""

    def __init__(self, machine: str, instance: int, what: str) -> None:
        super().__init__(f"{machine}: replicas differ at instance {instance}: {what}")
        self.instance = instance


class _Watched(StateMachine):
    """A state machine under observation: what it is given, and what it answers."""

    def __init__(self, cluster: Cluster, node: int, number: int, inner: StateMachine) -> None:
        self.cluster = cluster
        self.node = node
        self.number = number
        self.inner = inner
        self.applied = inner.last_applied()

    def last_applied(self) -> int:
        return self.applied

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        if instance != self.applied + 1:
            raise Violation(f"node {self.node} applied instance {instance} after instance {self.applied}")
        self.applied = instance
        results = self.inner.apply_batch(instance, values)
        self.cluster.compare(self, instance, values, results)
        return results

    def read(self, query: Any) -> object:
        return self.inner.read(query)


class _WatchedSnapshots(_Watched):
    """... that can be brought back from a checkpoint."""

    def snapshot(self, writer: SnapshotWriter) -> None:
        group = self.cluster.replicas[self.node - 1].group
        if group is not None and self.applied != group.applied:
            raise Violation(
                f"node {self.node} puts state machine {self.number}, which has applied instance {self.applied}, into a "
                f"checkpoint that ends at instance {group.applied}"
            )
        self.inner.snapshot(writer)

    def restore(self, reader: SnapshotReader) -> None:
        self.inner.restore(reader)
        self.applied = self.cluster.restoring[self.node]


class _Background:
    """Work is done at once, as far as the world can tell, and simulated time goes by for the rest."""

    def __init__(self, world: World, handle: SimHandle) -> None:
        self.world = world
        self.handle = handle
        self.due: deque[Callable[[], object]] = deque()
        self.closed = False

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        try:
            result, error = work(), None
        except Exception as caught:
            result, error = None, caught
        self._bring(lambda: done(result, error))

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.world.call_at(self.world.now + int(seconds * SECOND), lambda: self._bring(call))

    def _bring(self, call: Callable[[], object]) -> None:
        if not self.closed:
            self.due.append(call)
            self.handle.poke()

    def deliver(self) -> None:
        while self.due:
            self.due.popleft()()

    def close(self) -> None:
        self.closed = True
        self.due.clear()


class _Keeper(Keeper):
    """Says what it restores from, to those who watch, and lets out what they found."""

    restoring: Callable[[int], None]

    def _restore(self, manifest: Manifest, machines: list[int]) -> None:
        self.restoring(manifest.instance - 1)
        super()._restore(manifest, machines)

    def _is_made(self, manifest: Manifest | None, error: BaseException | None) -> None:
        if isinstance(error, Violation):
            raise error
        super()._is_made(manifest, error)


class Replica:
    """One node: its present life, if it has one, and what the last one left."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        self.cluster = cluster
        self.index = index
        self.id = index + 1
        self.handle: SimHandle | None = None
        self.group: Group | None = None
        self.machine: Machines | None = None
        self.damaged: DamagedLog | None = None
        self.error: PaxosError | OSError | None = None
        self.starts = 0
        self.version = 0  # of the mastership, the highest of this life

    @property
    def up(self) -> bool:
        """Whether the process runs."""
        return self.group is not None

    def start(self) -> bool:
        """Starts the process. False: it ended again at once, or refused (``error``, ``damaged``)."""
        cluster = self.cluster
        assert not self.up, f"node {self.id} runs already"
        self.starts += 1
        try:
            handle = SimHandle(cluster.world, self.index, **cluster.options)
        except (StorageError, OSError) as error:
            self.error = error
            if isinstance(error, DamagedLog):
                self.damaged = error
            return False
        self.machine = machines = cluster.factory(self.id, self.machine)
        if isinstance(machines, StateMachine):
            machines = {0: machines}
        watched = {
            number: (_WatchedSnapshots if has_snapshot(machine) else _Watched)(cluster, self.id, number, machine)
            for number, machine in machines.items()
        }
        alarms = Alarms(self.id, cluster.on_alarm)
        group = Group(
            handle,
            {number: partial(watched.__getitem__, number) for number in watched},
            alarms,
            max_value=cluster.max_value,
            batch_bytes=cluster.batch_bytes,
            batch_values=4096,
            sessions=cluster.sessions,
        )
        self.handle, self.group = handle, group
        self.version = 0
        group.strict = True
        store = CheckpointStore(handle.files())
        background = _Background(cluster.world, handle)
        work = Path(f"node{self.id}")  # never made: simulated state machines have no files
        maker = InlineMaker(store, background, group.machines, work)
        keeper = _Keeper(handle, store, background, group.machines, cluster.policy, maker, work, alarms)
        keeper.restoring = partial(cluster.restoring.__setitem__, self.id)
        try:
            scrub = Scrub(handle, store, background, keeper, cluster.scrub_rate, alarms, pause=SCRUB_PAUSE)
            reconcile = Reconcile(handle, background, alarms)
            group.start(keeper, scrub, reconcile, background, handle.start)
        except (StorageError, OSError) as error:
            self.error = error
            if self.group is not None:  # the world has not been told of it yet
                handle.leave()
                self.ended()
            return False
        return self.up

    def ended(self) -> Group | None:
        """The process has gone; what was under way in it will never be heard of again."""
        group, self.group, self.handle = self.group, None, None
        if group is not None:
            group.stop()
            group.reads.let_go()
            group.changes.let_go()
        return group

    def submit(self, completion: Completion, value: bytes, timeout: float = 5.0, machine: int = 0) -> None:
        """Proposes here. Raises what ``propose`` raises."""
        assert self.group is not None, f"node {self.id} is down"
        self.group.submit(completion, value, timeout, machine)

    def read(
        self,
        completion: Completion,
        query: object,
        timeout: float = 5.0,
        machine: int = 0,
        consistency: Consistency = "linearizable",
    ) -> None:
        """Reads here. Raises what ``read`` raises."""
        assert self.group is not None, f"node {self.id} is down"
        self.group.reads.submit(
            completion, (query,), single=True, machine=machine, consistency=consistency, max_staleness=None,
            timeout=timeout, at_once=consistency == "lease",
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """What the node knows, as of its last round."""
        assert self.handle is not None, f"node {self.id} is down"
        return dict(self.handle.status())


class Cluster:
    """``nodes`` replicas of a state machine in one simulated world, all started.

    ``first``: how many of the nodes form the cluster; the others may be added to it.
    ``on_ended(replica)`` is called when a process has ended, whoever ended it; ``on_applied(replica)`` when its Python side
    has had its turn.
    """

    def __init__(
        self,
        factory: Factory,
        *,
        nodes: int = 3,
        first: int | None = None,
        seed: int = 0,
        direct: Sequence[bool] = (),
        policy: CheckpointPolicy | None = None,
        scrub_rate: int = 0,
        sessions: bool = True,
        on_alarm: Callable[[Alarm], object] | None = None,
        **options: Any,
    ) -> None:
        self.factory = factory
        self.policy = policy or CheckpointPolicy(budget=options.get("log_budget", 1 << 22))
        self.scrub_rate = scrub_rate
        self.sessions = sessions
        self.on_alarm = on_alarm
        self.options = options
        self.max_value = options.get("max_value", 1 << 16)
        self.batch_bytes = options.get("batch_bytes", 1 << 16)
        self.world = World(nodes, seed, first)
        self.replicas = [Replica(self, index) for index in range(nodes)]
        self.world.on_python = self._on_python
        self.world.on_ended = self._on_ended
        #: by node: the last instance of the checkpoint that it restores from
        self.restoring: dict[int, int] = {}
        self.on_ended: Callable[[Replica], None] | None = None
        self.on_applied: Callable[[Replica], None] | None = None
        #: what was applied, by state machine and instance: the values, and the first replica's results
        self.histories: dict[int, list[tuple[Sequence[bytes], Sequence[object]]]] = {}
        #: by version of the mastership: who it was
        self.masters: dict[int, int] = {}
        for index, works in enumerate(direct):
            self.world.disk(index, direct=works)
        for replica in self.replicas:
            replica.start()

    def close(self) -> None:
        """Frees the world. The cluster is of no use afterwards."""
        for replica in self.replicas:
            replica.ended()
        self.world.close()

    # -- what the world calls

    def _on_python(self, index: int) -> None:
        replica = self.replicas[index]
        group = replica.group
        if group is None:
            return
        group.drain()
        if group.mastership.now is not None:
            self._reigns(replica, group.mastership.now)
        if group.error is not None:
            if isinstance(group.error, Violation):
                raise group.error
            raise Violation(f"node {replica.id} stopped applying: {group.error!r}") from group.error
        if self.on_applied is not None:
            self.on_applied(replica)

    def _reigns(self, replica: Replica, master: Master) -> None:
        """What Python is told of the mastership: a version has one node, and never goes back in one life of a node."""
        if self.masters.setdefault(master.version, master.node_id) != master.node_id:
            raise Violation(
                f"version {master.version} of the mastership is node {master.node_id}'s at node {replica.id}, and was "
                f"node {self.masters[master.version]}'s"
            )
        if master.version < replica.version:
            raise Violation(
                f"node {replica.id} goes back from version {replica.version} of the mastership to {master.version}"
            )
        replica.version = master.version

    def _on_ended(self, index: int, power: bool) -> None:
        replica = self.replicas[index]
        replica.ended()
        if self.on_ended is not None:
            self.on_ended(replica)

    def compare(self, machine: _Watched, instance: int, values: Sequence[bytes], results: Sequence[object]) -> None:
        """Every replica is given the same values, and answers the same (S5, B15)."""
        history = self.histories.setdefault(machine.number, [])
        if instance == len(history):
            history.append((values, results))
            return
        name = type(machine.inner).__name__
        if instance > len(history):
            raise Violation(f"node {machine.node} applied instance {instance}; nobody has applied {len(history)}")
        first_values, first_results = history[instance]
        if values != first_values:
            raise Diverged(name, instance, f"values {values!r} on node {machine.node}, {first_values!r} before")
        if results != first_results:
            raise Diverged(name, instance, f"results {results!r} on node {machine.node}, {first_results!r} before")

    @property
    def history(self) -> list[tuple[Sequence[bytes], Sequence[object]]]:
        """Of the first state machine, by instance: the values, and what the first replica to apply them answered."""
        return self.histories.setdefault(min(self.histories, default=0), [])

    # -- what a scenario does

    @property
    def now(self) -> int:
        """Simulated time in ns."""
        return self.world.now

    def run(self, seconds: float) -> None:
        """Lets so much simulated time go by."""
        self.world.run(self.world.now + int(seconds * SECOND))

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Until the condition holds, looked at after each step that reaches Python; False: not within so many seconds."""
        return self.world.run(self.world.now + int(seconds * SECOND), condition)

    def crash(self, replica: Replica, *, power: bool = False, within: int = -1) -> None:
        """Ends a process: now, or ``within`` so many calls to its disk. ``power``: what was not synced may be lost."""
        self.world.crash(replica.index, power=power, within=within)

    def cut(self, sources: Sequence[Replica], targets: Sequence[Replica], both: bool = True) -> None:
        """Drops what goes from the ones to the others (and back)."""
        for a in sources:
            for b in targets:
                if a is not b:
                    self.world.cut(a.index, b.index)
                    if both:
                        self.world.cut(b.index, a.index)

    def master(self) -> Replica | None:
        """A running node that takes itself for the master and has taken over; there may be two for a while."""
        for replica in self.replicas:
            group = replica.group
            if group is not None and group.settled and group.master_id == replica.id:
                return replica
        return None

    def level(self, replicas: Sequence[Replica] | None = None) -> bool:
        """Whether these nodes (all of them) have applied the same series, to its end."""
        states = set()
        for replica in self.replicas if replicas is None else replicas:
            if replica.group is None:
                return False
            status = replica.status()
            states.add((status["chosen"], status["chain"], replica.group.applied + 1, replica.group.checksum))
        return len(states) == 1 and next(iter(states))[0] == next(iter(states))[2]
