"""What a checkpoint says of the members, in the simulated world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from calls import Call, master_of
from paxos.keeper import CheckpointPolicy
from paxos.manifest import Manifest
from paxos.membership import true_from
from paxos.testing.cluster import Cluster
from paxos.testing.moves import table_of
from paxos.testing.workload import Registers


def machine(node: int, before: Any) -> Registers:
    return before if before is not None else Registers()


def test_a_checkpoint_waits_until_its_table_of_members_is_true() -> None:
    """Else whoever installs it has no vote before it has learned the rest; and those who know the rest may be gone."""
    cluster = Cluster(machine, nodes=3, seed=1)
    try:
        master = master_of(cluster)
        other = next(replica for replica in cluster.replicas if replica is not master)
        for number in range(3):
            call = Call(master, b"set:key:%d:" % number)
            assert cluster.run_until(call.done, 5)
        cluster.run(1.0)
        # Node `other` knows the change, and its state machine lags behind.
        cluster.world.pause_python(other.index, True)
        assert master.handle is not None
        table = table_of(master.handle.membership())
        rows = [replace(row, address=b"elsewhere:%d" % row.node) for row in table.rows]
        master.handle.change(table.change(rows))
        assert other.handle is not None
        assert cluster.run_until(
            lambda: other.handle is not None and table_of(other.handle.membership()).version == 1, 5
        )
        made: list[Manifest | None] = []
        assert other.group is not None
        keeper = other.group.keeper
        keeper._policy = CheckpointPolicy(budget=1 << 22, instances=1)
        keeper.make(lambda manifest, error: made.append(manifest), here=True)
        assert made == []
        for _ in range(5):
            cluster.run(0.1)
            keeper.look()  # one is due all the time; who waits is not joined by others without end
        assert len(keeper._waiting) == 1
        keeper.make(lambda manifest, error: None)
        assert keeper._put_off is True, "how it was to be made is not forgotten"
        assert true_from(other.handle.membership()) > other.group.applied + 1
        cluster.world.pause_python(other.index, False)
        assert cluster.run_until(lambda: bool(made), 10)
        assert made[0] is not None
        assert true_from(made[0].membership) <= made[0].instance
    finally:
        cluster.close()
