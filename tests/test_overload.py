"""More than can be done: what would wait too long is refused at once, and the rest is done as fast as ever. (Simulated times.)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import paxos
from paxos.testing.cluster import MS, SECOND, Cluster, Replica
from paxos.testing.workload import Registers

MAX_WAIT = 200 * MS


class Load:
    """What was proposed at the master, and what came of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        master = cluster.master()
        assert master is not None
        self.master: Replica = master
        self.number = 0
        self.waits: list[int] = []
        self.refused: list[float] = []
        self.again = False
        self.cut_off = False

    def propose(self) -> None:
        self.number += 1
        try:
            self.master.submit(Call(self), b"set:k1:%d:" % self.number, 60.0)
        except paxos.Overloaded as error:
            self.refused.append(error.expected_wait or 0.0)

    def at_rate(self, rate: float, seconds: float) -> None:
        """So many a second, whatever becomes of them."""
        end = self.cluster.now + int(seconds * SECOND)
        due = 0.0

        def step() -> None:
            nonlocal due
            due += rate / 1000
            while due >= 1:
                due -= 1
                self.propose()
            if self.cluster.now < end:
                self.cluster.world.call_at(self.cluster.now + MS, step)

        step()
        self.cluster.run(seconds)


class Call:
    """One proposal."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.begun = load.cluster.now
        self.settled = False

    def done(self) -> bool:
        return self.settled

    def set_result(self, result: object, /) -> None:
        self.settled = True
        self.load.waits.append(self.load.cluster.now - self.begun)
        if self.load.again:
            self.load.propose()

    def set_exception(self, error: BaseException, /) -> None:
        self.settled = True
        assert self.load.cut_off, f"what was taken must be done: {error!r}"
        assert isinstance(error, paxos.OutcomeUnknown)


@pytest.fixture
def load() -> Iterator[Load]:
    """Three nodes whose disks take 10 ms for a write; ten values fit an instance, one instance is in flight."""
    cluster = Cluster(lambda node, before: Registers(), seed=1, window=1, batch_values=10, max_wait_ns=MAX_WAIT)
    try:
        assert cluster.run_until(lambda: cluster.master() is not None, 20)
        for replica in cluster.replicas:
            cluster.world.disk(replica.index, low=9 * MS, high=11 * MS)
        yield Load(cluster)
    finally:
        cluster.close()


def peak(load: Load) -> float:
    """Values a second where there are always as many under way as one max_wait can do."""
    load.again = True
    for _ in range(100):
        load.propose()
    load.cluster.run(1.0)
    before = len(load.waits)
    load.cluster.run(4.0)
    load.again = False
    found = (len(load.waits) - before) / 4.0
    load.cluster.run(2.0)
    assert not load.refused, "these wait for less than max_wait"
    load.waits.clear()
    return found


def cut_off(load: Load) -> tuple[float, int]:
    """The peak, and how many wait when as much a second has come for a while to a master that reaches nobody."""
    rate = peak(load)
    load.cluster.cut([load.master], [replica for replica in load.cluster.replicas if replica is not load.master])
    load.cut_off = True
    load.at_rate(rate, 3.0)
    return rate, int(load.master.status()["pending_chunks"])


@pytest.mark.parametrize("times", [2, 10])
def test_what_would_wait_too_long_is_refused_and_the_rest_is_done_as_fast_as_ever(load: Load, times: int) -> None:
    rate = peak(load)
    load.at_rate(rate * times, 6.0)
    done = len(load.waits)
    assert done / 6.0 >= 0.8 * rate
    assert len(load.refused) >= (times - 1) * 0.8 * rate * 6.0
    assert min(load.refused) > MAX_WAIT / 1e9
    assert max(load.refused) < 10 * MAX_WAIT / 1e9
    load.cluster.run(2.0)
    assert sorted(load.waits)[int(len(load.waits) * 0.99)] <= 4 * MAX_WAIT


def test_it_adapts_to_a_disk_that_becomes_slower(load: Load) -> None:
    rate = peak(load)
    for replica in load.cluster.replicas:
        load.cluster.world.disk(replica.index, low=39 * MS, high=41 * MS)
    load.at_rate(rate, 5.0)  # four times what it can do now
    load.waits.clear()
    load.refused.clear()
    load.at_rate(rate, 5.0)
    assert len(load.waits) / 5.0 >= 0.8 * rate / 4
    assert load.refused
    assert sorted(load.waits)[int(len(load.waits) * 0.99)] <= 4 * MAX_WAIT


def test_a_large_value_says_nothing_of_small_ones(load: Load) -> None:
    """By what was done of bytes so far, it would take for ever; by values, no time at all."""
    peak(load)
    for replica in load.cluster.replicas:
        load.cluster.world.disk(replica.index, low=900 * MS, high=1000 * MS)
    load.master.submit(Call(load), b"set:k1:large:" + b"." * 60_000, 60.0)
    load.cluster.run(0.3)
    assert not load.waits, "it is under way, for longer than a quarter of max_wait"
    load.propose()
    assert not load.refused


def test_a_burst_behind_a_calm_is_taken(load: Load) -> None:
    """What was done in the calm shows nothing of what could have been."""
    rate = peak(load)
    load.at_rate(10, 3.0)
    for _ in range(int(rate * 2 * MAX_WAIT / 1e9)):
        load.propose()
    assert not load.refused


def test_while_nothing_is_done_at_all_so_much_is_taken_as_could_be_done_in_time(load: Load) -> None:
    """Nobody knows how long there will be no master: who waits is not refused for it, and they do not become more and more."""
    rate, taken = cut_off(load)
    assert 0.2 * rate * MAX_WAIT / 1e9 <= taken <= 2 * rate * MAX_WAIT / 1e9
    load.cluster.world.heal()
    load.cluster.run(5.0)
    assert int(load.master.status()["pending_chunks"]) == 0


@pytest.mark.parametrize("many", [False, True])
def test_while_nothing_is_done_one_may_find_out_whether_that_is_so_still(load: Load, many: bool) -> None:
    _, taken = cut_off(load)
    load.cluster.run(2 * MAX_WAIT / 1e9)  # nobody comes

    def comes() -> bool:
        group = load.master.group
        assert group is not None
        value = b"set:k1:asks:"
        try:
            if many:
                group.submit_many(Call(load), [value], 60.0, 0)
            else:
                group.submit(Call(load), value, 60.0, 0)
        except paxos.Overloaded:
            return False
        return True

    assert [comes(), comes()] == [True, False]
    assert int(load.master.status()["pending_chunks"]) == taken + 1
