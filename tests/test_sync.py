"""The same API for threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import paxos
from nodes import DEADLINE, Journal, book

SMALL = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


def test_threads_propose_at_once_and_every_value_is_applied_once(tmp_path: Path) -> None:
    made: list[Journal] = []

    def make() -> Journal:
        made.append(Journal())
        return made[-1]

    addresses = book()
    nodes = [
        paxos.SyncNode.open(tmp_path / str(i), node_id=i, cluster=addresses, state_machine=make, **SMALL)
        for i in addresses
    ]
    try:
        for node in nodes:
            node.wait_ready(DEADLINE)
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda i: nodes[i % 3].propose(b"%d" % i, timeout=DEADLINE), range(300)))
        assert sorted(results) == list(range(300)), "each value has a place of its own"
        assert nodes[0].propose_many([b"a", b"b"], timeout=DEADLINE) == [300, 301]
        assert sum(node.is_master() for node in nodes) == 1
    finally:
        for node in nodes:
            node.close()
    assert sorted(made[0].values) == sorted([*(b"%d" % i for i in range(300)), b"a", b"b"])


class Register(Journal):
    def read(self, query: bytes) -> bool:
        return query in self.values


def test_threads_read_what_threads_wrote(tmp_path: Path) -> None:
    addresses = book()
    nodes = [
        paxos.SyncNode.open(tmp_path / str(i), node_id=i, cluster=addresses, state_machine=Register, **SMALL)
        for i in addresses
    ]

    def write_and_read(i: int) -> list[bool]:
        nodes[i % 3].propose(b"%d" % i, timeout=DEADLINE)
        reader = nodes[(i + 1) % 3]
        return [reader.read(b"%d" % i, timeout=DEADLINE), *reader.read_many([b"%d" % i, b"x"], timeout=DEADLINE)]

    try:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(write_and_read, range(150))) == [[True, True, False]] * 150
        assert nodes[1].read(b"x", consistency="stale") is False
        with pytest.raises(paxos.ConfigError):
            nodes[1].read(b"x", consistency="now")  # type: ignore[arg-type]
    finally:
        for node in nodes:
            node.close()
    with pytest.raises(paxos.NodeClosed):
        nodes[1].read(b"x")


def test_a_read_without_others_ends_at_its_time_or_with_the_node(tmp_path: Path) -> None:
    with paxos.SyncNode.open(tmp_path / "1", node_id=1, cluster=book(3), state_machine=Register, **SMALL) as node:
        with pytest.raises(paxos.NotAvailable):
            node.read(b"x", timeout=0.05)
        assert node.read_many([b"x"], consistency="stale") == [False]
        begun = threading.Event()

        def wait() -> None:
            begun.set()
            with pytest.raises(paxos.NodeClosed):
                node.read(b"x", timeout=DEADLINE)

        thread = threading.Thread(target=wait)
        thread.start()
        assert begun.wait(DEADLINE)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_close_ends_what_waits(tmp_path: Path) -> None:
    with paxos.SyncNode.open(tmp_path / "1", node_id=1, cluster=book(3), state_machine=Journal, **SMALL) as node:
        with pytest.raises(paxos.NotAvailable):
            node.wait_ready(0.05)
        waiting = node.submit(b"x", timeout=DEADLINE)
        started = threading.Event()

        def wait() -> None:
            started.set()
            with pytest.raises(paxos.NodeClosed):
                node.wait_ready(DEADLINE)

        thread = threading.Thread(target=wait)
        thread.start()
        assert started.wait(DEADLINE)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    with pytest.raises(paxos.OutcomeUnknown):
        waiting.result(DEADLINE)
    with pytest.raises(paxos.NodeClosed):
        node.propose(b"x")
    node.close()
