"""Linearizable, by the judge, while real nodes are killed, stand still and are cut off from one another.

Clients work all the time and record what they saw. Whatever happens meanwhile, one order must explain it all; as long as
a majority can talk, work must go on; and when the faults are over, all nodes must be level.

``PAXOS_FAULT_ROUNDS=50`` makes more of each; ``PAXOS_FAULT_SEED=123`` draws the same faults and commands again (the
timing of three processes is their own). The tests with a network of their own need root and ``ip``; where that is missing
they are left out, and pytest's first lines say so.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from cluster import Cluster, MakeCluster, Node, connect
from kv_fakes import FakeNode
from netns import Network
from paxos import NotAvailable, OutcomeUnknown
from paxos.kv import KvServer
from paxos.testing.linearizability import Register, check
from ports import free_port
from recorded import OPTIONS, Recorder, Workload

ROUNDS = int(os.environ.get("PAXOS_FAULT_ROUNDS", "1"))
FAULTS = 3  # of one kind in a round
SEED = int(os.environ.get("PAXOS_FAULT_SEED", "0")) or random.randrange(1, 1 << 32)


class Trial:
    """A cluster under a workload. ``choose`` draws the faults."""

    def __init__(self, cluster: Cluster) -> None:
        print(f"the same faults again: PAXOS_FAULT_SEED={SEED} PAXOS_FAULT_ROUNDS={ROUNDS}")
        self.cluster = cluster
        self.choose = random.Random(SEED)
        self.workload = Workload(list(cluster), SEED)

    def __enter__(self) -> Trial:
        self.cluster.wait_ready()
        self.workload.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self.workload.end()  # what went wrong is said already; a client that hangs because of it would hide that
            return
        self.workload.stop()
        self.cluster.wait_ready()
        self.workload.read_all()
        for node in self.cluster:
            node.check_alive()
        infos = self.cluster.wait_level()
        assert len(infos) == len(self.cluster.nodes)
        self.workload.judge()
        print(self.workload)

    def victims(self) -> list[Node]:
        """One node, or two, or all; every other time the master is among them."""
        master = self.cluster.wait_ready()
        others = [node for node in self.cluster if node is not master]
        self.choose.shuffle(others)
        count = self.choose.choice([1, 1, 1, 2, 3])
        return [master, *others][:count] if self.choose.random() < 0.5 else [*others, master][:count]

    def go_on(self, victims: list[Node], what: str) -> None:
        """While ``victims`` are out: work done by the rest, if they are a majority; attempts, if they are not."""
        names = ", ".join(str(node.id) for node in victims)
        if 2 * len(victims) < len(self.cluster.nodes):
            self.workload.wait(self.choose.randint(50, 200), f"{what}: node {names}")
        else:
            self.workload.wait(self.choose.randint(5, 30), f"{what}: nodes {names}", tried=True)


@pytest.mark.processes
def test_killed(make_cluster: MakeCluster) -> None:
    with Trial(make_cluster(arguments=OPTIONS)) as trial:
        for _ in range(FAULTS * ROUNDS):
            trial.workload.wait(trial.choose.randint(10, 200), "before the next are killed")
            victims = trial.victims()
            for node in victims:
                node.kill()
            trial.go_on(victims, "killed")
            for node in victims:
                node.start()


@pytest.mark.processes
def test_paused(make_cluster: MakeCluster) -> None:
    """Who stands still does not know that the others went on: it must not answer from what it knew."""
    with Trial(make_cluster(arguments=OPTIONS)) as trial:
        for _ in range(FAULTS * ROUNDS):
            trial.workload.wait(trial.choose.randint(10, 200), "before the next stand still")
            victims = trial.victims()
            for node in victims:
                node.pause()
            try:
                trial.go_on(victims, "standing still")
            finally:
                for node in victims:
                    node.resume()


# -- networks that break


def isolated(network: Network, one: int, other: int, third: int) -> str:
    network.split([one], [other, third])
    return f"node {one} is cut off"


def all_apart(network: Network, one: int, other: int, third: int) -> str:
    network.split([one], [other], [third])
    return "all are cut off"


def mute(network: Network, one: int, other: int, third: int) -> str:
    network.cut(one, other)
    network.cut(one, third)
    return f"node {one} is not heard"


def deaf(network: Network, one: int, other: int, third: int) -> str:
    network.cut(other, one)
    network.cut(third, one)
    return f"node {one} hears nothing"


def one_way(network: Network, one: int, other: int, third: int) -> str:
    network.cut(one, other)
    return f"node {one} is not heard by node {other}"


def partial(network: Network, one: int, other: int, third: int) -> str:
    network.split([one], [other])
    return f"nodes {one} and {other} are cut off from each other, both reach node {third}"


Partition = Callable[[Network, int, int, int], str]
PARTITIONS: dict[str, list[Partition]] = {
    "full": [isolated, all_apart],
    "one-way": [mute, deaf, one_way],
    "partial": [partial, partial],
}


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(3) as made:
        yield made


@pytest.mark.processes
@pytest.mark.namespaces
@pytest.mark.parametrize("kind", PARTITIONS)
def test_partitioned(network: Network, make_cluster: MakeCluster, kind: str) -> None:
    """Clients still reach every node, also the master that the others have given up."""
    cluster = make_cluster(arguments=OPTIONS, hosts=network.hosts, prefixes=network.prefixes)
    with Trial(cluster) as trial:
        hit_the_master = trial.choose.random() < 0.5
        for _ in range(ROUNDS):
            for partition in trial.choose.sample(PARTITIONS[kind], k=len(PARTITIONS[kind])):
                trial.workload.wait(trial.choose.randint(10, 100), "before the next partition")
                master = cluster.wait_ready()
                # Whom a partition hits hardest comes first.
                nodes = trial.choose.sample(list(cluster.nodes), k=3)
                if hit_the_master:
                    nodes.remove(master.id)
                    nodes.insert(0, master.id)
                hit_the_master = not hit_the_master
                what = f"{partition(network, *nodes)}, the master was node {master.id}"
                # So much work that the others have to notice and to do something about it.
                if partition is all_apart:
                    trial.workload.wait(trial.choose.randint(5, 30), what, tried=True)
                else:
                    trial.workload.wait(trial.choose.randint(300, 800), what)
                network.heal()


# -- the recording itself


class FakeServer:
    """The service before a node that is a fake, in a thread of its own."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.kv = KvServer(self.node)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> FakeServer:
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.kv.start("127.0.0.1", 0), self.loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.kv.close(grace=0), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def client(self, timeout: float = 30.0) -> redis.Redis:
        return connect(*self.kv.address, timeout)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as made:
        yield made


def test_one_false_reply_in_what_real_clients_recorded_is_found(server: FakeServer) -> None:
    workload = Workload([server, server], SEED, clients=3)
    workload.start()
    workload.wait(400, "a server that does everything right")
    workload.stop()
    workload.read_all()
    assert workload.outcomes.keys() == {"acknowledged"}
    workload.judge()
    reads = [one for one in workload.history if one.action == ("get",) and str(one.key).startswith("register")]
    for falsified in (b"nobody wrote this", next(one.result for one in reads if one.result != reads[-1].result)):
        true, reads[-1].result = reads[-1].result, falsified
        violation = check(workload.history, Register())
        assert violation is not None
        assert str(reads[-1].key) in str(violation)
        assert repr(falsified) in str(violation)
        reads[-1].result = true
    # An acknowledged write that is not there afterwards.
    counts = [one for one in workload.history if one.action == ("incr", 1)]
    assert counts
    workload.history.append(replace(counts[0], call=workload.history[-1].call + 1, end=workload.history[-1].call + 2))
    with pytest.raises(AssertionError, match="is not linearizable"):
        workload.judge()


def test_what_a_client_knows_is_what_is_recorded(server: FakeServer) -> None:
    recorder = Recorder()
    connection = server.client()
    commands = [
        ("register", ("set", b"a"), None),
        ("register", ("get",), b"a"),
        ("register", ("setnx", b"b"), False),
        ("register", ("delete",), True),
        ("register", ("delete",), False),
        ("register", ("setnx", b"c"), True),
        ("list", ("append", b"ab"), 2),
        ("counter", ("get",), None),
        ("counter", ("incr", 1), 1),
        ("counter", ("incr", 3), 4),
        ("counter", ("get",), 4),
    ]
    for key, action, _ in commands:
        assert recorder.perform(1, connection, key, action) == "acknowledged"
    assert [one.result for one in recorder.history] == [result for _, _, result in commands]
    recorder.judge()

    server.node.error = NotAvailable("no master")
    assert recorder.perform(1, connection, "register", ("set", b"refused")) == "UNAVAILABLE"
    assert len(recorder.history) == len(commands)
    server.node.error = OutcomeUnknown("it left this node")
    assert recorder.perform(1, connection, "register", ("set", b"unknown")) == "UNKNOWN"
    server.node.error = None
    server.node.hold = True
    impatient = server.client(timeout=0.05)
    assert recorder.perform(1, impatient, "register", ("set", b"slow")) == "TimeoutError"
    impatient.close()
    assert [(one.action, one.end) for one in recorder.history[len(commands) :]] == [
        (("set", b"unknown"), None),
        (("set", b"slow"), None),
    ]
    server.loop.call_soon_threadsafe(server.node.release)
    assert recorder.perform(1, connection, "register", ("get",)) == "acknowledged"
    recorder.judge()
    with pytest.raises(redis.ResponseError, match="not an integer"):
        recorder.perform(1, connection, "list", ("incr", 1))
    connection.close()


def test_nobody_listens_is_no_operation() -> None:
    class Nobody:
        def client(self, timeout: float = 30.0) -> redis.Redis:
            return connect("127.0.0.1", port, timeout)

    port = free_port()
    workload = Workload([Nobody()], SEED, clients=1)
    workload.start()
    workload.wait(3, "refused connections", tried=True)
    workload.stop()
    assert workload.history == []
    assert workload.outcomes.keys() == {"unreachable"}
