"""Three real processes, real sockets, real files: killed, paused, cut off, and brought back."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
import redis

from cluster import Load, MakeCluster, wait_until

pytestmark = pytest.mark.processes

ROUNDS = int(os.environ.get("PAXOS_KILL_ROUNDS", "3"))


def test_any_node_takes_writes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.wait_ready()
    for node in cluster:
        with contextlib.closing(node.client()) as client:
            assert client.set(f"key{node.id}", node.id)
    for node in cluster:
        with contextlib.closing(node.client()) as client:
            assert client.mget("key1", "key2", "key3") == [b"1", b"2", b"3"]
    infos = cluster.wait_level()
    assert {fields["paxos_node_id"] for fields in infos.values()} == {"1", "2", "3"}
    assert len({fields["paxos_checksum"] for fields in infos.values()}) == 1
    for node in cluster:
        assert node.stop() == 0, node.last_words()


@pytest.mark.parametrize("victim", ["follower", "master"])
def test_one_killed_writes_go_on_and_it_gets_level(make_cluster: MakeCluster, victim: str) -> None:
    cluster = make_cluster()
    master = cluster.wait_ready()
    load = Load(cluster)
    load.start()
    load.wait(100)
    node = master if victim == "master" else next(other for other in cluster if other is not master)
    node.kill()
    load.wait(200)
    survivor = cluster.wait_ready()
    assert survivor is not node
    node.start()
    load.wait(100)
    load.stop()
    cluster.wait_level()
    load.check(node)
    assert load.acknowledged >= 400


def test_all_killed_rounds(make_cluster: MakeCluster) -> None:
    """All three killed at once, at any moment: every acknowledged write is there (PAXOS_KILL_ROUNDS rounds)."""
    cluster = make_cluster()
    cluster.wait_ready()
    load = Load(cluster)
    for _ in range(ROUNDS):
        load.start()
        load.wait(random.randint(1, 200))
        cluster.kill_all()
        load.stop()
        cluster.start()
        cluster.wait_ready()
        load.check()
        cluster.wait_level()
    assert load.acknowledged >= ROUNDS


@pytest.mark.parametrize("victim", ["follower", "master"])
def test_one_paused(make_cluster: MakeCluster, victim: str) -> None:
    cluster = make_cluster()
    master = cluster.wait_ready()
    node = master if victim == "master" else next(other for other in cluster if other is not master)
    others = [other for other in cluster if other is not node]
    node.pause()
    try:
        # Which node leads is for the cluster to find out; both that are left must be able to write.
        for other in others:
            wait_until(lambda other=other: cluster.writes(other), f"a write through node {other.id}")
        with contextlib.closing(others[0].client()) as client:
            assert client.incrby("counter", 41) == 41
    finally:
        node.resume()
    cluster.wait_ready()
    with contextlib.closing(node.client()) as client:
        assert client.incr("counter") == 42
    cluster.wait_level()


def test_no_quorum_says_so_and_goes_on_when_it_is_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    master = cluster.wait_ready()
    others = [node for node in cluster if node is not master]
    for node in others:
        node.kill()
    with contextlib.closing(master.client(timeout=60.0)) as client:
        with pytest.raises(redis.ResponseError, match=r"^(UNKNOWN|UNAVAILABLE) ") as first:
            client.set("a", "1")
        # By now it knows that it has no majority; a second write ends as well, one way or the other.
        with pytest.raises(redis.ResponseError, match=r"^(UNKNOWN|UNAVAILABLE) "):
            client.set("b", "1")
        assert client.ping(), "a node without a quorum still answers"
        for node in others:
            node.start()
        cluster.wait_ready()
        assert client.set("c", "1")
        assert client.get("c") == b"1"
        if str(first.value).startswith("UNAVAILABLE"):
            assert client.get("a") is None, "refused for certain, and executed all the same"
    cluster.wait_level()


def test_a_node_restarts_alone(make_cluster: MakeCluster) -> None:
    """Stopped in good order, one after the other: writes never need more than two of them."""
    cluster = make_cluster()
    cluster.wait_ready()
    load = Load(cluster)
    load.start()
    for node in cluster:
        load.wait(50)
        assert node.stop() == 0, node.last_words()
        load.wait(50)
        node.start()
        cluster.wait_ready()
    load.stop()
    cluster.wait_level()
    for node in cluster:
        load.check(node)


def test_what_is_read_costs_no_log_write_and_is_what_was_acknowledged(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    cluster.wait_ready()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(node.client())) for node in cluster]
        for turn in range(30):
            assert clients[turn % 3].set("k", turn)
            assert [client.get("k") for client in clients] == [b"%d" % turn] * 3
        before = cluster.wait_level()
        for client in clients:
            for _ in range(100):
                assert client.mget("k", "no") == [b"29", None]
        after = cluster.wait_level()
    for node in after:
        assert int(after[node]["paxos_reads"]) - int(before[node]["paxos_reads"]) == 100
        assert after[node]["paxos_applied"] == before[node]["paxos_applied"]
        # The last write is sealed once.
        assert int(after[node]["paxos_log_writes"]) - int(before[node]["paxos_log_writes"]) <= 2
    rounds = sum(int(fields["paxos_read_rounds"]) for fields in after.values())
    assert rounds >= 90, "each of those reads was alone"


def test_who_cannot_reach_a_majority_reads_nothing_unless_stale_will_do(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(start=False, arguments=["--timeout", "1"])
    cluster.start()
    master = cluster.wait_ready()
    with contextlib.closing(master.client()) as client:
        assert client.set("k", "v")
        others = [node for node in cluster if node is not master]
        cluster.wait_level()
        for node in others:
            node.kill()
        with pytest.raises(redis.ResponseError, match=r"^UNAVAILABLE no master has confirmed the read"):
            client.get("k")
        others[0].start()
        cluster.wait_ready()
        assert client.get("k") == b"v"
    # The same node again, alone, as one that asks nobody.
    for node in (others[0], master):
        node.kill()
    cluster.arguments += ["--reads", "stale"]
    master.start()
    wait_until(lambda: master.info() is not None, "the node answers")
    with contextlib.closing(master.client()) as client:
        # An acknowledged value that no record behind it calls chosen is not applied by who is alone: any state will do.
        assert client.get("k") in (b"v", None)
        assert client.dbsize() in (0, 1, 2)
