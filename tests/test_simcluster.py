"""SimCluster and its event loop: real nodes in simulated time, and what a test may do with them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket as socketlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import paxos
from paxos.errors import ConfigError, DamagedLog, NodeClosed, NotAvailable, OutcomeUnknown
from paxos.testing import NotEnded, NotSimulated, SimCluster
from paxos.testing.simcluster import schedule_for
from ports import free_ports
from user_machines import Counter, Durable

MakeSimCluster = Callable[..., SimCluster]


# -- the cluster


def test_nodes_are_the_real_ones(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story() -> None:
        assert [type(node) for node in cluster.nodes] == [paxos.Node] * 3
        first = cluster.node(1)
        await first.wait_ready(timeout=1)
        assert await first.propose(b"5") == 5
        assert await cluster.node(2).propose_many([b"1"] * 10) == list(range(6, 16))
        status = first.status()
        assert (status.node_id, status.formed, status.log_mode) == (1, True, status.log_mode)
        master = cluster.master()
        assert master is not None
        assert master.is_master()
        with pytest.raises(paxos.ValueTooLarge):
            await first.propose(bytes(1 << 17))
        await cluster.settle()
        assert [cluster.machine(node).total for node in (1, 2, 3)] == [15] * 3
        assert [value for values in cluster.history for value in values] == [b"5"] + [b"1"] * 10
        assert cluster.values == 11

    cluster.run(story())


def test_crash_and_start(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story() -> None:
        first = cluster.node(1)
        machine = cluster.machine(1)
        assert await first.propose(b"1") == 1
        under_way = first.propose(b"1")
        await cluster.crash(1, power=True)
        with pytest.raises(OutcomeUnknown):
            await under_way
        with pytest.raises(NodeClosed):
            await first.propose(b"1")
        for ask in (cluster.node, cluster.machine):
            with pytest.raises(NotAvailable, match="node 1 is down"):
                ask(1)
        assert len(cluster.nodes) == 2
        await cluster.sleep(20)
        assert len(cluster.nodes) == 2, "it stays down"
        total = await cluster.node(2).propose(b"1", timeout=30)
        again = await cluster.start(1)
        assert again is cluster.node(1) is not first
        assert await cluster.start(1) is again
        await again.wait_ready(timeout=30)
        assert await again.propose(b"1") == total + 1
        assert cluster.machine(1) is not machine, "one in memory is made anew, and replayed"
        await cluster.crash(3)
        await cluster.settle()
        assert len(cluster.nodes) == 3, "settling starts what is down"

    cluster.run(story())


def test_partition_and_heal(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter, nodes=5, seed=4)

    async def story() -> None:
        await cluster.propose(b"1")
        cluster.partition([1, 2], [3, 4, 5])
        with pytest.raises(paxos.PaxosError):
            await cluster.node(1).propose(b"10", timeout=3)
        assert await cluster.node(4).propose(b"1", timeout=30) in (2, 12)
        assert cluster.cluster.world.cuts() == 12
        cluster.heal()
        cluster.partition([1], [2, 3], both=False)
        assert cluster.cluster.world.cuts() == 2
        await cluster.settle()
        assert cluster.cluster.world.cuts() == 0

    cluster.run(story())


def test_closing_a_node_takes_simulated_time(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story() -> None:
        node = cluster.node(2)
        cluster.cluster.world.disk(1, low=50_000_000, high=60_000_000)
        under_way = node.propose(b"1")
        await cluster.sleep(0.01)
        before = cluster.now
        async with node:
            pass
        assert 0 < cluster.now - before < 1
        with pytest.raises(OutcomeUnknown):
            await under_way
        with pytest.raises(NodeClosed):
            await node.wait_ready()
        await node.close()
        await cluster.sleep(5)
        assert len(cluster.nodes) == 2, "who closes a node wants it closed"
        waiting = asyncio.ensure_future((await cluster.start(2)).wait_ready())
        cluster.cluster.world.pause(1, 100_000_000)
        await cluster.node(2).close()
        await asyncio.gather(waiting, return_exceptions=True)

    cluster.run(story())


def test_a_durable_machine_is_kept(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Durable, durable=True)

    async def story() -> None:
        await cluster.propose(b"1")
        await cluster.sleep(0.5)
        machine = cluster.machine(1)
        await cluster.crash(1)
        assert await cluster.node(2).propose(b"1", timeout=30) == 2
        await cluster.start(1)
        await cluster.settle()
        assert cluster.machine(1) is machine
        assert machine.total == 2

    cluster.run(story())

    async def forgets() -> None:
        await other.propose(b"1")
        await other.crash(1)
        await other.start(1)

    other = sim_cluster(Counter, durable=True)
    with pytest.raises(ConfigError, match=r"durable=True: Counter.last_applied\(\) says -1"):
        other.run(forgets())


def test_several_machines(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster({1: Counter, 7: Counter})

    async def story() -> None:
        assert await cluster.propose(b"1", machine=1) == 1
        assert await cluster.node(2).propose(b"5", machine=7) == 5
        await cluster.settle()
        assert (cluster.machine(3, 1).total, cluster.machine(3, 7).total) == (1, 5)

    cluster.run(story())


def test_a_node_gets_well_of_rot(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter, seed=2)

    async def story() -> None:
        for _ in range(30):
            await cluster.propose(b"1")
        assert cluster.cluster.world.flip(2) is not None
        await cluster.crash(3)
        await cluster.start(3)
        assert cluster.cluster.replicas[2].status()["damage"] is not None
        assert await cluster.settle() == [1, 2, 3]
        assert cluster.machine(3).total == 30

    cluster.run(story())


def test_rot_of_a_node_that_is_alone_is_said(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter, seed=2, nodes=1)

    async def story() -> None:
        for _ in range(30):
            await cluster.propose(b"1")
        assert cluster.cluster.world.flip(0) is not None
        await cluster.crash(1)
        with pytest.raises(DamagedLog, match="no other node has the data"):
            await cluster.start(1)

    cluster.run(story())


def test_a_node_whose_disk_was_emptied_gets_everything_again(sim_cluster: MakeSimCluster) -> None:
    whole = [fault for seed in range(50) for fault in schedule_for(seed, 3, 10, ["wipe"])]
    wiped = 0
    for number, fault in enumerate(whole[:8]):
        cluster = sim_cluster(Counter, seed=number, schedule=[replace(fault, at=100_000_000)])

        async def story(cluster: SimCluster) -> list[int]:
            for _ in range(10):
                await cluster.propose(b"1")
            await cluster.sleep(5)
            return await cluster.settle()

        settled = cluster.run(story(cluster))
        assert len(settled) == 3
        assert {cluster.machine(node).total for node in settled} == {10}
        wiped += cluster.faults.hits["wipe"]
    assert wiped == 8


def test_a_closed_cluster_is_let_go_of_at_once() -> None:
    collecting = gc.isenabled()
    gc.disable()
    try:
        cluster = SimCluster(Counter, faults="all", seed=5)

        async def story(cluster: SimCluster) -> None:
            for _ in range(20):
                with contextlib.suppress(paxos.PaxosError):
                    await cluster.propose(b"1")
            cluster.node(1).propose(b"1")
            await cluster.settle()

        cluster.run(story(cluster))
        world = weakref.ref(cluster.cluster.world)
        cluster.close()
        assert cluster.hash == cluster.hash != 0
        del cluster
        assert world() is None
    finally:
        if collecting:
            gc.enable()


# -- the loop


def test_time_is_simulated(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter, limit=100_000)

    async def story() -> None:
        before = cluster.now
        await asyncio.sleep(3600)
        assert cluster.now - before == pytest.approx(3600, abs=0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 5)
        assert cluster.now - before == pytest.approx(3605, abs=0.001)
        while cluster.now - before < 3606:  # who polls sees time go by
            for _ in range(1000):
                await asyncio.sleep(0)
            await cluster.sleep(0.1)
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    cluster.run(story())


def test_polling_without_a_pause_ends(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story() -> None:
        answer = cluster.node(1).propose(b"1")
        while not answer.done():
            await asyncio.sleep(0)
        assert answer.result() == 1

    cluster.run(story())


def test_what_hangs_is_ended_and_named(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)
    cleaned = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(
        NotEnded, match=rf"not ended within 30 simulated seconds; it waits in .*hangs, {re.escape(__file__)}"
    ):
        cluster.run(hangs(), limit=30)

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(NotEnded, match="spins"):
        cluster.run(spins(), limit=0.01)
    cluster.close()
    assert cleaned == [True]
    with pytest.raises(RuntimeError, match="has been closed"):
        cluster.run(hangs())


def test_the_real_world_is_refused(sim_cluster: MakeSimCluster, tmp_path: Path) -> None:
    cluster = sim_cluster(Counter)
    (port,) = free_ports(1)

    async def real_node() -> None:
        await paxos.Node.open(tmp_path / "1", node_id=1, cluster={1: f"127.0.0.1:{port}"}, state_machine=Counter)

    async def socket() -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises(NotSimulated, match=r"cluster\.node\(1\)"):
        cluster.run(real_node())
    with socketlib.socket() as there:
        there.setsockopt(socketlib.SOL_SOCKET, socketlib.SO_REUSEADDR, 1)
        there.bind(("127.0.0.1", port))
        there.listen()  # nothing of that node was left behind
    with pytest.raises((NotSimulated, OSError)):
        cluster.run(socket())


def test_errors_in_the_background_fail_the_run(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story(what: Callable[[], object]) -> None:
        async def background() -> None:
            what()

        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        del task
        await asyncio.sleep(1)

    def wrong() -> None:
        raise AssertionError("seen by nobody")

    def refused() -> None:
        raise NotAvailable("the lot of a proposal")

    cluster.run(story(refused))
    with pytest.raises(AssertionError, match="seen by nobody"):
        cluster.run(story(wrong))
