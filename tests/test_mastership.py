"""Who is the master, handing it over, priorities and leases, on real engines."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

import paxos
from cluster import wait_until
from fleets import SMALL, Kept
from nodes import DEADLINE, Journal, book, cluster, master_of, until


async def known(nodes: dict[int, paxos.Node], version: int) -> paxos.Master:
    """The master, when all nodes know him under that version or a later one, and the same."""
    await until(
        lambda: (
            len({n.master() for n in nodes.values()}) == 1
            and (m := next(iter(nodes.values())).master()) is not None
            and m.version >= version
        ),
        f"all nodes know the master of version {version}: {[n.master() for n in nodes.values()]}",
    )
    master = next(iter(nodes.values())).master()
    assert master is not None
    return master


def other(nodes: dict[int, paxos.Node], master: int) -> int:
    return next(i for i in nodes if i != master)


# ---- who it is ----


def test_all_nodes_know_the_same_master_and_each_change_counts_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, **SMALL) as nodes:
            first = await known(nodes, 1)
            assert nodes[first.node_id].is_master()
            seen = [first]
            for _ in range(4):
                target = other(nodes, seen[-1].node_id)
                done = await nodes[seen[-1].node_id].transfer(target, timeout=DEADLINE)
                assert done.node_id == target
                now = await known(nodes, done.version)
                assert now == done
                assert [node.is_master() for node in nodes.values()].count(True) == 1
                seen.append(now)
            # (Where a hand-over was disturbed there may have been one master more in between.)
            assert [m.version for m in seen] == sorted({m.version for m in seen})
            assert seen[-1].version == first.version + 4

    asyncio.run(main())


def test_version_and_lease_outlive_a_restart_of_all(tmp_path: Path) -> None:
    async def main() -> None:
        addresses = book()
        async with cluster(tmp_path, addresses=addresses, **SMALL) as nodes:
            master = await known(nodes, 1)
            await nodes[master.node_id].set_lease(0.2, timeout=DEADLINE)
            await nodes[master.node_id].transfer(other(nodes, master.node_id), timeout=DEADLINE)
            before = await known(nodes, master.version + 1)
            # On the disks of all: what a node has not written it need not know.
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
        async with cluster(tmp_path, addresses=addresses, **SMALL) as nodes:
            after = await known(nodes, before.version + 1)
            assert after.version > before.version
            await until(lambda: nodes[after.node_id]._engine.lease() >= 0, "the lease is held again")  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_node_that_starts_again_knows_the_master_that_was_there_all_the_time(tmp_path: Path) -> None:
    async def main() -> None:
        addresses = book()
        async with cluster(tmp_path, addresses=addresses, **SMALL) as nodes:
            master = await known(nodes, 1)
            node = nodes[master.node_id]
            await node.set_lease(0.2, timeout=DEADLINE)
            follower = other(nodes, master.node_id)
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
            await nodes.pop(follower).close()
            nodes[follower] = await paxos.Node.open(
                tmp_path / str(follower),
                node_id=follower,
                cluster=addresses,
                state_machine=Journal,
                **SMALL,  # type: ignore[arg-type]
            )
            assert await known(nodes, master.version) == master

    asyncio.run(main())


def test_a_node_that_fetched_a_checkpoint_knows_what_the_deleted_log_would_have_told(tmp_path: Path) -> None:
    async def main() -> None:
        addresses = book()
        small = {
            "segment_bytes": 1 << 20,
            "max_value": 1 << 16,
            "batch_bytes": 1 << 16,
            "log_budget": 4 << 20,
            "log_hold": 0,
        }
        async with cluster(tmp_path, machine=Kept, addresses=addresses, mirror=False, **small) as nodes:
            master = await known(nodes, 1)
            behind = other(nodes, master.node_id)
            await nodes.pop(behind).close()
            third = other(nodes, master.node_id)
            await nodes[master.node_id].transfer(third, timeout=DEADLINE)
            await until(nodes[third].is_master, "node 3 knows it, too")
            master = await nodes[third].transfer(master.node_id, timeout=DEADLINE)
            for turn in range(5):
                await nodes[third].propose(b"%d" % turn, timeout=DEADLINE)
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "both are level")
            for node in nodes.values():
                await node.checkpoint()
            await until(
                lambda: all(n.status().first_kept > 5 for n in nodes.values()), "the log's beginning is given up"
            )
            nodes[behind] = await paxos.Node.open(
                tmp_path / str(behind),
                node_id=behind,
                cluster=addresses,
                state_machine=Kept,
                mirror=False,
                **small,  # type: ignore[arg-type]
            )
            await until(lambda: nodes[behind].status().installed, "a checkpoint was installed")
            assert await known(nodes, master.version) == master

    asyncio.run(main())


# ---- who wants to hear of it ----


def test_changes_are_told_in_order_until_that_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, **SMALL) as nodes:
            first = await known(nodes, 1)
            watcher = nodes[next(i for i in nodes if i not in (first.node_id, other(nodes, first.node_id)))]
            heard: list[paxos.Master | None] = []

            def broken(master: paxos.Master | None) -> None:
                raise RuntimeError("a bug of the user's")

            watcher.on_master_change(broken)
            stop = watcher.on_master_change(heard.append)
            second = await nodes[first.node_id].transfer(other(nodes, first.node_id), timeout=DEADLINE)
            await known(nodes, second.version)
            assert heard[-1] == second
            assert [m.version for m in heard if m is not None] == sorted(m.version for m in heard if m is not None)
            stop()
            stop()
            count = len(heard)
            third = await nodes[second.node_id].transfer(first.node_id, timeout=DEADLINE)
            await known(nodes, third.version)
            assert len(heard) == count

    asyncio.run(main())


def test_the_iterator_tells_the_master_now_and_later_ones_and_ends_with_the_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, **SMALL) as nodes:
            first = await known(nodes, 1)
            watcher = nodes[first.node_id]
            heard: list[paxos.Master | None] = []

            async def listen() -> None:
                async for master in watcher.masters():
                    heard.append(master)

            task = asyncio.create_task(listen())
            await until(lambda: heard, "the master of now is told")
            assert heard == [first]
            second = await watcher.transfer(other(nodes, first.node_id), timeout=DEADLINE)
            await until(lambda: heard[-1] == second, "the next one is told")
            assert not task.done()
            await watcher.close()
            await asyncio.wait_for(task, DEADLINE)
            # Nobody is left behind who iterates over a closed node.
            assert [master async for master in watcher.masters()] == []

    asyncio.run(main())


# ---- handing over ----


def test_no_proposal_fails_while_the_mastership_goes_around(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Kept, **SMALL) as nodes:
            results: list[int] = []
            going = True

            async def client(node: paxos.Node, name: bytes) -> None:
                number = 0
                while going:
                    number += 1
                    results.append(await node.propose(b"%b%d" % (name, number), timeout=DEADLINE))

            clients = [asyncio.create_task(client(node, b"%d." % i)) for i, node in nodes.items() for _ in range(3)]
            master = await known(nodes, 1)
            first = master.version
            for turn in range(6):
                count = len(results)
                await until(lambda: len(results) > count + 20, "values are chosen")  # noqa: B023
                node = nodes[master.node_id]
                if turn % 2:
                    master = await node.resign(timeout=DEADLINE)
                else:
                    master = await node.transfer(other(nodes, master.node_id), timeout=DEADLINE)
                await known(nodes, master.version)
            going = False
            await asyncio.gather(*clients)  # raises what any of them ended with
            assert sorted(results) == list(range(len(results))), "each value has a place of its own"
            assert master.version >= first + 6

    asyncio.run(main())


def test_a_node_that_closes_hands_over(tmp_path: Path) -> None:
    async def main() -> None:
        # Elections by timeout would take 30 s.
        async with cluster(tmp_path, election_timeout=30, **SMALL) as nodes:
            master = await known(nodes, 1)
            await nodes.pop(master.node_id).close()
            after = await known(nodes, master.version + 1)
            assert after.node_id != master.node_id

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_master_hands_over_to_a_higher_priority(tmp_path: Path) -> None:
    async def main() -> None:
        addresses = book()
        async with cluster(tmp_path, 2, addresses=addresses, election_timeout=0.2, **SMALL) as nodes:
            await known(nodes, 1)
            await nodes.pop(2).close()
            nodes[2] = await paxos.Node.open(
                tmp_path / "2",
                node_id=2,
                cluster=addresses,
                state_machine=Journal,
                priority=5,
                election_timeout=0.2,
                **SMALL,  # type: ignore[arg-type]
            )
            await until(lambda: all(n.master() is not None and n.master().node_id == 2 for n in nodes.values()),  # type: ignore[union-attr]
                        "node 2 leads")  # fmt: skip
            # It stays so.
            with pytest.raises(paxos.NotAvailable, match="not the master"):
                await nodes[1].transfer(2)

    asyncio.run(main())


def test_priority_0_never_leads(tmp_path: Path) -> None:
    async def main() -> None:
        addresses = book(2)
        nodes: dict[int, paxos.Node] = {}
        for i, priority in ((1, 0), (2, 1)):
            nodes[i] = await paxos.Node.open(
                tmp_path / str(i),
                node_id=i,
                cluster=addresses,
                state_machine=Journal,
                priority=priority,
                **SMALL,  # type: ignore[arg-type]
            )
        try:
            assert (await known(nodes, 1)).node_id == 2
            with pytest.raises(paxos.NotAvailable, match="node 1 has not taken over within"):
                await nodes[2].transfer(1, timeout=0.5)
            with pytest.raises(paxos.NotAvailable, match="no other node has taken over"):
                await nodes[2].resign(timeout=0.5)
            assert await nodes[2].propose(b"goes on", timeout=DEADLINE) == 0
        finally:
            for node in nodes.values():
                await node.close()

    asyncio.run(main())


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, **SMALL) as nodes:
            master = await known(nodes, 1)
            node, follower = nodes[master.node_id], nodes[other(nodes, master.node_id)]
            for call in (follower.transfer(master.node_id), follower.resign(), follower.set_lease(1)):
                with pytest.raises(paxos.NotAvailable, match=f"not the master; node {master.node_id} is"):
                    await call
            for target in (master.node_id, 9):
                with pytest.raises(paxos.ConfigError, match=f"node_id={target}: the mastership can be handed over to"):
                    await node.transfer(target)
            for seconds in (-1, 61, float("nan"), "1", True):
                with pytest.raises(paxos.ConfigError, match="a lease of"):
                    await node.set_lease(seconds)  # type: ignore[arg-type]
            down = other(nodes, master.node_id)
            await nodes[down].close()
            with pytest.raises(paxos.NotAvailable, match=f"node {down} has not taken over within 0.5 s"):
                await node.transfer(down, timeout=0.5)
            assert await node.propose(b"all is as it was", timeout=DEADLINE) == 0
            assert node.master() == master
            await node.close()
            with pytest.raises(paxos.NodeClosed):
                await node.transfer(down)

    asyncio.run(main())


# ---- leases ----


def test_reads_under_a_lease_cost_no_message_and_fall_back_elsewhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Kept, **SMALL) as nodes:
            master = await known(nodes, 1)
            node = nodes[master.node_id]
            await node.propose(b"a", timeout=DEADLINE)
            assert await node.read(None, consistency="lease", timeout=DEADLINE) == 1, (
                "there are none: it was confirmed by a round"
            )
            assert node.status().read_rounds == 1
            await node.set_lease(10, timeout=DEADLINE)
            await until(lambda: node._engine.lease() >= 0, "the lease is held")  # type: ignore[attr-defined]
            for count in range(2, 50):
                await node.propose(b"a", timeout=DEADLINE)
                read = node.read(None, consistency="lease")
                assert read.done(), "answered at once"
                assert await read == count
            assert await node.read_many([None, None], consistency="lease") == [count, count]
            assert node.status().read_rounds == 1
            # Anywhere else it is confirmed as ever.
            follower = nodes[other(nodes, master.node_id)]
            assert await follower.read(None, consistency="lease", timeout=DEADLINE) == count
            assert await node.read(None, timeout=DEADLINE) == count
            await until(lambda: node.status().read_rounds == 3, "two rounds more")
            await node.set_lease(0, timeout=DEADLINE)
            assert await node.read(None, consistency="lease", timeout=DEADLINE) == count
            await until(lambda: node.status().read_rounds == 4, "one round more")

    asyncio.run(main())


def test_a_hand_over_gives_the_lease_up_and_waits_for_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Kept, **SMALL) as nodes:
            master = await known(nodes, 1)
            await nodes[master.node_id].set_lease(60, timeout=DEADLINE)  # longer than this test may take
            for _ in range(6):
                node = nodes[master.node_id]
                await until(lambda: node._engine.lease() >= 0, "the lease is held")  # type: ignore[attr-defined]  # noqa: B023
                master = await node.transfer(other(nodes, master.node_id), timeout=DEADLINE)
                assert node._engine.lease() == -1  # type: ignore[attr-defined]
                await known(nodes, master.version)
            await nodes[master.node_id].set_lease(0, timeout=DEADLINE)

    asyncio.run(main())


# ---- for threads ----


def test_threads_have_the_same(tmp_path: Path) -> None:
    addresses = book()
    nodes = {
        i: paxos.SyncNode.open(tmp_path / str(i), node_id=i, cluster=addresses, state_machine=Kept, **SMALL)  # type: ignore[arg-type]
        for i in addresses
    }
    try:
        for node in nodes.values():
            node.wait_ready(DEADLINE)
        first = next(m for n in nodes.values() if (m := n.master()) is not None)
        node, target = nodes[first.node_id], next(i for i in nodes if i != first.node_id)
        heard: list[paxos.Master | None] = []
        changed = threading.Event()

        def call(master: paxos.Master | None) -> None:
            heard.append(master)
            if master is not None and master.node_id == target:
                changed.set()

        stop = nodes[target].on_master_change(call)
        node.set_lease(0.2, timeout=DEADLINE)
        assert node.propose(b"a", timeout=DEADLINE) == 0
        assert node.read(None, consistency="lease", timeout=DEADLINE) == 1
        with pytest.raises(paxos.NotAvailable, match="not the master"):
            nodes[target].transfer(first.node_id)
        with pytest.raises(paxos.ConfigError):
            node.transfer(9)
        second = node.transfer(target, timeout=DEADLINE)
        assert second == paxos.Master(target, second.version)
        assert second.version > first.version
        assert changed.wait(DEADLINE)
        assert heard[-1] == second
        stop()
        third = nodes[target].resign(timeout=DEADLINE)
        assert third.node_id != target
        assert third.version > second.version
        wait_until(nodes[third.node_id].is_master, "it knows it, too")
        nodes[target].close()
        with pytest.raises(paxos.NotAvailable, match=f"node {target} has not taken over within"):
            nodes[third.node_id].transfer(target, timeout=0.2)
    finally:
        for node in nodes.values():
            node.close()
    with pytest.raises(paxos.NodeClosed):
        nodes[target].resign()


def test_the_master_of_the_asyncio_cluster_is_the_one_that_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, **SMALL) as nodes:
            assert master_of(nodes) is nodes[1]
            assert await known(nodes, 1) == paxos.Master(1, 1)
            with pytest.raises(paxos.NotAvailable, match="no other node has taken over"):
                await nodes[1].resign(timeout=0.1)

    asyncio.run(main())
