"""Power loss of real processes: all are killed, and of their disks only what was synced is kept (design, S7).

A kill alone cannot show a missing sync, since the page cache survives it. ``shim`` takes away what was not durable.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import shim
from cluster import Load, MakeCluster

pytestmark = pytest.mark.processes

ROUNDS = int(os.environ.get("PAXOS_POWER_ROUNDS", "3"))


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "fdatasync"])
def test_power_loss_rounds(make_cluster: MakeCluster, shim_library: Path, direct: bool) -> None:
    """Every acknowledged write is there, whether unsynced writes vanish, or reach the disk in part."""
    cluster = make_cluster(library=shim_library, direct=direct)
    cluster.wait_ready()
    load = Load(cluster)
    records = 0
    for number in range(ROUNDS):
        load.start()
        load.wait(random.randint(1, 150))
        cluster.kill_all()
        load.stop()
        seed = None if number % 2 == 0 else random.randrange(2**32)
        records += sum(loss.records for loss in cluster.power_loss(seed))
        cluster.start()
        cluster.wait_ready()
        try:
            load.check()
        except AssertionError as error:
            raise AssertionError(f"round {number}, seed {seed}: {error}") from None
        cluster.wait_level()
    assert records > 0, "the shim saw no write at all: nothing was tested"


def test_one_node_loses_power_while_the_others_go_on(make_cluster: MakeCluster, shim_library: Path) -> None:
    cluster = make_cluster(library=shim_library)
    master = cluster.wait_ready()
    load = Load(cluster)
    load.start()
    load.wait(50)
    master.kill()
    shim.power_loss(master.data, master.state)
    load.wait(50)
    master.start()
    cluster.wait_ready()
    load.stop()
    cluster.wait_level()
    load.check(master)


def test_a_disk_that_lies_loses_acknowledged_writes(make_cluster: MakeCluster, shim_library: Path) -> None:
    """The counter-proof: with syncs that keep nothing, the same check must fail."""
    cluster = make_cluster(library=shim_library, lie=True)
    cluster.wait_ready()
    load = Load(cluster)
    load.start()
    load.wait(50)
    cluster.kill_all()
    load.stop()
    cluster.power_loss()
    cluster.start()
    cluster.wait_ready()
    with pytest.raises(AssertionError, match=r"^lost: "):
        load.check()
