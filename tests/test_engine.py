"""Three engines in one process, on real sockets and real files: what is submitted is delivered, everywhere the same."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import HOUR, Engines
from paxos._engine import Engine
from paxos.errors import ConfigError, DirectoryInUse, NodeClosed, Overloaded, ValueTooLarge, WrongDirectory

MakeEngines = Callable[..., Engines]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeEngines]:
    made: list[Engines] = []

    def engines(count: int = 3, **options: Any) -> Engines:
        made.append(Engines(tmp_path / f"cluster{len(made)}", count, **options))
        return made[-1]

    yield engines
    for each in made:
        each.stop()


def test_three_nodes_form_and_deliver_the_same(make: MakeEngines) -> None:
    c = make()
    c.start()
    c.wait_master()
    for node in c.running:
        for i in range(20):
            c.propose(node, b"%d of %d" % (i, node), machine=node)
    c.wait_level()
    first = c.chosen(1)
    assert c.chosen(2) == first
    assert c.chosen(3) == first
    assert [instance for instance, _ in first] == list(range(len(first)))
    assert sorted(c.values(1)) == sorted(b"%d of %d" % (i, n) for i in range(20) for n in (1, 2, 3))
    assert all(any(e == (4,) for e in c.events[n]) for n in c.running)
    statuses = [e.status() for e in c.running.values()]
    assert len({s["signature"] for s in statuses}) == 1
    assert len({s["incarnation"] for s in statuses}) == 3
    for s in statuses:
        assert (s["formed"], s["commits"], s["pending_chunks"], s["pending_bytes"]) == (True, 60, 0, 0)
        assert s["peers"] == {n: True for n in c.addresses if n != s["node_id"]}
        assert s["log_writes"] == s["fsyncs"] > 0
        assert sum(s["frames_refused"].values()) == 0


def test_one_node_is_a_cluster_too(make: MakeEngines) -> None:
    c = make(1)
    c.start()
    c.propose(1, b"alone")
    c.stop(1)
    c.start(1)
    c.until(lambda: c.values(1) == [b"alone"])


def test_chunks_of_one_machine_are_merged_into_runs(make: MakeEngines) -> None:
    c = make(1, window=1)
    c.start()
    c.wait_master()
    engine = c.running[1]
    blocker = b"x" * 500_000  # while it is written the others wait, and are packed together
    seqs = [engine.submit(9, [blocker], engine.now() + HOUR)]
    seqs += [
        engine.submit(m, [b"%d" % i, bytearray(b"b"), memoryview(b"c")], engine.now() + HOUR)
        for i, m in enumerate([1, 1, 2, 2, 1])
    ]
    assert seqs == list(range(1, 7))
    c.until(lambda: len(c.settled(1)) == 6)
    for i, seq in enumerate(seqs[1:]):
        assert c.settled(1)[seq] == [b"%d" % i, b"b", b"c"]
    for event in c.events[1]:
        if event[0] == 0:
            machines = [machine for machine, _ in event[4]]
            assert all(a != b for a, b in itertools.pairwise(machines))


def test_steady_state_is_one_round_and_one_write_a_value(make: MakeEngines) -> None:
    c = make()
    c.start()
    master = c.wait_master()
    c.propose(master, b"warm up")
    c.wait_level()
    before = {n: e.status() for n, e in c.running.items()}
    for _ in range(50):
        c.propose(master, b"v")
    c.wait_level()
    # (Who is late may be told what is chosen, and tell it to Python, before its log has it.)
    c.until(lambda: all(e.status()["log_records"] >= before[n]["log_records"] + 50 for n, e in c.running.items()))
    after = {n: e.status() for n, e in c.running.items()}
    rounds = after[master]["rounds"] - before[master]["rounds"]
    assert rounds == after[master]["proposed_values"] - before[master]["proposed_values"] == 50
    for n in c.running:
        writes = after[n]["log_writes"] - before[n]["log_writes"]
        records = after[n]["log_records"] - before[n]["log_records"]
        # One record a value; a pause of the machine may let the log fall idle, and be sealed, once behind each. A follower
        # that is late may write two values at once; the master cannot, for the next comes after the one before is applied.
        assert 50 <= records <= 101
        assert writes <= records
        assert n != master or writes >= 50


def test_a_minority_may_stop_and_comes_back_from_disk(make: MakeEngines) -> None:
    c = make()
    c.start()
    master = c.wait_master()
    c.propose(master, b"before")
    c.wait_level()
    c.stop(master)
    left = next(iter(c.running))
    c.until(lambda: c.master() not in (0, master))
    for i in range(100):
        c.propose(left, b"%d" % i)
    c.start(master)
    c.wait_level()
    assert c.values(master) == [b"before", *(b"%d" % i for i in range(100))]
    assert c.chosen(master) == c.chosen(left)


def test_all_restart_and_replay_only_what_is_not_applied(make: MakeEngines) -> None:
    c = make()
    c.start()
    node = c.wait_master()
    for i in range(30):
        c.propose(node, b"%d" % i)
    c.wait_level()
    history = c.chosen(1)
    c.stop()
    c.start(applied=9)
    c.wait_master()
    c.propose(1, b"again")
    c.wait_level()
    for n in c.running:
        assert c.chosen(n)[: len(history) - 10] == history[10:]
        assert c.values(n)[-1] == b"again"
        assert c.running[n].status()["boot"] == 2


def test_a_state_machine_ahead_of_the_log_waits_for_it(make: MakeEngines) -> None:
    c = make()
    c.start()
    node = c.wait_master()
    for i in range(10):
        c.propose(node, b"%d" % i)
    c.wait_level()
    last = c.last(1)
    c.stop()
    c.start(applied=last)
    c.wait_master()
    c.propose(2, b"new")
    c.until(lambda: all(c.values(n) == [b"new"] for n in c.running))
    assert all(c.chosen(n)[0][0] > last for n in c.running)


def test_a_python_side_that_is_behind_gets_everything_from_the_log(make: MakeEngines) -> None:
    """More than the queue to Python holds (64 MiB) is chosen before the slow one takes any of it."""
    c = make(segment_size=64 << 20)
    c.start()
    master = c.wait_master()
    slow = next(n for n in c.running if n != master)
    others = [n for n in c.running if n != slow]
    payload = os.urandom(1 << 20)[4:]
    engine = c.running[master]
    for _ in range(10):
        seqs = [engine.submit(0, [payload], engine.now() + HOUR) for _ in range(10)]
        c.until(lambda seqs=seqs: set(seqs) <= set(c.settled(master)), [slow])  # type: ignore[misc]
    c.until(lambda: c.running[slow].status()["chosen"] == c.running[master].status()["chosen"], [slow])
    state = c.running[slow].status()
    assert state["delivered"] < state["chosen"] - 20
    c.wait_level()
    assert c.chosen(slow) == c.chosen(master)
    assert len(c.values(slow)) == 100
    assert all(c.last(n) == c.last(slow) for n in others)


def test_a_node_that_missed_much_is_served_in_large_frames(make: MakeEngines) -> None:
    c = make()
    c.start()
    c.wait_master()
    c.stop(3)
    c.wait_master()
    engine = c.running[1]
    for _ in range(50):
        seqs = [engine.submit(0, [b"%d" % i * 100 for i in range(20)], engine.now() + HOUR) for _ in range(40)]
        c.until(lambda seqs=seqs: set(seqs) <= set(c.settled(1)))  # type: ignore[misc]
    c.wait_level()
    c.start(3)
    c.wait_level()
    assert len(c.values(3)) == 40_000
    assert c.chosen(3) == c.chosen(1)


def test_bounds_are_refused_at_once(make: MakeEngines) -> None:
    c = make(max_pending=4, max_value=1000, batch_bytes=1000)
    engine = c.open(1)  # not started: nothing can be settled
    late = engine.now() + HOUR
    with pytest.raises(ValueTooLarge, match="1001 bytes"):
        engine.submit(0, [b"x" * 1001], late)
    with pytest.raises(ValueTooLarge, match="several"):
        engine.submit(0, [b"x" * 600] * 2, late)
    with pytest.raises(ValueError, match="at least one"):
        engine.submit(0, [], late)
    with pytest.raises(TypeError):
        engine.submit(0, ["text"], late)  # type: ignore[list-item]
    assert engine.status()["pending_chunks"] == 0
    for _ in range(4):
        engine.submit(0, [b"x" * 6], late)
    for refused in (lambda: engine.submit(0, [b""], late), engine.admit):
        with pytest.raises(Overloaded, match="4 proposals"):
            refused()
    assert engine.status()["pending_chunks"] == 4
    assert engine.status()["pending_bytes"] == 40


def test_behind_one_that_is_too_large_none_is_looked_at_until_there_is_room(make: MakeEngines) -> None:
    c = make(1, max_pending_bytes=2000, max_value=1000, batch_bytes=1000)
    engine = c.open(1)  # not started: nothing can be settled
    late = engine.now() + HOUR
    taken = [engine.submit(0, [b"x" * 996], late), engine.submit(0, [b"x" * 396], late)]
    with pytest.raises(Overloaded, match="1400 bytes"):
        engine.submit(0, [b"x" * 996], late)
    engine.admit()  # an eighth of the bound is free
    taken += [engine.submit(0, [b"x" * 346], late), engine.submit(0, [b""], late)]
    with pytest.raises(Overloaded, match="1754 bytes"):
        engine.submit(0, [b"x" * 996], late)
    for refused in (engine.admit, lambda: engine.submit(0, [b""], late)):
        with pytest.raises(Overloaded, match="1754 bytes"):
            refused()
    engine.start(-1)
    c.until(lambda: set(taken) <= set(c.settled(1)))
    engine.admit()
    engine.submit(0, [b"x" * 996], late)


def test_what_is_settled_makes_room_again(make: MakeEngines) -> None:
    c = make(max_pending=2)
    c.start()
    c.wait_master()
    for i in range(50):
        c.propose(1, b"%d" % i)
    assert c.running[1].status()["pending_chunks"] == 0


def test_without_a_cluster_a_proposal_ends_at_its_deadline_and_the_next_goes_through(make: MakeEngines) -> None:
    c = make()
    c.start(1)
    engine = c.running[1]
    soon = engine.submit(0, [b"lost"], engine.now() + 20_000_000)
    later = engine.submit(0, [b"kept"], engine.now() + HOUR)
    c.until(lambda: soon in c.settled(1))
    assert c.settled(1)[soon] == 1  # certain: not executed
    c.start(2, 3)
    c.until(lambda: later in c.settled(1))
    assert c.settled(1)[later] == [b"kept"]
    c.wait_level()
    assert c.values(3) == [b"kept"]


def test_without_a_quorum_a_proposal_ends_and_the_node_goes_on_afterwards(make: MakeEngines) -> None:
    c = make()
    c.start()
    c.wait_master()
    c.propose(1, b"first")
    c.stop(2, 3)
    engine = c.running[1]
    seq = engine.submit(0, [b"nobody hears it"], engine.now() + 300_000_000)
    c.until(lambda: seq in c.settled(1))
    assert c.settled(1)[seq] in (1, 3)
    assert c.running[1].status()["pending_chunks"] == 0
    c.start(2, 3)
    c.propose(1, b"second")
    c.wait_level()
    assert c.values(2)[0] == b"first"
    assert c.values(2)[-1] == b"second"


def readable(engine: Engine, timeout: float = 0.0) -> bool:
    return bool(select.select([engine.fileno()], [], [], timeout)[0])


def test_fileno_says_when_to_drain(make: MakeEngines) -> None:
    c = make(1)
    engine = c.open(1)
    assert not readable(engine)
    assert engine.drain(10) == []
    engine.start(-1)
    c.wait_master()
    for i in range(3):
        engine.submit(0, [b"%d" % i], engine.now() + HOUR)
    got: list[bytes] = []
    while len(got) < 3:
        assert readable(engine, 30.0)
        events = engine.drain(1)
        assert len(events) <= 1
        got += [v for e in events if e[0] == 0 for _, values in e[4] for v in values]
    assert got == [b"0", b"1", b"2"]
    # Nothing happens, and yet it becomes readable: the engine asks for a sign of life.
    while engine.drain(10):
        pass
    assert readable(engine, 30.0)
    with pytest.raises(ValueError, match="at least one"):
        engine.drain(0)


def test_submissions_of_many_threads_are_all_settled(make: MakeEngines) -> None:
    c = make()
    c.start()
    c.wait_master()
    seqs: list[list[int]] = [[] for _ in range(4)]

    def submit(k: int) -> None:
        engine = c.running[k % 3 + 1]
        for i in range(200):
            seqs[k].append(engine.submit(0, [b"%d %d" % (k, i)], engine.now() + HOUR))

    threads = [threading.Thread(target=submit, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    c.until(lambda: all(len(c.settled(n)) == (400 if n == 1 else 200) for n in c.running))
    c.wait_level()
    assert sorted(c.values(1)) == sorted(b"%d %d" % (k, i) for k in range(4) for i in range(200))
    for k in range(4):
        for i, seq in enumerate(seqs[k]):
            assert c.settled(k % 3 + 1)[seq] == [b"%d %d" % (k, i)]


def test_resign_moves_the_mastership(make: MakeEngines) -> None:
    c = make()
    c.start()
    old = c.wait_master()
    c.running[old].resign(False)
    c.until(lambda: c.master() not in (0, old))
    new = c.master()
    c.propose(old, b"from below")
    others = [n for n in c.running if n not in (old, new)]
    # May lead again, and must, when it is the only one that may.
    c.running[old].resign(True)
    for n in (new, *others):
        c.running[n].resign(False)
    c.until(lambda: c.master() == old)


def test_a_python_side_that_is_stuck_costs_the_mastership(make: MakeEngines) -> None:
    c = make(stuck_limit_ns=300_000_000)
    c.start()
    c.wait_master()
    # The limit holds for all, so only one is left alone; which one is master by then does not matter.
    old = c.wait_master()
    c.until(lambda: c.master() not in (0, old), silent=[old])
    assert old not in (c.master(), 0)
    c.propose(c.master(), b"goes on", silent=[old])
    c.until(lambda: "takes chosen values again" in c.logs(old))
    assert "stuck_limit" in c.logs(old)
    c.until(lambda: b"goes on" in c.values(old))
    for n in c.running:
        if n != old:
            c.running[n].resign(False)
    c.until(lambda: c.master() == old)


def test_a_port_in_use_is_named(make: MakeEngines) -> None:
    c = make()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(c.addresses[1])
        taken.listen()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{c.addresses[1][1]}.*Stop the process"):
            c.open(1)
    c.start(1)  # the failure let go of directory and lock


def test_a_directory_in_use_or_of_another_node_is_refused(make: MakeEngines, tmp_path: Path) -> None:
    c = make()
    c.open(1)
    with pytest.raises(DirectoryInUse):
        Engine(str(c.directory / "1"), 1, c.addresses)
    c.stop(1)
    with pytest.raises(WrongDirectory):
        Engine(str(c.directory / "1"), 2, c.addresses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be"),
        ({"window": 10_000}, "window must be"),
        ({"batch_bytes": 0}, "batch_bytes must be"),
        ({"batch_values": -1}, "batch_values must be"),
        ({"heartbeat_ns": 1}, "heartbeat_ns must be"),
        ({"election_min_ns": 1_000_000}, "election_min_ns must be"),
        ({"election_max_ns": 5}, "election_max_ns must be"),
        ({"max_value": 0}, "max_value must be"),
        ({"max_pending": 70_000}, "max_pending must be"),
        ({"max_value": 65 << 20}, "max_value must be"),
        ({"max_value": 64 << 20}, "segment_size must be"),
        ({"stuck_limit_ns": True}, "stuck_limit_ns must be"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(str(tmp_path / "d"), 1, {1: ("127.0.0.1", 7001)}, **options)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ({2: ("127.0.0.1", 7001)}, "does not name node 1"),
        ({}, "1 to 31 nodes"),
        ({1: ("no.such.host.invalid", 7001)}, "does not resolve"),
        ({1: ("127.0.0.1", 0)}, "port of node 1"),
        ({1: "127.0.0.1:7001"}, r"must be \(host, port\)"),
        ({1: ("127.0.0.1", 7001), 0: ("127.0.0.1", 7002)}, "a node id"),
    ],
)
def test_addresses_that_cannot_work_are_named(tmp_path: Path, addresses: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(str(tmp_path / "d"), 1, addresses)
    assert not (tmp_path / "d").exists()


def test_stop_is_final_and_may_be_said_twice(make: MakeEngines) -> None:
    c = make(1)
    c.start()
    c.propose(1, b"v")
    engine = c.running[1]
    engine.stop()
    engine.stop()
    with pytest.raises(NodeClosed):
        engine.submit(0, [b"v"], engine.now() + HOUR)
    with pytest.raises(NodeClosed):
        engine.start(-1)
    with pytest.raises(NodeClosed):
        engine.resign(True)
    assert engine.status()["chosen"] == 2
    assert isinstance(engine.drain(100), list)
    with socket.socket() as again:  # the address is free
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(c.addresses[1])


def test_an_engine_that_is_never_started_lets_go_of_everything(make: MakeEngines) -> None:
    c = make(1)
    for _ in range(3):
        engine = c.open(1)
        del c.running[1]
        del engine
    c.start(1)
    c.propose(1, b"v")
