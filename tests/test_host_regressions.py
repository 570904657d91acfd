"""What went wrong once between the core and the service, each with the smallest thing that shows it."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paxos
from engines import HOUR, Engines
from nodes import DEADLINE, STATUS, Journal, book, table
from paxos._engine import Engine
from paxos._outqueue import SendQueue
from paxos._segments import LogStore
from paxos.alarm import Alarms
from paxos.group import Group

MakeEngines = Callable[..., Engines]
LIMITS = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeEngines]:
    made: list[Engines] = []

    def engines(count: int = 3, **options: Any) -> Engines:
        made.append(Engines(tmp_path / f"cluster{len(made)}", count, **options))
        return made[-1]

    yield engines
    for each in made:
        each.stop()


# ---- what a group makes of the engine's events: an engine that only plays them ----


class Script:
    """Stands in for an engine: drain() plays what it was given."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []
        self.submitted = 0
        self.resigned: list[bool] = []
        self.heard = 1 << 40

    def submit(self, machine: int, values: Sequence[bytes], deadline_ns: int) -> int:
        assert deadline_ns < 1 << 63
        self.submitted += 1
        return self.submitted

    def admit(self) -> None:
        """Takes whatever comes."""

    def now(self) -> int:
        return 1

    def drain(self, max_values: int) -> list[Any]:
        return self.events.pop(0) if self.events else []

    def resign(self, may_lead: bool) -> None:
        self.resigned.append(may_lead)

    def status(self) -> dict[str, Any]:
        return {**STATUS, "heard_chosen": self.heard}

    def membership(self) -> bytes:
        return table((1, 0), (2, 0), (3, 0))


def chosen(instance: int, *values: bytes, seq: int | None = None) -> tuple[Any, ...]:
    settled = [] if seq is None else [(seq, 0, 0, len(values))]
    return (0, 0, instance, instance * 7, [(0, list(values))], settled)


def group(script: Script, machine: Any = Journal, alarms: Alarms | None = None, **options: Any) -> Group:
    limits: dict[str, Any] = {"max_value": 100, "batch_bytes": 1000, "batch_values": 2} | options
    return Group(script, machine, alarms or Alarms(1), **limits)  # type: ignore[arg-type]


def future() -> concurrent.futures.Future[Any]:
    return concurrent.futures.Future()


@pytest.mark.parametrize("shape", [collections.deque, tuple, dict.fromkeys, lambda r: range(len(r))])
def test_results_may_be_any_sequence_and_never_leave_a_proposal_open(shape: Callable[[list[object]], Any]) -> None:
    class Machine(paxos.StateMachine):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Any:
            return shape([b"r%d" % i for i in range(len(values))])

    script = Script()
    g = group(script, Machine)
    one, many = future(), future()
    g.submit(one, b"v", 1.0, 0)
    g.submit_many(many, [b"v", b"w"], 1.0, 0)
    script.events = [[chosen(0, b"v", seq=1), chosen(1, b"v", b"w", seq=2)]]
    g.drain()
    assert one.done()
    assert len(many.result(timeout=0)) == 2
    assert g.error is None


def test_an_interrupt_in_apply_stops_applying_and_loses_nothing_behind_it() -> None:
    class Machine(Journal):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            if instance == 1:
                raise KeyboardInterrupt
            return super().apply_batch(instance, values)

    script = Script()
    g = group(script, Machine)
    hit, behind = future(), future()
    g.submit(hit, b"v", 1.0, 0)
    script.events = [[chosen(0, b"u"), chosen(1, b"v", seq=1), chosen(2, b"w"), (2, 0, 3, 7, True)]]
    with pytest.raises(KeyboardInterrupt):
        g.drain()
    assert isinstance(hit.exception(timeout=0), paxos.StateMachineFailed)
    g.drain()
    assert g.master_id == 3, "the event behind the interrupt"
    assert g.applied == 0, "what may be half applied is not counted, and nothing is applied on top of it"
    assert script.resigned == [False]
    with pytest.raises(paxos.NotAvailable):
        g.submit(behind, b"v", 1.0, 0)


def test_an_instance_that_is_missing_stops_applying() -> None:
    script = Script()
    g = group(script)
    script.events = [[chosen(0, b"a"), chosen(2, b"c")]]
    g.drain()
    assert g.applied == 0
    assert "behind instance 0" in str(g.error)


class Fickle:
    """A future that its owner cancels just when it is about to be settled."""

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        raise concurrent.futures.InvalidStateError

    def set_exception(self, exception: BaseException) -> None:
        raise concurrent.futures.InvalidStateError


def test_a_future_that_is_cancelled_meanwhile_harms_no_other() -> None:
    script = Script()
    g = group(script)
    last = future()
    for completion in (Fickle(), Fickle(), last):
        g.submit(completion, b"v", 1.0, 0)
    g.submit_many(Fickle(), [b"v"], 1.0, 0)
    g.submit_many(Fickle(), [b"v"], 1.0, 0)
    script.events = [[(1, 1, 3), chosen(0, b"v", seq=2), chosen(1, b"v", seq=4), (1, 5, 1), chosen(2, b"v", seq=3)]]
    g.drain()
    assert last.result(timeout=0) == 2


def test_a_wrong_value_anywhere_refuses_all_of_propose_many() -> None:
    script = Script()
    g = group(script)
    with pytest.raises(TypeError):
        g.submit_many(future(), [b"a", b"b", b"c", "text"], 1.0, 0)  # type: ignore[list-item]
    wide = memoryview(bytes(104)).cast("Q")  # 13 items, 104 bytes
    with pytest.raises(paxos.ValueTooLarge):
        g.submit_many(future(), [b"a", b"b", wide], 1.0, 0)  # type: ignore[list-item]
    assert script.submitted == 0


def test_a_node_that_closes_during_propose_many_says_what_was_handed_in() -> None:
    class Closing(Script):
        def submit(self, machine: int, values: Sequence[bytes], deadline_ns: int) -> int:
            if self.submitted:
                raise paxos.NodeClosed("closed")
            return super().submit(machine, values, deadline_ns)

    script = Closing()
    g = group(script)
    many = future()
    g.submit_many(many, [b"a", b"b", b"c"], 1.0, 0)
    script.events = [[chosen(0, b"a", b"b", seq=1)]]
    g.drain()
    error = many.exception(timeout=0)
    assert isinstance(error, paxos.PartialOutcome)
    assert error.outcomes[:2] == [0, 1]
    assert isinstance(error.outcomes[2], paxos.NodeClosed)


def test_a_timeout_may_be_infinite() -> None:
    script = Script()
    g = group(script)
    g.submit(future(), b"v", float("inf"), 0)
    g.submit_many(future(), [b"v"], 1e300, 0)
    assert script.submitted == 2


# ---- the APIs ----


def test_the_status_is_never_older_than_the_events(make: MakeEngines) -> None:
    """A new master with proposals waiting handed over its mastership, and the instances before it, ahead of the status: the node
    thought that its own state machine was ahead of the cluster, and stopped it for good."""
    c = make()
    c.start()
    master = c.wait_master()
    engine = c.running[master]
    late: list[tuple[int, int]] = []
    seen = 0

    def propose() -> None:
        # What is logged in the round that hands an instance over is what makes that round hand it over early.
        engine.submit(0, [b"v"], engine.now() + HOUR)

    def watch() -> None:
        nonlocal seen
        while seen < 3000:
            for event in engine.drain(1000):
                if event[0] == 0:
                    counted = engine.status()["heard_chosen"]
                    if event[2] >= counted:
                        late.append((event[2], counted))
                    seen += 1
                    for _ in event[5]:
                        propose()

    for _ in range(16):
        propose()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    c.until(lambda: not watcher.is_alive(), silent=[master])
    assert late == []


def test_an_open_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    addresses = book(1)

    class Slow(Journal):
        def __init__(self) -> None:
            begun.set()
            assert go_on.wait(DEADLINE)
            super().__init__()

    async def main() -> None:
        opening = asyncio.ensure_future(
            paxos.Node.open(tmp_path / "1", node_id=1, cluster=addresses, state_machine=Slow, **LIMITS)
        )
        await asyncio.to_thread(begun.wait, DEADLINE)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go_on.set()

    asyncio.run(main())  # waits for the thread that opens
    with paxos.SyncNode.open(tmp_path / "1", node_id=1, cluster=addresses, state_machine=Journal, **LIMITS) as node:
        assert node.propose(b"v", timeout=DEADLINE) == 0


def test_waiting_on_the_applying_thread_is_refused_not_a_deadlock(tmp_path: Path) -> None:
    said: list[str] = []
    attached, finished = threading.Event(), threading.Event()

    class Patient(Journal):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            assert attached.wait(DEADLINE)
            return super().apply_batch(instance, values)

    with paxos.SyncNode.open(tmp_path / "1", node_id=1, cluster=book(1), state_machine=Patient, **LIMITS) as node:

        def callback(_: concurrent.futures.Future[Any]) -> None:
            calls: list[Callable[[], object]] = [
                lambda: node.propose(b"w"), lambda: node.propose_many([b"w"]), lambda: node.wait_ready(1.0), node.close,
            ]  # fmt: skip
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    said.append(str(error).split("(")[0])
            finished.set()

        node.submit(b"v", timeout=DEADLINE).add_done_callback(callback)
        attached.set()
        assert finished.wait(DEADLINE)
        assert node.propose(b"x", timeout=DEADLINE) == 1
    assert said == ["propose", "propose_many", "wait_ready", "close"]


# ---- limits of nodes that differ ----


def test_a_log_with_small_segments_refuses_larger_limits(make: MakeEngines) -> None:
    c = make(1, segment_size=256 << 10, max_value=64 << 10, batch_bytes=64 << 10)
    c.start()
    c.propose(1, b"v")
    c.stop()
    with pytest.raises(paxos.ConfigError, match=r"segments of 262144 bytes.*max_value"):
        c.open(1, segment_size=4 << 20, max_value=1 << 20, batch_bytes=1 << 20)
    c.start(1)
    c.until(lambda: c.values(1) == [b"v"])


def test_a_value_that_fits_no_segment_here_is_refused_and_does_not_end_the_process(make: MakeEngines) -> None:
    c = make(max_value=1 << 20, segment_size=4 << 20)
    c.start(1, 2)
    c.start(3, segment_size=256 << 10, max_value=64 << 10, batch_bytes=64 << 10)
    c.wait_master()
    master = c.master()
    if master == 3:
        c.running[3].resign(False)
        c.until(lambda: c.master() in (1, 2))
    c.propose(1, os.urandom(1 << 20))
    c.until(lambda: c.running[3].status()["frames_refused"]["length"] > 0)
    assert [len(v) for v in c.values(1)] == [1 << 20]
    assert c.values(3) == []


# ---- the queue to a peer ----


def test_a_queue_that_is_never_empty_does_not_grow() -> None:
    queue = SendQueue()
    queue.push(bytes(1000))
    for _ in range(20_000):
        queue.push(bytes(1000))
        queue.consume(1000)
    assert queue.waiting == 1000
    assert queue.memory < 1 << 20


frames = st.tuples(st.integers(1, 65_000), st.none() | st.integers(0, 65_000))  # larger ones: test_large_frames


@given(st.lists(frames | st.floats(0, 1), max_size=60))
def test_a_queue_gives_back_what_was_put_in(steps: list[tuple[int, int | None] | float]) -> None:
    queue = SendQueue()
    left = b""
    count = 0
    for step in steps:
        if isinstance(step, float):
            front = queue.front(8)
            assert left.startswith(front)
            assert bool(front) == bool(left)
            size = int(len(front) * step)
            queue.consume(size)
            left = left[size:]
        else:
            head, value = step
            count += 1
            head_bytes = bytes([count % 251]) * head
            value_bytes = None if value is None else bytes([255 - count % 251]) * value
            queue.push(head_bytes, value_bytes)
            left += head_bytes + (value_bytes or b"")
        assert queue.waiting == len(left)


# ---- directories ----


def test_every_directory_that_is_made_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    path = tmp_path / "a" / "b" / "c"
    LogStore(path, 1, segment_size=1 << 20).close()
    assert {str(p) for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b", path, path / "log")} <= synced
    synced.clear()
    LogStore(path, 1, segment_size=1 << 20).close()
    assert {str(path), str(path / "log")} <= synced, "a crash may have come between mkdir and sync"


def test_engine_that_gets_no_thread_can_be_stopped(make: MakeEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    c = make(1)
    engine: Engine = c.open(1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            engine.start(-1)
    c.stop(1)
    c.start(1)
    c.propose(1, b"v")


# ---- fork ----

FORKED = """
import os, sys, threading, time
import paxos

class Machine(paxos.StateMachine):
    def __init__(self):
        self.values = []
    def apply(self, instance, value):
        self.values.append(value)
        return len(self.values)

def open_node():
    return paxos.SyncNode.open(sys.argv[1], node_id=1, cluster={1: sys.argv[2]}, state_machine=Machine,
                               segment_bytes=4 << 20, max_value=1 << 20)

node = open_node()
assert node.propose(b"parent", timeout=30) == 1
parent = os.getpid()
if os.fork():
    os._exit(0 if node.propose(b"parent again", timeout=30) == 2 else 1)   # dies without a word; the child stays
end = time.monotonic() + 50
while os.getppid() == parent:       # until the parent is gone, and all that it held with it
    assert time.monotonic() < end, "the parent does not end"
    threading.Event().wait(0.01)
try:
    node.propose(b"child")
except paxos.NodeClosed as error:
    print("refused:", error)
try:
    node.status()
except paxos.NodeClosed as error:
    print("refused:", error)
node.close()
with open_node() as mine:           # directory and port were the parent's alone
    print("applied", mine.propose(b"child", timeout=30))
"""


def test_a_forked_child_neither_uses_nor_keeps_the_node_of_its_parent(tmp_path: Path) -> None:
    run = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "1"), book(1)[1]]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused:", "refused:", "applied"], done.stderr
    assert lines[2] == "applied 3"


def test_only_a_master_of_this_process_s_time_proves_a_state_machine_ahead() -> None:
    """Found by simulation: a durable state machine had applied instance 133, its node came up again behind that, and heard first
    from an older master that had taken over and knew 133 instances. The node stopped a healthy state machine for good."""

    class Durable(Journal):
        def last_applied(self) -> int:
            return 133

    script = Script()
    script.heard = 133
    g = group(script, Durable)
    script.events = [[(2, 0, 2, 5, True)], [(2, 0, 1, 6, True)]]
    g.drain()
    assert g.error is None
    g.drain()
    assert isinstance(g.error, paxos.ConfigError), "its own mastership began after the process did"
    g = group(script, Durable)
    script.events = [[(6, 0, 90)]]
    g.drain()
    assert isinstance(g.error, paxos.ConfigError), (
        "what it has handed in stands where its state machine had something else"
    )
    assert "133" in str(g.error)


def test_a_chain_checksum_that_the_log_does_not_know_is_unknown_until_the_next_instance() -> None:
    """A durable state machine may be ahead of what its log has chosen. A checkpoint of it made then, with nought for its chain
    checksum, would be of no series that any log continues."""

    class Durable(Journal):
        def last_applied(self) -> int:
            return 4

    class Formed(Script):
        def found(self) -> tuple[bool, int, int, int]:
            return True, 0, 0, 3

        def status(self) -> dict[str, Any]:
            return {**super().status(), "quarantined": None}

    def started(known: int) -> tuple[Group, Mock, Formed]:
        script, keeper = Formed(), Mock()
        keeper.open.return_value = None
        g = group(script, Durable, sessions=False)
        g.start(keeper, Mock(), Mock(), Mock(), lambda applied: known)
        return g, keeper, script

    _, keeper, _ = started(99)
    assert keeper.applied() == (4, 99)
    g, keeper, script = started(0)
    assert keeper.applied() == (4, None)
    script.events = [[chosen(5, b"v")]]
    g.drain()
    assert keeper.applied() == (5, 35)
