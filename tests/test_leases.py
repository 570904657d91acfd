"""Leases in simulated lives: that they are met, that the judges look, and a cluster that is idle for long."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from calls import Call, master_of
from paxos.testing import leases
from paxos.testing.campaign import Plan, run, schedule_of
from paxos.testing.cluster import MS, SECOND, Cluster, Replica, Violation
from paxos.testing.faults import KINDS, Nobody, draw
from paxos.testing.leases import DRIFT, Leases, idle, lease_of
from paxos.testing.workload import Registers


def leased(cluster: Cluster, seconds: float = 2.0) -> None:
    """The master holds a lease."""
    master = master_of(cluster)
    assert master.group is not None
    master.group.set_lease(seconds, Nobody())
    assert cluster.run_until(lambda: master.handle is not None and master.handle.lease() >= 0, 5)


def test_a_thousandth_of_a_million_idle_seconds() -> None:
    found = idle(1000)
    assert found["masters"] > 3, "leases have changed hands"
    assert found["events with a lease held"] > found["events"] // 2
    assert all(found[kind] for kind in ("changes", "pauses", "cuts", "kills", "sieges", "late cuts", "transfers")), (
        found
    )
    assert idle(50) == idle(50), "it follows from its seed"


def test_clocks_outside_the_bound_are_found_out() -> None:
    """The judge looks: what it says never happens can happen."""

    def far() -> None:
        for seed in range(20):
            idle(1000, seed=seed, drift=100_000)

    with pytest.raises(Violation, match="two nodes hold a lease at one moment"):
        far()


def test_a_third_of_all_lives_has_leases_whose_clocks_are_within_the_bound_and_do_not_jump() -> None:
    lives = {seed: lease for seed in range(400) if (lease := lease_of(seed)) is not None}
    assert 100 < len(lives) < 180
    drifts = [ppm for lease in lives.values() for ppm in lease.drifts(5)]
    assert max(drifts) == DRIFT == -min(drifts)
    kinds = Counter(fault.kind for seed in lives for fault in schedule_of(Plan(nodes=5), seed))
    assert "jump" not in kinds
    assert set(kinds) == set(KINDS) - {"jump"}
    assert any(
        fault.kind == "jump" for seed in range(400) if seed not in lives for fault in schedule_of(Plan(nodes=5), seed)
    )


def test_lives_with_leases_read_under_them() -> None:
    seed = next(seed for seed in range(7_000_000, 7_000_100) if lease_of(seed) is not None)
    total: Counter[str] = Counter()
    for number in range(seed, seed + 12):
        outcome = run(Plan(seconds=5), number)
        assert outcome.violation is None, (number, outcome.violation)
        total.update(outcome.operations)
        total["leased"] += outcome.world["leased"]
        total["transfer"] += outcome.faults["transfer"]
    assert total["lengths of leases chosen"]
    assert total["leased"]
    assert total["transfer"]


def test_without_the_kind_transfer_a_schedule_is_what_it_was() -> None:
    for seed in range(50):
        old = draw(random.Random(seed), 3, 30 * SECOND, [kind for kind in KINDS if kind != "transfer"], 300 * MS)
        new = draw(random.Random(seed), 3, 30 * SECOND, KINDS, 300 * MS)
        assert [fault for fault in new if fault.kind != "transfer"] == old
        assert new == sorted(new, key=lambda fault: fault.at)


def test_a_read_under_a_lease_asks_nobody_and_falls_back_where_there_is_none() -> None:
    cluster = Cluster(lambda node, before: Registers(), seed=1)
    try:
        leased(cluster)
        master = master_of(cluster)
        write = Call(master, b"set:k:1:")
        assert cluster.run_until(write.done, 5)
        rounds = master.status()["read_rounds"]

        class Read:
            result: object = None

            def done(self) -> bool:
                return self.result is not None

            def set_result(self, result: object, /) -> None:
                self.result = result

            def set_exception(self, error: BaseException, /) -> None:
                raise error

        for _ in range(20):
            read = Read()
            master.read(read, b"k", consistency="lease")
            assert read.done(), "at once"
            assert read.result == (write.result[0], b"1")  # type: ignore[index]
            cluster.run(0.05)
        assert master.status()["read_rounds"] == rounds
        # Cut off, it answers as long as it is master, and no longer than the lease lasts; its reads then wait for the next one.
        others = [replica for replica in cluster.replicas if replica is not master]
        cluster.cut([master], others)
        cluster.run(0.5)
        read = Read()
        master.read(read, b"k", consistency="lease")
        assert read.done()
        cluster.run(0.7)
        assert master.handle is not None
        assert master.handle.lease() == -1

        def leader() -> Replica | None:
            return next((o for o in others if o.group and o.group.settled and o.group.master_id == o.id), None)

        assert cluster.run_until(lambda: leader() is not None, 5)
        second = Call(leader() or master, b"set:k:2:")
        assert cluster.run_until(second.done, 5)
        read = Read()
        master.read(read, b"k", consistency="lease", timeout=20.0)
        cluster.run(1.0)
        assert not read.done()
        cluster.world.heal()
        assert cluster.run_until(read.done, 10)
        assert read.result[1] == b"2"  # type: ignore[index]
    finally:
        cluster.close()


def test_a_command_says_what_has_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert leases.main(["20", "3"]) == 0
    assert capsys.readouterr().out.startswith("20 idle seconds in ")


def test_the_first_length_is_set_as_soon_as_there_is_a_master() -> None:
    cluster = Cluster(lambda node, before: Registers(), seed=2)
    try:
        lease = Leases(random.Random(0))
        lease.begin(cluster, 3.0)
        cluster.run(3.0)
        assert lease.chosen
        assert master_of(cluster).status()["lease_ns"] in [int(length * SECOND) for length in lease.lengths]
    finally:
        cluster.close()
