"""A full disk, and one that hangs (mission row B8), in the simulated world. Real ones are in test_full_disk_real.py."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from calls import Call, master_of
from paxos._segments import LogStore
from paxos.completion import Completion
from paxos.errors import DiskFull, OutcomeUnknown, StorageError
from paxos.testing._simdisk import MemoryDisk
from paxos.testing.cluster import SECOND, Cluster, Replica
from paxos.testing.workload import Registers

SIZE = 65536
LARGE = 10000  # three blocks: at the end of a segment there is room for less
ACCEPT = 6


# ---- the log ----


def append_until_full(log: LogStore) -> int:
    """Appends and flushes until there is no room; how many records went in."""
    went_in = 0

    def append_for_ever() -> None:
        nonlocal went_in
        while True:
            log.append(ACCEPT, 0, went_in + 1, bytes(LARGE))
            log.flush()
            went_in += 1

    with pytest.raises(StorageError, match="make room") as caught:
        append_for_ever()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    return went_in


def numbers(log: LogStore) -> list[int]:
    return [instance for _, kind, _, instance, _ in log.replay if kind == ACCEPT]


@pytest.mark.parametrize("direct", [True, False])
def test_a_log_without_room_has_not_failed(direct: bool) -> None:
    """What is pending is written all the same, and it goes on where it stood; nothing is torn or lost over a loss of power."""
    disk = MemoryDisk(1, direct=direct)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    assert log.make_spare()
    assert log.make_spare()
    assert not log.make_spare()
    disk.fill(True)
    first = log.position[0]
    count = append_until_full(log)
    assert log.position[0] == first + 2, "the spares were the reserve"
    assert log.counters()["full_errno"] == errno.ENOSPC
    assert log.counters()["failed_errno"] == 0
    log.append(ACCEPT, 0, count + 1, b"small")  # where a large one found no room a small one may
    with pytest.raises(StorageError):
        log.append(ACCEPT, 0, count + 2, bytes(LARGE))
    assert log.pending
    log.flush()
    assert not log.pending
    disk.fill(False)
    with pytest.raises(StorageError):
        log.append(ACCEPT, 0, count + 2, bytes(LARGE))  # it is known to be full: not tried each time
    assert log.make_spare()
    assert log.counters()["full_errno"] == 0
    log.append(ACCEPT, 0, count + 2, bytes(LARGE))
    log.flush()
    log.close()
    disk.ended(True)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    assert numbers(log) == list(range(1, count + 3))
    log.close()


def test_what_no_room_was_found_for_leaves_no_file() -> None:
    """It must not itself eat the rest of the disk."""
    disk = MemoryDisk(2)
    folder = disk.folder()
    log = LogStore(folder, 1, segment_size=SIZE)
    before = folder.names()
    disk.fill(True, SIZE // 2)
    assert not log.make_spare()
    assert folder.names() == before
    assert log.counters()["full_errno"] == errno.ENOSPC
    disk.fill(True, SIZE)
    assert log.make_spare()
    assert log.counters()["full_errno"] == 0
    assert not log.make_spare()
    assert len(folder.names()) == len(before) + 1
    log.close()


def test_a_segment_that_is_given_back_is_room() -> None:
    disk = MemoryDisk(3)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    assert log.make_spare()
    assert log.make_spare()
    disk.fill(True)
    count = append_until_full(log)
    log.append(ACCEPT, 0, count + 1, b"before the note")  # else there is no room for the note that the log begins later
    log.recycle(1)
    log.append(ACCEPT, 0, count + 2, bytes(LARGE))
    log.flush()
    log.close()


def test_without_room_for_the_note_no_segment_is_given_back() -> None:
    disk = MemoryDisk(4)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    disk.fill(True)
    number = 1
    log.make_spare()
    while log.position[1] != SIZE - 4096:
        log.append(ACCEPT, 0, number, b"x")
        log.flush()
        number += 1
    disk.fill(False)
    assert log.make_spare()
    log.append(ACCEPT, 0, number, b"x")
    log.flush()
    while log.position[1] != SIZE - 4096:
        number += 1
        log.append(ACCEPT, 0, number, b"x")
        log.flush()
    disk.fill(True)
    assert not log.make_spare()
    with pytest.raises(StorageError, match="recycling segment 1"):
        log.recycle(1)
    assert log.counters()["segments"] == 2
    disk.fill(False)
    assert log.make_spare()
    log.recycle(1)
    log.close()
    disk.ended(True)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    assert numbers(log)[-1] == number
    log.close()


def test_a_log_opens_on_a_full_disk() -> None:
    disk = MemoryDisk(5)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    log.append(ACCEPT, 0, 1, b"there")
    log.flush()
    log.close()
    disk.ended(False)
    disk.fill(True)
    log = LogStore(disk.folder(), 1, segment_size=SIZE)
    assert "full" in log.mode
    assert numbers(log) == [1]
    log.append(ACCEPT, 0, 2, b"too")
    log.flush()
    log.close()
    with pytest.raises(StorageError, match="No space left"):
        LogStore(full_from_the_start(), 1, segment_size=SIZE)


def full_from_the_start() -> object:
    disk = MemoryDisk(6)
    disk.fill(True)
    return disk.folder()


# ---- nodes ----

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def make() -> Iterator[MakeCluster]:
    made: list[Cluster] = []

    def cluster(seed: int, nodes: int = 3, **options: object) -> Cluster:
        made.append(Cluster(lambda node, before: Registers(), nodes=nodes, seed=seed, segment_size=1 << 17, max_value=1 << 13,
                            batch_bytes=1 << 13, **options))  # fmt: skip
        return made[-1]

    yield cluster
    for each in made:
        each.close()


def work(cluster: Cluster, at: Replica, until: Callable[[], bool], size: int = 4000, most: int = 400) -> int:
    """Proposes until something is so; how many were answered."""
    answered = 0
    for number in range(most):
        if until():
            return answered
        try:
            call = Call(at, b"set:k:%d:%b" % (number, b"." * size), 2)
        except DiskFull:
            cluster.run(0.05)
            continue
        cluster.run_until(call.done, 3)
        answered += call.error is None
    raise AssertionError(f"not after {most} proposals")


def fill(cluster: Cluster, replica: Replica) -> None:
    """The disk of a node fills up, and it has come to know."""
    cluster.world.disk(replica.index, full=True)
    other = next(each for each in cluster.replicas if each is not replica and each.up)
    work(cluster, other, lambda: replica.status()["disk_full"])


def is_silent(cluster: Cluster, replica: Replica) -> bool:
    """Nothing is logged there any more, though something is at the others."""
    others = [each for each in cluster.replicas if each is not replica and each.up]
    return replica.status()["chosen"] + 5 < max(each.status()["chosen"] for each in others)


def test_a_full_disk_costs_its_node_the_mastership_and_its_proposals_and_nothing_else(
    make: MakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = make(1)
    full = master_of(cluster)
    fill(cluster, full)
    assert full.status()["role"] != "master"
    assert cluster.run_until(lambda: cluster.master() not in (None, full), 5)
    master = cluster.master()
    assert master is not None
    with pytest.raises(DiskFull, match=r"the disk of node\d is full"):
        Call(full, b"set:k:v:")
    # It applies what the others have chosen, and votes: without its vote the third could do nothing.
    third = next(each for each in cluster.replicas if each not in (full, master))
    cluster.crash(third)
    call = Call(master, b"set:k:with the vote of the full one:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None
    assert cluster.run_until(lambda: cluster.level([full, master]), 5)
    assert full.status()["disk_full"]
    assert third.start()
    # The reserve is used up: it is silent, as if its disk hung. The others go on.
    assert work(cluster, master, lambda: is_silent(cluster, full)) > 0
    stuck = full.status()["chosen"]
    cluster.run(30)
    assert full.up
    assert full.status()["chosen"] == stuck
    call = Call(master, b"set:k:go on:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None
    # It serves what it has, all the same, and goes on by itself.
    cluster.world.disk(full.index, full=False)
    assert cluster.run_until(cluster.level, 5)
    assert not full.status()["disk_full"]
    call = Call(full, b"set:k:again:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None
    said = [record.getMessage() for record in caplog.records if "the disk of" in record.getMessage()]
    assert [words.split(": ")[0].partition(" has ")[2].split(" ")[:2] for words in said] == [
        ["no", "room"],
        ["room", "again"],
    ]
    assert sum("does not even vote" in record.getMessage() for record in caplog.records) == 1


def test_a_silent_node_gives_away_what_it_has(make: MakeCluster) -> None:
    cluster = make(2)
    full = master_of(cluster)
    fill(cluster, full)
    assert cluster.run_until(lambda: cluster.master() not in (None, full), 5)
    master = cluster.master()
    assert master is not None
    third = next(each for each in cluster.replicas if each not in (full, master))
    cluster.crash(third)
    with pytest.raises(AssertionError, match="not after"):
        work(cluster, master, lambda: False, most=60)
    assert full.status()["disk_full"]
    # The third hears of what it missed from the master, and can get it from the silent one alone.
    have = full.status()["chosen"]
    cluster.world.picky({27: 1.0})  # LEARNED
    assert third.start()
    assert cluster.run_until(lambda: third.status()["heard_chosen"] >= have, 5)
    assert third.status()["chosen"] < have
    cluster.cut([third], [master])
    cluster.world.picky({})
    assert cluster.run_until(lambda: third.status()["chosen"] >= have, 10)


def test_all_disks_are_full_and_one_gets_room(make: MakeCluster) -> None:
    cluster = make(3)
    master_of(cluster)
    for replica in cluster.replicas:
        cluster.world.disk(replica.index, full=True)
    while not all(each.status()["disk_full"] for each in cluster.replicas):
        for replica in cluster.replicas:
            if not replica.status()["disk_full"]:
                cluster.run_until(Call(replica, b"set:k:v:%b" % (b"." * 4000), 1).done, 2)
    assert cluster.run_until(lambda: cluster.master() is None, 5)
    cluster.run(1)
    ballots = cluster.world.ballots
    cluster.run(20)
    assert cluster.world.ballots == ballots
    cluster.world.disk(1, full=False)
    assert cluster.run_until(lambda: cluster.master() is cluster.replicas[1], 10)
    cluster.world.disk(0, full=False)
    cluster.world.disk(2, full=False)
    assert cluster.run_until(lambda: not any(each.status()["disk_full"] for each in cluster.replicas), 5)
    call = Call(cluster.replicas[0], b"set:k:v:")
    assert cluster.run_until(call.done, 5)
    assert call.error is None


def test_both_reasons_not_to_lead_must_be_gone(make: MakeCluster) -> None:
    cluster = make(4)
    full = master_of(cluster)
    fill(cluster, full)
    assert full.handle is not None
    full.handle.resign(False)
    for other in cluster.replicas:
        if other is not full:
            assert other.handle is not None
            other.handle.resign(False)
    cluster.world.disk(full.index, full=False)
    assert cluster.run_until(lambda: not full.status()["disk_full"], 5)
    ballots = cluster.world.ballots
    cluster.run(5)
    assert cluster.world.ballots == ballots, "Python has not allowed it yet"
    # And the other way round.
    cluster.world.disk(full.index, full=True)
    full.handle.resign(True)
    assert cluster.run_until(lambda: cluster.master() is full, 5)
    work(cluster, full, lambda: full.status()["disk_full"])
    full.handle.resign(False)
    full.handle.resign(True)
    ballots = cluster.world.ballots
    cluster.run(5)
    assert cluster.world.ballots == ballots, "its disk is full still"
    cluster.world.disk(full.index, full=False)
    assert cluster.run_until(lambda: cluster.master() is full, 5)


def test_a_node_starts_on_a_full_disk_as_long_as_its_reserve_lasts(make: MakeCluster) -> None:
    cluster = make(7)  # (what is left of the reserve must not hold a start's records)
    full = master_of(cluster)
    fill(cluster, full)
    for power in (False, True):
        cluster.crash(full, power=power)
        assert full.start()
        assert cluster.run_until(lambda: full.status()["disk_full"], 5)
    others = [each for each in cluster.replicas if each is not full]
    work(cluster, others[0], lambda: is_silent(cluster, full))
    # What waited for room is forgotten, and nobody had been told of it. A start wants to write, too.
    cluster.crash(full, power=True)
    assert not full.start()
    assert "make room" in str(full.error)
    cluster.world.disk(full.index, full=False)
    assert full.start()
    assert cluster.run_until(cluster.level, 10)


def test_a_silent_node_can_be_stopped(make: MakeCluster) -> None:
    cluster = make(6)
    full = master_of(cluster)
    fill(cluster, full)
    other = next(each for each in cluster.replicas if each is not full)
    work(cluster, other, lambda: is_silent(cluster, full))
    assert full.handle is not None
    full.handle.stop()
    assert cluster.run_until(lambda: not full.up, 5)
    cluster.world.disk(full.index, full=False)
    assert full.start()
    assert cluster.run_until(cluster.level, 10)


class Many(Completion):
    def __init__(self) -> None:
        self.outcome: object = None

    def done(self) -> bool:
        return self.outcome is not None

    def set_result(self, result: object, /) -> None:
        self.outcome = result

    def set_exception(self, error: BaseException, /) -> None:
        self.outcome = error


def test_many_values_are_refused_as_one_is(make: MakeCluster) -> None:
    cluster = make(7)
    full = master_of(cluster)
    fill(cluster, full)
    assert full.group is not None
    with pytest.raises(DiskFull):
        full.group.submit_many(Many(), [b"set:k:%d:" % n for n in range(10)], 5, 0)


# ---- a disk that hangs ----


@pytest.mark.parametrize("seed", range(20, 30))
def test_a_master_whose_disk_hung_steps_down_before_it_serves(make: MakeCluster, seed: int) -> None:
    """Its write returns after others have gone on under a higher ballot. Judges look at what it sends then."""
    cluster = make(seed)
    old = master_of(cluster)
    cluster.run(1)
    others = [each for each in cluster.replicas if each is not old]
    ids = {each.id for each in others}
    cluster.world.disk(old.index, hang=8 * SECOND)
    under_way = Call(old, b"set:k:under way:", 60)
    cluster.run(0.2)
    roles: list[str] = []
    late = Call(old, b"set:k:late:", 60, lambda: roles.append(old.status()["role"]))
    assert cluster.run_until(
        lambda: all(each.group and each.group.settled and each.group.master_id in ids for each in others), 3
    )
    call = Call(others[0], b"set:k:goes on:")
    assert cluster.run_until(call.done, 3)
    assert call.error is None
    assert not under_way.done()
    assert cluster.run_until(lambda: under_way.done() and late.done(), 30)
    assert under_way.error is None or isinstance(under_way.error, OutcomeUnknown)
    assert late.error is None, "nothing had become of it: the new master takes it"
    assert roles == ["follower"]
    assert cluster.run_until(cluster.level, 10)
