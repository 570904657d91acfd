"""Networks that are cut in part: somebody reaches a majority, so the cluster makes progress, and the mastership comes to rest.

The first three are those of OmniPaxos (EuroSys 2023, section 2). Every node proposes all the time, and the network stays as it
is. All times are simulated, so they are the same in every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from paxos.errors import PaxosError
from paxos.testing.cluster import MS, SECOND, Cluster, Replica
from paxos.testing.workload import Registers

ELECTION_TIMEOUT = 300 * MS  # the default
Cut = Callable[[Cluster, Replica, list[Replica]], None]


class Call:
    """One proposal, begun when it was made."""

    def __init__(self, run: Run, replica: Replica) -> None:
        self.run = run
        self.replica = replica
        self.settled = False

    def done(self) -> bool:
        return self.settled

    def set_result(self, result: object, /) -> None:
        self.settled = True
        self.run.answered.append((self.run.cluster.now, self.replica.id))

    def set_exception(self, error: BaseException, /) -> None:
        assert isinstance(error, PaxosError)
        self.settled = True


class Run:
    """A cluster with a master, at each node of which something is proposed every 20 ms."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.cluster = cluster = Cluster(lambda node, before: Registers(), nodes=nodes, seed=seed)
        assert cluster.run_until(lambda: all(r.group is not None and r.group.settled for r in cluster.replicas), 20)
        master = cluster.master()
        assert master is not None
        self.master = master
        self.others = [replica for replica in cluster.replicas if replica is not master]
        self.answered: list[tuple[int, int]] = []
        self.number = 0
        self.propose()
        cluster.run(1.0)

    def propose(self) -> None:
        for replica in self.cluster.replicas:
            self.number += 1
            call = Call(self, replica)
            try:
                replica.submit(call, b"set:k1:%d:" % self.number, 2.0)
            except PaxosError as error:
                call.set_exception(error)
        self.cluster.world.call_at(self.cluster.now + 20 * MS, self.propose)

    def elections(self) -> int:
        return sum(int(replica.status()["elections"]) for replica in self.cluster.replicas)


def quorum_loss(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """Everybody reaches one node, and nobody else."""
    everybody = [master, *others[1:]]
    cluster.cut(everybody, everybody)


def constrained(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """As before, and the master is gone altogether."""
    quorum_loss(cluster, master, others)
    cluster.cut([master], others)


def chained(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """Each reaches its neighbours in a row only; the master stands at the end of it."""
    row = [master, *others]
    for i, replica in enumerate(row):
        cluster.cut([replica], row[i + 2 :])


def master_is_not_heard(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """Links to a majority work in one direction only: the master hears, and is not heard."""
    cluster.cut([master], others[: 1 + len(others) // 2], both=False)


def master_does_not_hear(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """... or is heard, and does not hear."""
    cluster.cut(others[: 1 + len(others) // 2], [master], both=False)


def one_link_out(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """One node does not hear the master."""
    cluster.cut([master], [others[0]], both=False)


def one_link_in(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """One node is not heard by the master."""
    cluster.cut([others[0]], [master], both=False)


def one_link(cluster: Cluster, master: Replica, others: list[Replica]) -> None:
    """... in neither direction. All the rest hear everybody."""
    cluster.cut([master], [others[0]])


CUTS = [
    quorum_loss,
    constrained,
    chained,
    master_is_not_heard,
    master_does_not_hear,
    one_link_out,
    one_link_in,
    one_link,
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: str(cut.__name__))
def test_progress_within_four_election_timeouts_and_then_peace(cut: Cut, nodes: int, seed: int) -> None:
    run = Run(nodes, seed)
    cluster = run.cluster
    try:
        begun = cluster.now
        cut(cluster, run.master, run.others)
        cluster.run(5.0)
        elections = run.elections()
        cluster.run(7.0)
        first = next(at for at, _ in run.answered if at > begun + MS)
        assert first - begun <= 4 * ELECTION_TIMEOUT
        assert run.elections() == elections, "the mastership does not come to rest"
        late = [at for at, _ in run.answered if at > begun + 5 * SECOND]
        assert max(b - a for a, b in pairwise(late)) <= ELECTION_TIMEOUT
    finally:
        cluster.close()


@pytest.mark.parametrize("lease", [0, 2 * SECOND])
def test_with_one_link_gone_everybody_is_served_by_another_master(lease: int) -> None:
    """Rule 6: of five nodes one reaches a majority and not the master, who holds a lease, perhaps."""
    run = Run(5, 1)
    cluster = run.cluster
    try:
        assert run.master.handle is not None
        run.master.handle.set_lease(lease)
        cluster.run(1.0)
        one_link(cluster, run.master, run.others)
        cluster.run(8.0)
        elections = run.elections()
        begun = cluster.now
        cluster.run(4.0)
        served = Counter(node for at, node in run.answered if at > begun)
        assert min(served[replica.id] for replica in cluster.replicas) >= 190, "of two hundred at each node"
        assert run.elections() == elections
    finally:
        cluster.close()


@pytest.mark.parametrize("cut", [quorum_loss, chained], ids=lambda cut: str(cut.__name__))
def test_the_mastership_goes_to_who_is_heard_by_all(cut: Cut) -> None:
    """Of three nodes in a row the one in the middle serves everybody: the master hands over to it, and no ballot is raised
    against the master again and again."""
    run = Run(3, 1)
    cluster = run.cluster
    try:
        before = run.elections()
        cut(cluster, run.master, run.others)
        cluster.run(5.0)
        served = Counter(node for at, node in run.answered if at > cluster.now - 2 * SECOND)
        assert run.elections() == before + 1
        middle = cluster.master()
        assert middle is not None
        assert middle is not run.master
        assert min(served[replica.id] for replica in cluster.replicas) >= 90, "of a hundred at each node"
    finally:
        cluster.close()
