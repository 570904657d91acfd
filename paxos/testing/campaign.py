"""One seed is one life of a cluster: faults and a workload, then peace; and the judges' word on all of it.

    outcome = run(Plan(), seed=7)
    assert outcome.violation is None

Judged at every step: see ``_judge``; and that replicas are given the same values and answer the same. At the end: the
workload is linearizable, no value was applied twice, none that was refused for certain was applied; and after the last
fault a value is chosen and all nodes get level within a bounded time. A run in which nothing happens proves nothing, so an
outcome says what did.
"""

from __future__ import annotations

import gc
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final

from paxos._recovery import recover
from paxos.keeper import CheckpointPolicy
from paxos.testing.cluster import MS, SECOND, Cluster, Replica, Violation
from paxos.testing.faults import KINDS, Fault, Faults, draw
from paxos.testing.leases import lease_of
from paxos.testing.linearizability import Inconclusive, Operation, check
from paxos.testing.moves import Moves
from paxos.testing.tokened import TokenClient, judge_tokens
from paxos.testing.workload import REGISTER, Probe, Workload, machine_for

__all__ = ["Outcome", "Plan", "run", "schedule_of", "shrink"]

#: Simulated seconds after the last fault within which a value must be chosen, and all nodes be level.
CHOSEN_WITHIN: Final = 10
LEVEL_WITHIN: Final = 30
#: ... and within which a log that has fallen idle is sealed.
SEALED_WITHIN: Final = 10
#: ... and within which the scrub of a node has found and mended what rotted under it.
SCRUBBED_WITHIN: Final = 60
#: Steps of the search for a linearization of one key, before the log's own order is asked.
SEARCH_LIMIT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all seeds of a campaign."""

    nodes: int = 3
    """0: three or five, by the seed."""
    seconds: float = 30.0
    """Simulated, per seed, with faults; the peace that follows comes on top."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of faults that may be met."""
    rate: float = 30.0
    """Operations of the workload a second."""
    spares: int = 0
    """Nodes beside those that form the cluster; with any, the membership changes all the time (``moves``)."""


@dataclass(slots=True)
class Outcome:
    """What happened in one run, or in all of them (``add``)."""

    seed: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    events: int = 0
    chosen: int = 0
    elections: int = 0
    hash: int = 0
    violation: str | None = None
    faults: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    world: Counter[str] = field(default_factory=Counter)
    schedule: list[Fault] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Sums up; the first violation stays."""
        self.seconds += other.seconds
        self.wall += other.wall
        self.events += other.events
        self.chosen += other.chosen
        self.elections += other.elections
        self.faults.update(other.faults)
        self.operations.update(other.operations)
        self.world.update(other.world)


class _Quiet:
    """The library's log messages are of no interest while faults are put in by the dozen."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("paxos")
        self.level = self.logger.level
        self.logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *exception: object) -> None:
        self.logger.setLevel(self.level)


@dataclass(frozen=True, slots=True)
class _Life:
    """What a seed decides before anything happens."""

    nodes: int
    """That form the cluster."""
    options: dict[str, Any]
    direct: list[bool]
    modes: list[list[str]]
    """By node and state machine of the group."""
    drifts: list[int]
    clients: int
    keys: int
    rate: float
    gap: int
    policy: CheckpointPolicy

    @property
    def scrub_rate(self) -> int:
        """Nothing of its own is drawn: without a scrub a seed is what it was."""
        return (0, 1 << 18, 1 << 22)[(self.clients + self.keys) % 3]


def _with_sessions(seed: int) -> bool:
    """Every other life has them, with clients that use them. Without, durable state machines are fed only what they lack."""
    return seed % 2 == 0


def _life(plan: Plan, dice: random.Random) -> _Life:
    first = plan.nodes or dice.choice([3, 3, 5])
    nodes = first + plan.spares
    machines = dice.choice([1, 1, 2])
    nervous = dice.random() < 0.35  # elections without end: timeouts near the delays of network and disk
    heartbeat = dice.choice([10, 20]) if nervous else 50
    options = {
        "window": dice.choice([1, 2, 8]),
        "heartbeat_ns": heartbeat * MS,
        "election_min_ns": heartbeat * 3 * MS,
        "election_max_ns": heartbeat * dice.choice([4, 6, 12]) * MS,
        "segment_size": dice.choice([1 << 17, 1 << 18, 1 << 20]),
        "max_value": 1 << 12,
        "batch_bytes": dice.choice([64, 1 << 12, 1 << 15]),
        # Often so little that a burst is too much, for the master as well as here; and a master's Python side soon missed.
        "max_pending_bytes": dice.choice([128 << 20, 128 << 20, 1 << 14]),
        "stuck_limit_ns": dice.choice([1, 3, 10]) * SECOND,
    }
    budget = options["segment_size"] * dice.choice([4, 8, 64])
    options["log_budget"], options["log_hold"] = budget, dice.choice([0, 0, 20, 1000])
    policy = CheckpointPolicy(
        budget=budget,
        instances=dice.choice([0, 0, 10, 100]),
        seconds=dice.choice([0.0, 0.0, 2.0]),
        kept=dice.choice([1, 2]),
    )
    return _Life(
        nodes=first,
        options=options,
        direct=[dice.random() < 0.7] * nodes if dice.random() < 0.8 else [dice.random() < 0.5 for _ in range(nodes)],
        modes=[[dice.choice(["memory", "durable", "rolled back"]) for _ in range(machines)] for _ in range(nodes)],
        drifts=[dice.randint(-200, 200) if dice.random() < 0.5 else 0 for _ in range(nodes)],
        clients=dice.choice([2, 4, 8]),
        keys=dice.choice([1, 3, 8]),
        rate=plan.rate * dice.choice([0.5, 1, 2]),
        gap=dice.choice([300, 1000, 4000]) * MS,
        policy=policy,
    )


def schedule_of(plan: Plan, seed: int) -> list[Fault]:
    """The faults of a seed."""
    dice = random.Random(seed)
    life = _life(plan, dice)
    faults = draw(random.Random(seed * 2 + 1), len(life.modes), int(plan.seconds * SECOND), plan.kinds, life.gap)
    if lease_of(seed) is not None:
        # Leases stand on clocks that run alike; one that jumps without time going by is none.
        faults = [fault for fault in faults if fault.kind != "jump"]
    return faults


def run(
    plan: Plan,
    seed: int,
    schedule: Sequence[Fault] | None = None,
    look: Callable[[Cluster, Faults], None] | None = None,
) -> Outcome:
    """Plays one seed, with another schedule of faults than its own where one is given.

    ``look`` is called with the cluster and its faults before the world is closed, whatever the outcome (for timelines).
    """
    begun = perf_counter()
    dice = random.Random(seed)
    life = _life(plan, dice)
    if schedule is None:
        schedule = schedule_of(plan, seed)
    outcome = Outcome(seed, schedule=list(schedule))
    machines = random.Random(seed * 2 + 2)
    collecting = gc.isenabled()
    if collecting:
        gc.collect(1)  # the life before this one, which has lived on into the second generation while it was let go of
    gc.disable()  # nothing here makes circles but the cluster itself, which is closed by hand
    with _Quiet():
        cluster = Cluster(
            lambda node, before: {
                number: machine_for(mode, machines, before[number] if before else None)
                for number, mode in enumerate(life.modes[node - 1])
            },
            nodes=len(life.modes),
            first=life.nodes,
            seed=seed * 0x9E3779B1 + 1,
            direct=life.direct,
            policy=life.policy,
            scrub_rate=life.scrub_rate,
            sessions=_with_sessions(seed),
            **life.options,
        )
        faults = Faults(cluster, lambda replica: None)
        workload = Workload(
            cluster, dice, clients=life.clients, keys=life.keys, rate=life.rate, machines=len(life.modes[0])
        )
        if cluster.sessions:
            chance = random.Random(seed * 2 + 3)
            workload.token_clients = [
                TokenClient(workload, number, chance) for number in range(chance.choice([1, 2, 3]))
            ]
        leases = lease_of(seed)
        if leases is not None:
            leases.begin(cluster, plan.seconds)
            workload.leases = leases.dice
            workload.read_share = max(workload.read_share, 0.5)
        moves = Moves(seed, cluster, faults) if plan.spares else None
        if moves is not None:
            moves.begin(plan.seconds)
        start = cluster.now

        def ended(replica: Replica) -> None:
            workload.process_ended(replica)
            faults.ended(replica)

        cluster.on_ended = ended
        try:
            if look is not None:
                cluster.world.record()
            drifts = life.drifts if leases is None else leases.drifts(len(life.modes))
            for replica, drift in zip(cluster.replicas, drifts, strict=True):
                cluster.world.clock(replica.index, ppm=drift)
                if not replica.up:
                    faults.revive(replica)
            faults.play(schedule)
            workload.start()
            cluster.run(plan.seconds)
            members = _peace(cluster, faults, workload, moves)
            _judge(cluster, workload, outcome, members)
        except Violation as error:
            outcome.violation = str(error)
        except Exception as error:
            # A finding, too, and it must not take along what the other seeds have found.
            at = traceback.extract_tb(error.__traceback__)[-1]
            outcome.violation = f"it broke: {type(error).__name__} at {at.name} ({at.filename}:{at.lineno}): {error}"
        finally:
            counts = cluster.world.counts()
            outcome.seconds = (cluster.now - start) / SECOND
            outcome.events = counts["events"]
            outcome.chosen = cluster.world.chosen
            outcome.elections = cluster.world.ballots
            outcome.hash = cluster.world.hash
            outcome.faults = faults.hits
            outcome.operations.update(workload.outcomes)
            if moves is not None:
                outcome.operations.update({f"membership: {what}": count for what, count in moves.hits.items()})
                outcome.operations["memberships"] += moves.versions()
            if leases is not None:
                outcome.operations["lengths of leases chosen"] += leases.chosen
            outcome.world = Counter({name: value for name, value in counts.items() if isinstance(value, int)})
            if look is not None:
                look(cluster, faults)
            cluster.close()
            # The collector may come by rarely in a long session: what holds a life's memory is let go of here.
            cluster.histories.clear()
            cluster.on_ended = cluster.on_applied = None
            for replica in cluster.replicas:
                replica.machine = None
            workload.history.clear()
            if collecting:
                gc.enable()
    outcome.wall = perf_counter() - begun
    return outcome


def _peace(cluster: Cluster, faults: Faults, workload: Workload, moves: Moves | None) -> list[Replica]:
    """The faults have ceased: each node that is not damaged gets a value chosen, and all of them reach the same series.

    Who they are."""
    faults.stop()
    before = cluster.world.chosen
    members = cluster.replicas if moves is None else moves.peace()
    living = [replica for replica in members if replica.damaged is None]
    # One that gets well of a loss is not asked yet: it has a voice when it is level.
    probes = [Probe(workload, replica) for replica in living if replica.id not in faults.rotten]
    if not cluster.run_until(lambda: all(p.answered or p.replica.damaged for p in probes), CHOSEN_WITHIN):
        silent = ", ".join(str(probe.replica.id) for probe in probes if not probe.answered)
        chosen = cluster.world.chosen - before
        raise Violation(
            f"no proposal of node {silent} was answered within {CHOSEN_WITHIN} s after the last fault ({chosen} chosen): "
            f"{_states(living)}"
        )
    workload.stop()
    living = [replica for replica in living if replica.damaged is None]  # rot may have been found only now
    if not cluster.run_until(lambda: cluster.level(living), LEVEL_WITHIN):
        raise Violation(f"the nodes are not level {LEVEL_WITHIN} s after the last fault: {_states(living)}")
    workload.finish()
    _scrubbed(cluster, faults, living)

    def voiceless() -> list[int]:
        voters = living if moves is None else [replica for replica in moves.voters() if replica in living]
        return [replica.id for replica in voters if not cluster.world.votes(replica.index)]

    if not cluster.run_until(lambda: not voiceless(), LEVEL_WITHIN):
        raise Violation(f"nodes {voiceless()} have no vote {LEVEL_WITHIN} s after all were level: {_states(living)}")

    # A log that has fallen idle is sealed: a write says that the newest one with something in it is durable (rule 13). Frames
    # that the faults made late by seconds may still come in, and be logged.
    def unsealed() -> list[int]:
        return [replica.id for replica in living if replica.up and not cluster.world.sealed(replica.index)]

    if not cluster.run_until(lambda: not unsealed(), SEALED_WITHIN):
        raise Violation(f"the logs of nodes {unsealed()} are not sealed {SEALED_WITHIN} s after the last proposal")
    return [replica for replica in living if replica.damaged is None]


def _scrubbed(cluster: Cluster, faults: Faults, replicas: Sequence[Replica]) -> None:
    """What rotted under a running node has been found and mended, and nothing else was called rotten."""
    if not cluster.scrub_rate:
        return
    for replica in replicas:
        damage = replica.group.status().scrub_damage if replica.group is not None else 0
        if damage and replica.id not in faults.rotten and not faults.hits["read-fails"]:
            raise Violation(f"the scrub of node {replica.id} calls damaged what nobody has damaged")

    def rotten() -> list[int]:
        found = [replica for replica in replicas if replica.id in faults.rotten and replica.up]
        return [r.id for r in found if recover(cluster.world.log_bytes(r.index)).outcome not in ("good", "torn")]

    for _ in range(SCRUBBED_WITHIN):
        if not rotten():
            return
        cluster.run(1.0)
    raise Violation(f"the logs of nodes {rotten()} are still damaged on disk {SCRUBBED_WITHIN} s after the last fault")


def _states(replicas: Sequence[Replica]) -> str:
    return "; ".join(
        f"node {r.id} is down ({r.error})"
        if r.group is None
        else f"node {r.id}: {r.status()['role']}, master {r.group.master_id}, chosen {r.status()['chosen']}, "
        f"applied {r.group.applied}"
        for r in replicas
    )


def _judge(cluster: Cluster, workload: Workload, outcome: Outcome, members: Sequence[Replica]) -> None:
    """What can be said only of the whole run."""
    applied = Counter(value for history in cluster.histories.values() for values, _ in history for value in values)
    twice = [value for value, times in applied.items() if times > 1]
    if twice:
        raise Violation(f"applied twice: {twice[0]!r}")
    judge_tokens(cluster, workload.token_clients, members)
    for value in workload.refused:
        if value in applied:
            raise Violation(f"refused for certain, and applied: {value!r}")
    # What was never applied need not be considered: if the rest has no order, something was seen that nobody did.
    history = [operation for operation, value in workload.history if operation.end is not None or value in applied]
    try:
        wrong = check(history, REGISTER, limit=SEARCH_LIMIT)
        violation = None if wrong is None else str(wrong)
    except Inconclusive:
        # Appends of unknown outcome can be told apart by nobody who has not read them. The order of the log is an order.
        violation = check_order(workload.history, applied)
        outcome.operations["judged by the log's order"] += 1
    if violation is not None:
        raise Violation(violation)


def check_order(history: Sequence[tuple[Operation, bytes]], applied: Iterable[bytes]) -> str | None:
    """Whether the order in which values were applied explains every reply. None, or what is wrong with it."""
    place = {value: number for number, value in enumerate(applied)}
    done = sorted(((place[value], op) for op, value in history if value in place), key=lambda pair: pair[0])
    state: dict[object, Any] = {}
    latest_call: dict[object, int] = {}
    for _, op in done:
        state[op.key], result = REGISTER.apply(state.get(op.key), op.action)
        if op.end is not None and result != op.result:
            return f"by the order of the log the answer is {result!r}: {op}"
        if op.end is not None and op.end < latest_call.get(op.key, -1):
            return f"ended before one was called that stands before it in the log: {op}"
        latest_call[op.key] = max(latest_call.get(op.key, -1), op.call)
    missing = next((op for op, value in history if op.end is not None and value and value not in place), None)
    return f"answered, and never applied: {missing}" if missing is not None else None


def shrink(plan: Plan, outcome: Outcome, patience: int = 200) -> Outcome:
    """A run of the same seed that fails with fewer and shorter faults; at most ``patience`` runs are tried."""
    best = outcome
    step = max(len(best.schedule) // 2, 1)
    tries = 0
    while tries < patience and best.schedule:
        at = 0
        shrunk = False
        while at < len(best.schedule) and tries < patience:
            tries += 1
            found = run(plan, outcome.seed, best.schedule[:at] + best.schedule[at + step :])
            if found.violation is not None:
                best, shrunk = found, True
            else:
                at += step
        if step == 1 and not shrunk:
            break
        step = max(step // 2, 1)
    # The run need not be longer than it takes.
    last = max((fault.at + fault.length for fault in best.schedule), default=0) / SECOND + 1
    if last < plan.seconds and tries < patience:
        found = run(replace(plan, seconds=last), outcome.seed, best.schedule)
        if found.violation is not None:
            best = found
    return best
