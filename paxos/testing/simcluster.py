"""A simulated cluster for tests of a user's own state machine: real :class:`paxos.Node` objects in a simulated world.

    with SimCluster(Counter, seed=7, faults="crash,partition") as cluster:
        cluster.run(body(cluster))

All that a node does below and above is what runs in production; time, network, disks and the ends of processes are not.
Everything follows from the seed, as long as the test itself asks nothing of the real world (clocks, threads, sockets, the
order of sets).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, cast

from paxos.alarm import Alarm
from paxos.config import NodeOptions, Options
from paxos.errors import (
    ConfigError,
    Fenced,
    NotAvailable,
    OutcomeUnknown,
    PaxosError,
    Refused,
    SessionExpired,
    StorageError,
    ValueTooLarge,
)
from paxos.node import Node
from paxos.statemachine import StateMachine, StateMachineFactory
from paxos.testing.cluster import MS, SECOND, Cluster, Diverged, Machines, Replica, Violation
from paxos.testing.faults import GROUPS, KINDS, Fault, Faults, draw
from paxos.testing.loop import Blocking, SimLoop
from paxos.tokens import Token

if TYPE_CHECKING:
    from paxos.testing._sim import SimHandle
    from paxos.testing.cluster import _Watched

__all__ = ["Invariant", "SimCluster", "fault_kinds", "schedule_for"]

T = TypeVar("T")
#: Called with the cluster and the id of a node that has just applied an instance. Raises or returns False where it does not hold.
Invariant = Callable[["SimCluster", int], object]

#: Simulated seconds: until the cluster is formed and has a master; until all nodes are level behind the last fault; and what a
#: test may take longer than its faults.
FORMED_WITHIN: Final = 60.0
LEVEL_WITHIN: Final = 60.0
LIMIT: Final = 600.0
#: Much smaller than in earnest, where room is cheap and waiting is dear; here each node of each seed writes its log anew.
DEFAULTS: Final[NodeOptions] = {"batch_bytes": 1 << 16, "max_value": 1 << 16}


def fault_kinds(faults: str | Sequence[str]) -> tuple[str, ...]:
    """Kinds of faults by "all", "none", or names of groups and kinds ("crash,loss"). ConfigError lists what there is."""
    names = [name.strip() for name in faults.split(",")] if isinstance(faults, str) else list(faults)
    kinds: dict[str, None] = {}
    for name in names:
        if name == "all":
            found: Sequence[str] = KINDS
        elif name == "none":
            found = ()
        elif name in GROUPS:
            found = GROUPS[name]
        elif name in KINDS:
            found = (name,)
        else:
            raise ConfigError(
                f"unknown fault {name!r}; there are: all, none, the groups {', '.join(GROUPS)}, "
                f"and the kinds {', '.join(KINDS)}"
            )
        kinds.update(dict.fromkeys(found))
    return tuple(kind for kind in KINDS if kind in kinds)


def schedule_for(seed: int, nodes: int, seconds: float, kinds: Sequence[str]) -> list[Fault]:
    """The faults of a seed."""
    if not kinds:
        return []
    dice = random.Random(seed * 2 + 1)
    return draw(dice, nodes, int(seconds * SECOND), kinds, dice.choice([300, 1000, 3000]) * MS)


def _options(options: NodeOptions) -> Options:
    """Checked; with segments that hold the largest value, where nothing is said of them."""
    if "segment_bytes" not in options:
        sizes = [size for size in (options.get("batch_bytes"), options.get("max_value")) if isinstance(size, int)]
        options["segment_bytes"] = max(1 << 18, (max(sizes) + (68 << 10) + 4095) // 4096 * 4096)
    return Options.make(**options)


class _Process:
    """What :class:`paxos.Node` holds instead of its engine."""

    def __init__(self, owner: SimCluster, replica: Replica, handle: SimHandle) -> None:
        self.owner = owner
        self.replica = replica
        self.handle = handle
        self.number = owner.loop.descriptor()
        self.stopping: Blocking | None = None
        self.gone = False

    def fileno(self) -> int:
        return self.number

    def status(self) -> Any:
        return self.handle.status()

    def stop(self) -> Blocking | None:
        """Who closes a node wants it closed: it is not started again by itself."""
        if self.gone:
            return None
        if self.stopping is None:
            self.stopping = Blocking(loop=self.owner.loop)
            self.owner._held.add(self.replica.id)
            self.handle.stop()
        return self.stopping


class _Cluster(Cluster):
    """Hands what the world wants of a node's Python side to the event loop."""

    def __init__(self, owner: SimCluster, factory: Callable[[int, Any], Machines], **options: Any) -> None:
        self.owner = owner
        super().__init__(factory, **options)

    def _on_python(self, index: int) -> None:
        process = self.owner._processes.get(index + 1)
        if process is not None:
            self.owner.loop.mark_ready(process.number)

    def _on_ended(self, index: int, power: bool) -> None:
        replica = self.replicas[index]
        self.owner._look_at(replica)
        super()._on_ended(index, power)

    def compare(self, machine: _Watched, instance: int, values: Sequence[bytes], results: Sequence[object]) -> None:
        super().compare(machine, instance, values, results)
        self.owner._check(machine.node)


class _Faults(Faults):
    """Leaves nodes alone that the test itself has taken down."""

    def __init__(self, owner: SimCluster) -> None:
        super().__init__(owner.cluster, owner._started)
        self.owner = owner

    def revive(self, replica: Replica) -> None:
        if replica.id not in self.owner._held:
            super().revive(replica)


class SimCluster:
    """``nodes`` simulated nodes with ids from 1 on, and the event loop that they and the test share.

    :param machine: a :class:`paxos.StateMachine` class or factory, or ``{id: factory}``, as for :meth:`paxos.Node.open`.
    :param seed: decides everything that the test does not: faults, delays, order.
    :param faults: "all", "none", or groups and kinds of faults (see :func:`fault_kinds`), which come and go by themselves in
        the first ``seconds`` simulated seconds.
    :param invariant: called after each instance that a node has applied, and for all nodes when they have settled.
    :param durable: keep the state machine's object when its process ends, as one with a disk of its own would be; its
        ``last_applied`` must say how far it is. Otherwise it is made anew and replayed.
    :param limit: simulated seconds that one ``run`` may take.
    :param schedule: other faults than those of the seed.
    :param options: as for :meth:`paxos.Node.open`; window, batch size and use of O_DIRECT are drawn where they are not given.
    :raises ConfigError: a parameter cannot work.
    """

    def __init__(
        self,
        machine: StateMachineFactory,
        *,
        nodes: int = 3,
        seed: int = 0,
        faults: str | Sequence[str] = "none",
        seconds: float = 10.0,
        invariant: Invariant | None = None,
        durable: bool = False,
        limit: float | None = None,
        schedule: Sequence[Fault] | None = None,
        **options: Unpack[NodeOptions],
    ) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"seed={seed!r} must be a whole number from 0 on")
        self.check(machine, nodes=nodes, seconds=seconds, options=options)
        self.seed = seed
        self.seconds = seconds
        self.limit = seconds + LIMIT if limit is None else limit
        #: For the test's own choices.
        self.random = random.Random(seed * 4 + 3)
        self.schedule = list(schedule_for(seed, nodes, seconds, fault_kinds(faults)) if schedule is None else schedule)
        self._factory = machine
        self._durable = durable
        self._invariant = invariant
        self._dice = random.Random(seed * 4 + 1)
        self._global_random = random.Random(seed).getstate()
        self._failure: BaseException | None = None
        self._held: set[int] = set()
        self._nodes: dict[int, Node] = {}
        self._processes: dict[int, _Process] = {}
        self._began = 0
        self.closed = False
        direct, drifts, below = self._below(nodes, options)
        self.cluster = _Cluster(self, self._make, nodes=nodes, seed=seed * 0x9E3779B1 + 1, direct=direct, **below)
        self.loop = SimLoop(self.cluster.world)
        self.loop.on_turn(self._look)
        self.faults = _Faults(self)
        self.cluster.on_ended = self._ended
        for replica, drift in zip(self.cluster.replicas, drifts, strict=True):
            self.cluster.world.clock(replica.index, ppm=drift)
            self._started(replica)

    @staticmethod
    def check(machine: StateMachineFactory, *, nodes: int, seconds: float, options: NodeOptions) -> None:
        """Raises ConfigError where these parameters cannot work with any seed."""
        if not callable(machine) and not (isinstance(machine, Mapping) and machine):
            raise ConfigError(f"the state machine must be a class, a factory or {{id: factory}}, not {machine!r}")
        if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= 31:
            raise ConfigError(f"nodes={nodes!r}: a simulated cluster has 1 to 31 nodes")
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 86400:
            raise ConfigError(f"seconds={seconds!r} must be from 0 to 86400 simulated seconds")
        _options({**DEFAULTS, **options})

    def _below(self, nodes: int, options: NodeOptions) -> tuple[list[bool], list[int], dict[str, Any]]:
        """O_DIRECT and drift of the clock (ppm) per node, and the options as the simulated node takes them."""
        dice = random.Random(self.seed * 4 + 2)
        drawn: NodeOptions = {
            "window": dice.choice([1, 2, 8]),
            "batch_bytes": dice.choice([64, 1 << 12, 1 << 16]),
            "direct_io": dice.random() < 0.7,
        }
        drifts = [dice.randint(-200, 200) if dice.random() < 0.5 else 0 for _ in range(nodes)]
        checked = _options({**DEFAULTS, **drawn, **options})
        election_min = int(checked.election_timeout * SECOND)
        below = {
            "window": checked.window, "batch_bytes": checked.batch_bytes, "batch_values": checked.batch_values,
            "heartbeat_ns": int(checked.heartbeat * SECOND), "election_min_ns": election_min,
            "election_max_ns": 2 * election_min, "stuck_limit_ns": int(checked.stuck_limit * SECOND),
            "max_value": checked.max_value, "segment_size": checked.segment_bytes,
            "max_pending": checked.max_pending, "max_pending_bytes": checked.max_pending_bytes,
            "sessions": checked.sessions,
            "on_alarm": None if checked.on_alarm is None else partial(self._alarmed, checked.on_alarm),
        }  # fmt: skip
        return [checked.direct_io] * nodes, drifts, below

    def _make(self, node: int, before: Any) -> Machines:
        """What a node has as it comes up."""
        if before is not None and self._durable:
            machines = [before] if isinstance(before, StateMachine) else list(before.values())
            for machine in machines:
                if machine.last_applied() < 0 and self.cluster.world.chosen:
                    raise ConfigError(
                        f"durable=True: {type(machine).__name__}.last_applied() says -1 after a restart; it must say which "
                        "instance the state machine applied last, or leave durable=True away"
                    )
            return cast(Machines, before)
        makers = {0: self._factory} if callable(self._factory) else self._factory
        made = {number: make() for number, make in makers.items()}
        for machine in made.values():
            if not isinstance(machine, StateMachine):
                raise ConfigError(f"the factory made a {type(machine).__name__}; it must be a paxos.StateMachine")
        return made[0] if callable(self._factory) else made

    # -- running

    def run(self, work: Coroutine[Any, Any, T], *, limit: float | None = None) -> T:
        """Runs a coroutine to its end, on simulated time, and returns its result.

        Before the first one the cluster forms and finds a master; then faults begin. Raises what the coroutine raises;
        :class:`Violation` as soon as a node does what must never be done; :class:`NotEnded` behind ``limit`` seconds.
        """
        if self.closed:
            work.close()
            raise RuntimeError("this simulated cluster has been closed")
        with self._undisturbed():
            try:
                if not self._began:
                    self.loop.run_for(self.loop.create_task(self._formed()), 2 * FORMED_WITHIN)
                    self._began = self.cluster.now
                    self.faults.play(self.schedule)
            except BaseException:
                work.close()
                raise
            result = self.loop.run_for(self.loop.create_task(work), self.limit if limit is None else limit)
            self._look()
        return cast(T, result)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Draws from the global ``random`` follow the seed; log messages about faults that were asked for do not come."""
        logger = logging.getLogger("paxos")
        level, state = logger.level, random.getstate()
        logger.setLevel(logging.CRITICAL + 1)
        random.setstate(self._global_random)
        try:
            yield
        finally:
            self._global_random = random.getstate()
            random.setstate(state)
            logger.setLevel(level)

    def close(self) -> None:
        """Ends all nodes, cancels what still runs on the loop, frees the world. Again: nothing."""
        if self.closed:
            return
        self.closed = True
        self.cluster.on_ended = None
        for replica in self.cluster.replicas:
            self._cut_off(replica)
        self.loop.abandon()
        self._nodes.clear()
        self.cluster.close()
        # The disks of a world are big, and the next seed makes new ones: what is held in a circle would wait for the collector.
        self.loop.on_turn(lambda: None)
        self.loop.set_exception_handler(None)
        self.cluster.replicas.clear()
        self.cluster.factory = lambda node, before: {}
        del self.cluster.owner, self.faults.owner, self.faults.restart

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the life of nodes

    def _started(self, replica: Replica) -> None:
        if replica.group is None or replica.handle is None:
            return
        process = _Process(self, replica, replica.handle)
        self._processes[replica.id] = process
        self._nodes[replica.id] = Node(process, replica.group, self.loop)
        self.loop.wake()

    def _cut_off(self, replica: Replica) -> None:
        """The process of this node is gone, and with it whoever waited for it there: here the test, which is told so."""
        process, node = self._processes.pop(replica.id, None), self._nodes.pop(replica.id, None)
        if process is None or node is None:
            return
        process.gone = True
        self.loop.remove_reader(process.number)
        node._ended()
        node._group.on_ready = None
        if process.stopping is not None and not process.stopping.done():
            process.stopping.set_result(None)
        self.loop.wake()

    def _ended(self, replica: Replica) -> None:
        self._cut_off(replica)
        self.faults.ended(replica)

    def _alarmed(self, on_alarm: Callable[[Alarm], object], alarm: Alarm) -> None:
        """On the loop, as it is with real nodes; but what it raises fails the test."""
        self.loop.call_soon(on_alarm, alarm)
        self.loop.wake()

    # -- the judges

    def _check(self, node: int) -> None:
        if self._invariant is not None and self._invariant(self, node) is False:
            raise AssertionError(f"the invariant does not hold on node {node}")

    def _look_at(self, replica: Replica) -> None:
        """Has the state machine of this node failed?"""
        error = replica.group.error if replica.group is not None else None
        if error is None or self._failure is not None:
            return
        if isinstance(error, AssertionError):
            self._failure = error
        else:
            self._failure = Violation(f"the state machine of node {replica.id} raised: {error!r}")
            self._failure.__cause__ = error

    def _look(self) -> None:
        for replica in self.cluster.replicas:
            self._look_at(replica)
        error = self._failure or self.loop.failure
        if error is not None:
            raise error

    def _compare_digests(self) -> None:
        """State machines that have applied the same are in the same state, where they can tell."""
        first: dict[int, tuple[int, object]] = {}
        for replica in self._living():
            machines = replica.machine
            assert machines is not None
            named = {0: machines} if isinstance(machines, StateMachine) else machines
            for number, machine in named.items():
                digest = getattr(machine, "digest", None)
                if digest is None:
                    continue
                state = digest()
                node, other = first.setdefault(number, (replica.id, state))
                if state != other:
                    assert replica.group is not None
                    raise Diverged(
                        type(machine).__name__,
                        replica.group.applied,
                        f"digest {state!r} on node {replica.id}, {other!r} on node {node}",
                    )

    # -- what a test asks

    @property
    def now(self) -> float:
        """Simulated seconds since faults may come."""
        return (self.cluster.now - self._began) / SECOND if self._began else 0.0

    @property
    def hash(self) -> int:
        """Of everything that has happened, in order: equal for equal runs."""
        return self.cluster.world.hash

    @property
    def history(self) -> list[list[bytes]]:
        """The values of each instance so far, for :func:`check_determinism`. Of the first state machine, if there are several."""
        return [list(values) for values, _ in self.cluster.history]

    @property
    def values(self) -> int:
        """Values applied so far, by all state machines of a node together."""
        return sum(len(values) for history in self.cluster.histories.values() for values, _ in history)

    def _up(self) -> list[Replica]:
        return [replica for replica in self.cluster.replicas if replica.id in self._nodes]

    def _replica(self, node: int) -> Replica:
        if node not in range(1, len(self.cluster.replicas) + 1):
            raise ConfigError(f"there is no node {node}; there are 1 to {len(self.cluster.replicas)}")
        return self.cluster.replicas[node - 1]

    @property
    def nodes(self) -> list[Node]:
        """The running nodes, by id."""
        return [self._nodes[replica.id] for replica in self._up()]

    def node(self, node: int) -> Node:
        """The node with this id, in its present life. Raises NotAvailable where it is down."""
        self._replica(node)
        if node not in self._nodes:
            raise NotAvailable(f"node {node} is down")
        return self._nodes[node]

    def machine(self, node: int, machine: int = 0) -> Any:
        """The state machine object of a running node, as the factory made it. Raises NotAvailable where the node is down."""
        machines = self._replica(node).machine
        if not self._replica(node).up or machines is None:
            raise NotAvailable(f"node {node} is down")
        return machines[machine] if isinstance(machines, Mapping) else machines

    def master(self) -> Node | None:
        """A running node that takes itself for the master; for a while there may be two, or none."""
        replica = self.cluster.master()
        return None if replica is None else self._nodes.get(replica.id)

    async def sleep(self, seconds: float) -> None:
        """Lets so many simulated seconds go by; ``asyncio.sleep`` does the same."""
        await asyncio.sleep(seconds)

    async def propose(self, value: bytes, *, timeout: float = 5.0, machine: int = 0, token: Token | None = None) -> Any:
        """Proposes at a running node drawn by the seed, and again at another one after a certain refusal.

        With a token also where nobody can tell, as long as there is time. Raises OutcomeUnknown where nobody can tell whether
        the value was or will be executed, a Refused after ``timeout`` seconds in which nobody took it.
        """
        until = self.loop.time() + timeout
        while True:
            refusal: PaxosError = NotAvailable("all nodes are down")
            left = until - self.loop.time()
            if self._nodes and left > 0:
                try:
                    return await self._dice.choice(self.nodes).propose(
                        value, timeout=left, machine=machine, token=token
                    )
                except (ValueTooLarge, Fenced, SessionExpired):
                    raise
                except OutcomeUnknown as error:
                    if token is None:
                        raise
                    refusal = error
                except Refused as error:
                    refusal = error
            if self.loop.time() + 0.02 >= until:
                raise refusal
            await asyncio.sleep(0.02)

    # -- what a test does

    async def crash(self, node: int, *, power: bool = False) -> None:
        """Ends the process of a node (kill -9); it stays down until :meth:`start`, or :meth:`settle`.

        What was under way at this node ends with OutcomeUnknown. With ``power`` all that was not synced may be lost, in whole or
        in part; without, what was written stays.
        """
        replica = self._replica(node)
        self._held.add(node)
        if replica.up:
            self.cluster.crash(replica, power=power)
        await asyncio.sleep(0)

    async def start(self, node: int, *, timeout: float = 30.0) -> Node:
        """Starts a node that is down, and returns it; one that runs is returned as it is.

        Raises StorageError where its log is damaged or its disk does not let it start within ``timeout`` seconds.
        """
        replica = self._replica(node)
        self._held.discard(node)
        until = self.loop.time() + timeout
        while node not in self._nodes:
            if replica.damaged is not None:
                raise replica.damaged
            if self.loop.time() >= until:
                raise StorageError(f"node {node} did not start within {timeout:g} s") from replica.error
            if replica.start():
                self._started(replica)
            else:
                await asyncio.sleep(0.05)
        return self._nodes[node]

    def partition(self, *groups: Sequence[int], both: bool = True) -> None:
        """Cuts the groups off from one another: ``partition([1], [2, 3])``. Nodes that are not named reach everybody.

        What heals a partition heals them all: :meth:`heal`, :meth:`settle`, and the end of a fault of that group.

        With ``both=False`` a group no longer reaches those behind it, but hears from them.
        """
        parts = [[self._replica(node) for node in group] for group in groups]
        names = [node for group in groups for node in group]
        if len(groups) < 2 or len(set(names)) != len(names):
            raise ConfigError(f"partition() takes two groups or more, and each node in one of them, not {groups!r}")
        for i, part in enumerate(parts):
            for other in parts[i + 1 :]:
                self.cluster.cut(part, other, both=both)

    def heal(self) -> None:
        """All nodes reach one another again, whoever cut them off."""
        self.cluster.world.heal()

    async def _formed(self) -> None:
        until = self.loop.time() + FORMED_WITHIN
        while self.master() is None:
            if self.loop.time() > until:
                raise Violation(f"no master within {FORMED_WITHIN:g} s: {self._states()}")
            await asyncio.sleep(0.01)

    async def settle(self, within: float = LEVEL_WITHIN) -> list[int]:
        """Ends all faults, starts what is down, and waits until all nodes have applied the same; then compares their states.

        Returns the ids of these nodes. One that has lost its disk, or part of it, has got well from the others; only where it was
        alone it stays down, and is left out. Raises Violation where they are not level ``within``
        seconds, and :class:`Diverged` where digests differ.
        """
        self._held.clear()
        self.faults.stop()
        until = self.loop.time() + within
        while self.master() is None or not self.cluster.level(self._living()):
            if self.loop.time() > until:
                raise Violation(f"the nodes are not level {within:g} s after the last fault: {self._states()}")
            await asyncio.sleep(0.01)
        self._compare_digests()
        living = [replica.id for replica in self._living()]
        for node in living:
            self._check(node)
        return living

    def _living(self) -> list[Replica]:
        """All but a node that is alone and has lost what it had written."""
        return [r for r in self.cluster.replicas if r.damaged is None]

    def _states(self) -> str:
        return "; ".join(
            f"node {r.id}: "
            + (f"chosen {r.status()['chosen']}, applied {r.group.applied + 1}" if r.group else f"down ({r.error})")
            for r in self.cluster.replicas
        )
