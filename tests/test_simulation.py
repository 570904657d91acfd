"""Whole nodes in the simulated world: campaigns, named schedules, and that a seed fixes everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from calls import Call, master_of
from paxos.errors import ConfigError, StorageError
from paxos.manifest import Manifest
from paxos.testing import logs
from paxos.testing._sim import World
from paxos.testing._simdisk import MemoryDisk
from paxos.testing.campaign import Outcome, Plan, check_order, run, schedule_of, shrink
from paxos.testing.cluster import MS, SECOND, Cluster, Diverged, Replica, Violation
from paxos.testing.faults import GROUPS, KINDS, Fault, Faults
from paxos.testing.linearizability import Operation
from paxos.testing.workload import Probe, Registers, Workload

SEEDS = int(os.environ.get("PAXOS_SEEDS", "300"))
FIRST = int(os.environ.get("PAXOS_FIRST_SEED", "0"))
# The checked build is many times slower.
CHECKED = bool(os.environ.get("PAXOS_DEBUG"))


# ---- campaigns ----


def test_campaign() -> None:
    """Lives of whole clusters (``PAXOS_SEEDS``, ``PAXOS_FIRST_SEED``); ``paxos sim`` plays more."""
    seeds = 15 if CHECKED else SEEDS
    plan = Plan(nodes=0)
    total = Outcome()
    for seed in range(FIRST, FIRST + seeds):
        outcome = run(plan, seed)
        assert outcome.violation is None, f"paxos sim --seeds {seed} --nodes mixed: {outcome.violation}"
        total.add(outcome)
    # Did anything happen at all?
    assert total.seconds > 29 * seeds
    assert total.chosen > 300 * seeds
    assert total.elections > 5 * seeds
    assert total.operations["answered"] > 200 * seeds
    if seeds >= 100:
        assert set(total.faults) == set(KINDS)
        assert min(total.faults.values()) > seeds // 5
        assert all(total.operations[name] for name in ("unknown", "refused", "of bursts"))
        assert all(
            total.world[name]
            for name in ("torn", "dropped", "lost", "duplicated", "corrupted", "late", "refused", "silenced")
        )


def test_lives_of_logs() -> None:
    seeds = 20 if CHECKED else 600
    happened: Counter[str] = Counter()
    for seed in range(seeds):
        outcome = logs.run(seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        happened += outcome.happened
    assert all(
        happened[what] > seeds // 5
        for what in (
            "started",
            "killed",
            "power lost",
            "ended in start",
            "recycled",
            "flipped",
            "damage found",
            "read back",
        )
    )


# ---- a seed fixes everything ----

PRINT_HASHES = """
import sys
from paxos.testing.campaign import Plan, run
for seed in (3, 4):
    outcome = run(Plan(nodes=0, seconds=8), seed)
    print(f"{outcome.hash:016x}", outcome.events, outcome.chosen, sorted(outcome.faults.items()))
"""


def test_a_seed_replays_exactly_under_any_hash_seed() -> None:
    seen = set()
    for hash_seed in ("0", "1", "4242"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
        child = subprocess.run(
            [sys.executable, "-c", PRINT_HASHES], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(child.stdout)
    (printed,) = seen
    one, other = printed.splitlines()
    assert one != other


def test_a_trace_is_the_same_byte_for_byte() -> None:
    from paxos.testing.timeline import events

    def trace() -> list[object]:
        kept: list[object] = []
        run(Plan(seconds=3), 5, look=lambda cluster, faults: kept.extend(events(cluster, faults)))
        return kept

    first = trace()
    assert len(first) > 500
    assert first == trace()


def test_schedules_are_of_the_kinds_asked_for() -> None:
    plan = Plan(seconds=60, kinds=GROUPS["disk"])
    kinds = {fault.kind for seed in range(20) for fault in schedule_of(plan, seed)}
    assert kinds == set(GROUPS["disk"])
    assert schedule_of(Plan(kinds=()), 1) == []
    quiet = run(Plan(kinds=(), seconds=5), 1)
    assert quiet.violation is None
    assert quiet.faults == {}
    assert quiet.operations["unknown"] == 0  # (small queues may refuse a burst all the same)
    assert quiet.operations["answered"] + quiet.operations["read"] > 50


# ---- named schedules ----


@pytest.fixture
def make_registers(request: pytest.FixtureRequest) -> object:
    def make(seed: int, nodes: int = 3, **options: object) -> Cluster:
        cluster = Cluster(lambda node, before: Registers(), nodes=nodes, seed=seed, **options)
        request.addfinalizer(cluster.close)
        return cluster

    return make


def test_a_round_trip_longer_than_the_resend_time_still_elects_a_master(make_registers) -> None:  # type: ignore[no-untyped-def]
    """Prepare is sent again every 100 ms; answers that take 140 to 280 ms must count nevertheless."""
    cluster = make_registers(5)
    cluster.world.network(delay=(70 * MS, 140 * MS))
    assert cluster.run_until(lambda: cluster.master() is not None, 60)
    call = Call(cluster.replicas[0], b"set:k:v:", 20)
    assert cluster.run_until(call.done, 20)
    assert call.error is None


def test_a_node_that_reaches_a_majority_but_not_the_master_gets_its_value_chosen(make_registers) -> None:  # type: ignore[no-untyped-def]
    """Rule 6, a partial partition: the third node hears both. With nothing to propose the cut-off node disturbs nobody."""
    cluster = make_registers(6)
    master = master_of(cluster)
    cut = cluster.replicas[master.id % 3]
    cluster.run(1)
    cluster.cut([master], [cut])
    ballots = cluster.world.ballots
    cluster.run(5)
    assert cluster.world.ballots == ballots
    assert cluster.master() is master
    call = Call(cut, b"set:k:mine:", 8)
    assert cluster.run_until(call.done, 8)
    assert call.error is None
    # And the other way round: now the first master is the one that is cut off from the master, once it has been told.
    assert cluster.run_until(lambda: master.status()["role"] != "master", 2)
    call = Call(master, b"set:k:mine,too:", 8)
    assert cluster.run_until(call.done, 8)
    assert call.error is None


def test_a_minority_may_be_dead(make_registers) -> None:  # type: ignore[no-untyped-def]
    cluster = make_registers(7, 5)
    master = master_of(cluster)
    cluster.crash(master)
    cluster.crash(cluster.replicas[master.id % 5], power=True)
    assert cluster.run_until(lambda: cluster.master() is not None, 3)
    call = Call(next(replica for replica in cluster.replicas if replica.up), b"set:k:on we go:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None


def test_all_nodes_lose_power_at_once_and_nothing_that_was_answered_is_lost(make_registers) -> None:  # type: ignore[no-untyped-def]
    cluster = make_registers(8)
    master_of(cluster)
    answered = []
    for turn in range(30):
        calls = [Call(replica, b"set:k%d:%d:" % (replica.id, turn)) for replica in cluster.replicas]
        cluster.run((turn * 37 % 400 + 20) / 1000)
        answered += [call.result for call in calls if call.result is not None]
        for replica in cluster.replicas:
            cluster.crash(replica, power=True)
        for replica in cluster.replicas:
            assert replica.start()
    assert len(answered) > 20
    assert cluster.run_until(cluster.level, 20)
    applied = [result for _, results in cluster.history for result in results]
    assert all(result in applied for result in answered)


def test_a_disk_that_hangs_costs_its_node_the_mastership_and_the_cluster_nothing(make_registers) -> None:  # type: ignore[no-untyped-def]
    cluster = make_registers(9)
    master = master_of(cluster)
    cluster.world.disk(master.index, hang=20 * SECOND)
    others = [replica for replica in cluster.replicas if replica is not master]
    Call(master, b"set:k:stuck:")
    assert cluster.run_until(lambda: any(replica.status()["role"] == "master" for replica in others), 5)
    call = Call(others[0], b"set:k:goes on:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None


def test_a_stuck_python_side_costs_the_mastership_only_beyond_its_limit(make_registers) -> None:  # type: ignore[no-untyped-def]
    """Row B14: below stuck_limit (10 s) nothing happens, above it the master makes room."""
    cluster = make_registers(10)
    master = master_of(cluster)
    cluster.run(1)
    ballots = cluster.world.ballots
    cluster.world.pause_python(master.index, True)
    cluster.run(9)
    assert cluster.world.ballots == ballots
    assert master.status()["role"] == "master"
    cluster.run(5)
    assert master.status()["role"] != "master"
    call = Call(cluster.replicas[master.id % 3], b"set:k:v:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None


def test_a_follower_whose_state_machine_is_ahead_stops_when_its_own_proposal_is_chosen() -> None:
    """Rule 16. Node 3 was given a state of another cluster: it claims 40 instances that nobody has chosen. What it proposes now
    stands in one of them, which is proof."""

    def machine(node: int, before: Registers | None) -> Registers:
        registers = Registers()
        if node == 3:
            registers.instance = 40
        return registers

    cluster = Cluster(machine, seed=5)
    try:
        assert master_of(cluster).id != 3, "as a master it would have noticed by itself"
        cluster.run(2)
        Call(cluster.replicas[2], b"set:k:v:")
        with pytest.raises(Violation, match=r"node 3 stopped applying: .*has applied instance 40"):
            cluster.run(10)
    finally:
        cluster.close()


# ---- what was found ----


def test_erasing_a_torn_tail_may_complete_it() -> None:
    """Found by lives of logs. The write that ends a segment is torn: its records are there, its padding is what the recycled file
    held. Recovery gave the next segment back, and was erasing when the power went: only the padding was zeroed. Now the
    write was whole, and the segment it leads to was missing: damage, and a node that nobody could start."""
    from random import Random

    from paxos._segments import LogStore
    from paxos.errors import DamagedLog, StorageError

    torn_twice = 0
    for seed in range(40 if CHECKED else 400):
        dice = Random(seed)
        disk = MemoryDisk(seed * 7919 + 1)
        log = LogStore(disk.folder(), 1, segment_size=65536)
        number = 0
        while log.position[0] < 8:
            number += 1
            log.append(6, 0, number, dice.randbytes(dice.randrange(3500)))
            if dice.random() < 0.5:
                log.flush()
            if log.counters()["segments"] > 2:
                log.recycle(log.position[0] - log.counters()["segments"] + 1)
        while log.position[1] < 65536 - 2 * 4096:
            number += 1
            log.append(6, 0, number, dice.randbytes(100))
            log.flush()
        log.append(6, 0, number + 1, dice.randbytes(300))
        disk.die(3)  # header, name, directory are there: it dies in the write that ends the segment
        with pytest.raises(StorageError):
            log.append(6, 0, number + 2, bytes(40000))
        log.close()
        disk.ended(True)
        disk.die(6 if seed % 2 else 5)
        try:
            LogStore(disk.folder(), 1, segment_size=65536).close()
        except DamagedLog:
            raise
        except StorageError:
            torn_twice += 1
        disk.ended(True)
        LogStore(disk.folder(), 1, segment_size=65536).close()
    assert torn_twice > 10


def test_a_spare_whose_sync_failed_is_not_taken_for_whole() -> None:
    """Found by lives of logs. A spare's zeros did not reach the disk (the sync failed), and the process ended before it could
    remove the file. The next start saw it whole in the page cache, synced it in vain, and made it a segment; the power went,
    and the segment was too short: damage."""
    from paxos._segments import LogStore
    from paxos.errors import StorageError

    disk = MemoryDisk(3)
    log = LogStore(disk.folder(), 1, segment_size=65536)
    disk.fail()
    disk.die(2)  # made, written, and with the failing sync it is over: nothing is removed any more
    assert not log.make_spare()
    log.close()
    disk.ended(False)
    log = LogStore(disk.folder(), 1, segment_size=65536)
    for number in range(1, 30):
        log.append(6, 0, number, bytes(3000))
        log.flush()
    assert log.position[0] > 1
    log.close()
    disk.ended(True)
    log = LogStore(disk.folder(), 1, segment_size=65536)
    assert [instance for _, kind, _, instance, _ in log.replay if kind == 6] == list(range(1, 30))
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.flush()


# ---- the judges judge ----


def test_replicas_that_differ_are_named_with_the_instance(make_registers) -> None:  # type: ignore[no-untyped-def]
    class Private(Registers):
        """Answers by something of its own."""

        def __init__(self, node: int) -> None:
            super().__init__()
            self.node = node

        def apply_batch(self, instance, values):  # type: ignore[no-untyped-def]
            results = super().apply_batch(instance, values)
            return [self.node] if instance == 7 and values else results

    cluster = Cluster(lambda node, before: Private(node), seed=1)
    master_of(cluster)

    def propose() -> None:
        for number in range(20):
            cluster.run_until(Call(cluster.replicas[0], b"set:k:%d:" % number).done, 30)

    try:
        with pytest.raises(Diverged, match="Private: replicas differ at instance 7"):
            propose()
    finally:
        cluster.close()


def test_an_order_of_the_log_is_judged_like_any() -> None:
    w, r = Operation(1, b"k", 0, 10, ("set", b"1"), None), Operation(2, b"k", 20, 30, ("get",), b"1")
    assert check_order([(w, b"w"), (r, b"r")], [b"w", b"r"]) is None
    assert "the answer is None" in str(check_order([(w, b"w"), (r, b"r")], [b"r", b"w"]))
    late = Operation(2, b"k", 20, 30, ("set", b"2"), None)
    assert "ended before" in str(check_order([(w, b"w"), (late, b"l")], [b"l", b"w"]))
    assert "never applied" in str(check_order([(w, b"w")], []))


def test_what_is_acknowledged_without_a_majority_is_found(make_registers) -> None:  # type: ignore[no-untyped-def]
    cluster = make_registers(2)
    master_of(cluster)
    cluster.world.acknowledged(cluster.world.chosen + 5)
    with pytest.raises(Violation, match="nobody knows chosen"):
        cluster.run(1)


def test_a_schedule_is_shrunk_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from paxos.testing import campaign

    def judge(plan: Plan, seed: int, schedule: object = None, look: object = None) -> Outcome:
        faults = list(schedule or [])  # type: ignore[call-overload]
        wrong = {f.number for f in faults} >= {3, 11}
        return Outcome(seed, violation="both are in it" if wrong else None, schedule=faults)

    monkeypatch.setattr(campaign, "run", judge)
    full = [Fault(n * SECOND, "kill", 1, MS, n) for n in range(20)]
    best = shrink(Plan(), Outcome(1, violation="both are in it", schedule=full))
    assert [fault.number for fault in best.schedule] == [3, 11]


def test_liveness_is_judged_for_every_node(make_registers) -> None:  # type: ignore[no-untyped-def]
    """A node that nobody answers is noticed although the others go on."""
    from random import Random

    cluster = make_registers(4)
    master_of(cluster)
    workload = Workload(cluster, Random(1), clients=1, keys=1, rate=10)
    probes = [Probe(workload, replica) for replica in cluster.replicas]
    cluster.cut([cluster.replicas[2]], cluster.replicas[:2])
    assert not cluster.run_until(lambda: all(probe.answered for probe in probes), 5)
    cluster.world.heal()
    assert cluster.run_until(lambda: all(probe.answered for probe in probes), 10)


def test_faults_restart_what_they_end(make_registers) -> None:  # type: ignore[no-untyped-def]
    cluster = make_registers(12)
    faults = Faults(cluster, lambda replica: None)
    cluster.on_ended = faults.ended
    faults.play(
        [
            Fault(SECOND, "kill-all", 1, 100 * MS),
            Fault(3 * SECOND, "wipe", 2, MS),
            Fault(3 * SECOND + 20 * MS, "flip", 3, MS),
        ]
    )
    cluster.run(2)
    assert all(replica.up and replica.starts == 2 for replica in cluster.replicas)
    cluster.run(8)
    assert faults.hits == {"kill-all": 1, "wipe": 1}, "a minority may be lost at a time, and no more"
    assert cluster.run_until(lambda: cluster.level() and cluster.world.votes(1), 20), "a wiped node gets well"
    faults.play([Fault(SECOND, "flip", 3, MS)])
    cluster.run(2)
    assert faults.hits["flip"] == 1, "and then another may be lost"


def test_worlds_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="1 to 31 nodes"):
        World(0, 1)
    world = World(2, 1)
    with pytest.raises(IndexError, match="no node with index 2"):
        world.crash(2)
    with pytest.raises(ValueError, match="never goes back"):
        world.clock(0, jump=-1)
    world.close()
    with pytest.raises(ConfigError, match="window"):
        Cluster(lambda node, before: Registers(), window=0)


def test_no_checkpoint_while_one_state_machine_has_more_than_the_others(request: pytest.FixtureRequest) -> None:
    """Found by seed 3002876. A durable state machine came up with more than the log knew to be chosen, beside one that came up
    empty; a checkpoint was made of both, and who restored from it gave the first one an instance that was in it already."""

    def machines(node: int, before: dict[int, Registers] | None) -> dict[int, Registers]:
        return {0: before[0] if before else Registers(), 1: Registers()}

    cluster = Cluster(machines, seed=11)
    request.addfinalizer(cluster.close)
    node = next(r for r in cluster.replicas if r is not master_of(cluster))
    for number in range(20):  # one by one: each write of the log says what was chosen before
        assert cluster.run_until(Call(master_of(cluster), b"add:k:%d:" % number).done, 10)
    assert cluster.run_until(cluster.level, 10)
    for replica in cluster.replicas:
        cluster.crash(replica)
    # Alone it cannot know that the last ones are chosen.
    assert node.start()
    durable = node.machine[0].instance  # type: ignore[index]
    assert cluster.run_until(lambda: node.group.applied >= 0 and node.group.keeper.applied()[1] is not None, 10)  # type: ignore[union-attr]
    assert node.group is not None
    assert node.group.applied < durable

    def checkpoint() -> tuple[object, BaseException | None]:
        told: list[tuple[object, BaseException | None]] = []
        assert node.group is not None
        node.group.keeper.make(lambda manifest, error: told.append((manifest, error)))
        assert cluster.run_until(lambda: bool(told), 10)
        return told[0]

    manifest, error = checkpoint()
    assert manifest is None
    assert isinstance(error, StorageError)
    assert "no common state yet" in str(error)
    for replica in cluster.replicas:
        if replica is not node:
            replica.start()
    assert cluster.run_until(lambda: cluster.level() and node.group is not None and node.group.applied >= durable, 30)
    manifest, error = checkpoint()
    assert error is None
    assert manifest is not None


def test_a_start_is_sealed_when_nothing_follows(make_registers) -> None:  # type: ignore[no-untyped-def]
    """Its IDENTITY is the last write of the log then: damaged, it would look like a torn tail, and its boot number be given
    again. Found by seeds 3006795, 3014379, 3015963 and 3016470."""
    cluster = make_registers(13)
    assert cluster.run_until(Call(master_of(cluster), b"add:k:1:").done, 10)

    def sealed() -> bool:
        return all(cluster.world.sealed(replica.index) for replica in cluster.replicas)

    assert cluster.run_until(lambda: cluster.level() and sealed(), 10)
    node = next(replica for replica in cluster.replicas if replica is not master_of(cluster))
    cluster.cut([node], [replica for replica in cluster.replicas if replica is not node])
    cluster.crash(node)
    assert node.start()
    assert not sealed()
    assert cluster.run_until(sealed, 10)


def test_values_in_memory_are_let_go_of_where_a_checkpoint_is_put_behind_them(make_registers) -> None:  # type: ignore[no-untyped-def]
    """A node waits for a checkpoint, and keeps what is chosen meanwhile for its state machine; then it is away until only a
    checkpoint of much later helps. The next value was taken for one that follows those in memory, and the process crashed. (A
    mutant found it.)"""
    cluster = make_registers(14)

    def write(values: int) -> None:
        for number in range(values):
            assert cluster.run_until(Call(master_of(cluster), b"add:k:%d:" % number).done, 10)

    def checkpoint(replica: Replica) -> int:
        told: list[Manifest] = []
        assert replica.group is not None
        replica.group.keeper.make(lambda manifest, error: told.append(manifest))
        assert cluster.run_until(lambda: bool(told), 10)
        assert cluster.run_until(lambda: replica.status()["first_kept"] == told[0].instance, 10)
        return told[0].instance

    write(5)
    assert cluster.run_until(cluster.level, 10)
    node = next(replica for replica in cluster.replicas if replica is not master_of(cluster))
    others = [replica for replica in cluster.replicas if replica is not node]
    node.group.keeper._store.remove(checkpoint(node))
    cluster.crash(node)
    for other in others:
        other.group.keeper.able = False
    assert node.start()
    write(5)
    assert cluster.run_until(lambda: node.status()["chosen"] == master_of(cluster).status()["chosen"], 10)
    assert node.group.hollow
    cluster.cut([node], others)
    write(20)
    assert cluster.run_until(lambda: cluster.level(others), 10)
    for other in others:
        other.group.keeper.able = True
        assert checkpoint(other) > node.status()["chosen"]
    cluster.world.heal()
    assert cluster.run_until(lambda: node.group.keeper.installed == 1, 30)
    write(5)
    assert cluster.run_until(cluster.level, 10)
