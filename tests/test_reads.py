"""Reads of one group, on an engine that is none: what is asked when, who is answered from which state, who is told why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

import paxos
from nodes import STATUS, table
from paxos._engine import EVENT_READABLE
from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.errors import PaxosError
from paxos.group import Group
from paxos.reads import MAX_WAITING, Reads
from paxos.testing.cluster import MS
from paxos.testing.cluster import Cluster as SimulatedCluster
from paxos.testing.workload import Registers

SECOND = 10**9


class Engine:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.time = 100 * SECOND
        self.asked: list[int] = []
        self.pokes = 0

    def now(self) -> int:
        return self.time

    def ask_read(self, token: int) -> None:
        self.asked.append(token)

    def poke(self) -> None:
        self.pokes += 1


class Call:
    """A completion: ``result`` or ``error``."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.then: Callable[[], None] | None = None

    def done(self) -> bool:
        return self.ended

    def set_result(self, result: Any, /) -> None:
        assert not self.ended
        self.result, self.ended = result, True
        if self.then is not None:
            self.then()

    def set_exception(self, error: BaseException, /) -> None:
        assert not self.ended
        self.error, self.ended = error, True


class Machine(paxos.StateMachine):
    """Answers with the query and how much is applied."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.batches: list[list[Any]] = []

    def read_batch(self, queries: Sequence[Any]) -> Sequence[object]:
        self.batches.append(list(queries))
        for query in queries:
            if isinstance(query, BaseException):
                raise query
        if "few" in queries:
            return []
        return tuple((query, self.world.applied) for query in queries)


class World:
    """Reads, and all that they touch."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.applied = 0
        self.refusal: PaxosError | None = None
        self.machines = {0: Machine(self), 1: Machine(self)}
        self.timers: list[tuple[int, Callable[[], object]]] = []
        machines = cast("dict[int, paxos.StateMachine]", self.machines)
        self.reads = Reads(cast("Handle", self.engine), machines, lambda: self.applied, lambda machine: self.refusal)
        self.reads.later = self.later

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append((self.engine.time + int(seconds * SECOND), call))

    def read(
        self,
        *queries: Any,
        many: bool = False,
        consistency: str = "linearizable",
        max_staleness: float | None = None,
        timeout: float = 5.0,
        machine: int = 0,
        at_once: bool = False,
    ) -> Call:
        call = Call()
        self.reads.submit(
            call, queries, single=not many, machine=machine, consistency=consistency, max_staleness=max_staleness,
            timeout=timeout, at_once=at_once,
        )  # fmt: skip
        return call

    def readable(self, index: int, token: int | None = None) -> None:
        """The engine's answer, to the newest question if no other is named."""
        self.reads.readable(index, self.engine.asked[-1] if token is None else token)
        self.reads.answer()

    def sleep(self, seconds: float) -> None:
        """Calls what is due meanwhile."""
        end = self.engine.time + int(seconds * SECOND)
        fired = 0
        while due := [timer for timer in self.timers if timer[0] <= end]:
            fired += 1
            assert fired < 1000, "a clock that sets itself over and over"
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.engine.time = max(self.engine.time, timer[0])
            timer[1]()
        self.engine.time = end


def test_one_question_for_all_that_came_before_it_and_the_next_for_those_meanwhile() -> None:
    world = World()
    first = world.read("a")
    assert world.engine.asked == [1]
    meanwhile = [world.read("b"), world.read("c")]
    assert world.engine.asked == [1], "one question is under way at a time"
    world.readable(0)
    assert (first.result, world.engine.asked) == (("a", 0), [1, 2])
    assert not any(call.done() for call in meanwhile), "the first question was asked before they came"
    world.readable(0)
    assert [call.result for call in meanwhile] == [("b", 0), ("c", 0)]
    assert world.engine.asked == [1, 2], "nobody waits, nothing is asked"
    world.read("d")
    assert world.engine.asked == [1, 2, 3]
    assert world.reads.answered == 3


def test_nothing_is_answered_before_that_much_is_applied() -> None:
    world = World()
    first = world.read("a")
    world.readable(3)
    second = world.read("b")
    world.readable(2)
    assert not first.done()
    world.applied = 2
    world.reads.answer()
    assert not first.done()
    assert not second.done(), "they are answered in the order in which they were asked"
    world.applied = 3
    world.reads.answer()
    assert (first.result, second.result) == (("a", 3), ("b", 3))


def test_an_answer_to_an_older_question_is_none() -> None:
    world = World()
    first = world.read("a")
    second = world.read("b")
    world.readable(0)
    assert first.done()
    world.readable(0, token=1)
    assert not second.done()
    world.readable(0, token=2)
    assert second.done()
    world.readable(0, token=2)
    assert world.engine.asked == [1, 2]


def test_many_queries_at_one_moment_of_one_machine() -> None:
    world = World()
    many = world.read("a", "b", many=True)
    none = world.read(many=True)
    other = world.read("c", machine=1)
    world.readable(0)
    world.readable(0)
    assert many.result == [("a", 0), ("b", 0)]
    assert isinstance(many.result, list), "whatever read_batch returned"
    assert none.result == []
    assert other.result == ("c", 0)
    assert [machine.batches for machine in world.machines.values()] == [[["a", "b"], []], [["c"]]]
    assert world.reads.answered == 3


def test_the_default_answers_queries_one_by_one() -> None:
    class Plain(paxos.StateMachine):
        def read(self, query: Any) -> object:
            return query * 2

    assert Plain().read_batch([1, "a"]) == [2, "aa"]
    with pytest.raises(NotImplementedError, match=r"StateMachine has no read\(\)"):
        paxos.StateMachine().read(1)


# ---- time ----


def test_each_read_ends_at_its_own_time() -> None:
    world = World()
    calls = [world.read("a", timeout=5), world.read("b", timeout=1), world.read("c", timeout=3)]
    world.readable(7)  # a waits for instance 6, the others for the second question
    world.sleep(0.999)
    assert not any(call.done() for call in calls)
    for seconds, ended in ((0.002, [False, True, False]), (2, [False, True, True]), (2, [True, True, True])):
        world.sleep(seconds)
        assert [call.done() for call in calls] == ended
    assert all(isinstance(call.error, paxos.NotAvailable) for call in calls)
    assert "nothing was read" in str(calls[0].error)
    world.applied = 7
    world.reads.answer()
    assert world.timers == [], "nobody waits, and no clock runs"


def test_what_comes_behind_a_question_that_nobody_waits_for_is_asked_at_once() -> None:
    world = World()
    first = world.read("a", timeout=1)
    second = world.read("b", timeout=9)
    world.sleep(1)
    assert isinstance(first.error, paxos.NotAvailable)
    assert world.engine.asked == [1, 2]
    world.readable(0, token=1)
    assert not second.done(), "b came after question 1 was asked"
    world.readable(0, token=2)
    assert second.result == ("b", 0)


def test_after_a_question_that_nobody_waits_for_the_next_is_another() -> None:
    world = World()
    world.read("a", timeout=1)
    world.sleep(1)
    world.readable(0)
    late = world.read("b")
    assert world.engine.asked == [1, 2]
    world.readable(0, token=1)
    assert not late.done()


def test_clocks_do_not_pile_up() -> None:
    """Short reads beside long ones that wait set the clock forward, over and over."""
    world = World()
    for turn in range(200):
        world.read("long", timeout=5)
        world.read("short", timeout=0.05)
        world.sleep(0.06)
        assert len(world.timers) <= turn + 2
    world.sleep(5)
    assert world.timers == []
    for _ in range(200):
        world.read("long", timeout=5)
        world.sleep(0.03)
    assert len(world.timers) == 1


def test_a_clock_that_is_early_is_set_again() -> None:
    world = World()
    call = world.read("a", timeout=1)
    (_, early) = world.timers.pop()
    world.engine.time += SECOND - 1
    early()
    assert not call.done()
    world.sleep(0.001)
    assert call.done()


def test_a_time_that_is_as_good_as_for_ever() -> None:
    world = World()
    call = world.read("a", timeout=float("inf"))
    world.sleep(3600)
    assert not call.done()
    world.readable(0)
    assert call.result == ("a", 0)


# ---- formation ----


def test_what_was_asked_before_there_was_a_cluster_is_asked_again() -> None:
    world = World()
    world.reads.again()
    assert world.engine.asked == [], "nobody waits"
    call = world.read("a")
    world.reads.again()
    assert world.engine.asked == [1, 1]
    world.readable(0)
    world.reads.again()
    assert (call.result, world.engine.asked) == (("a", 0), [1, 1])


# ---- stale ----


def test_a_stale_read_asks_nobody() -> None:
    world = World()
    call = world.read("a", consistency="stale")
    assert not call.done(), "on another thread than that which applies"
    assert (world.engine.asked, world.engine.pokes) == ([], 1)
    world.reads.answer()
    assert call.result == ("a", 0)
    at_once = world.read("b", consistency="stale", at_once=True)
    assert (at_once.result, world.engine.pokes) == (("b", 0), 1)


def test_a_stale_read_does_not_overtake_one_that_waits() -> None:
    world = World()
    order: list[str] = []
    first = world.read("a", consistency="stale")
    second = world.read("b", consistency="stale", at_once=True)
    first.then, second.then = lambda: order.append("a"), lambda: order.append("b")
    world.reads.answer()
    assert order == ["a", "b"]


def test_how_stale_a_read_may_be_is_counted_from_when_was_asked() -> None:
    world = World()

    def fresh(limit: float) -> bool:
        """Whether the state is known to be as new as that, so that nobody is asked."""
        before = len(world.engine.asked)
        call = world.read("x", consistency="stale", max_staleness=limit, at_once=True)
        asked = len(world.engine.asked) > before
        assert call.done() is not asked
        if asked:
            world.engine.asked.pop()
            world.reads._asked.clear()
            world.reads._waiting -= 1
        return not asked

    assert not fresh(1000), "nothing is known yet"
    world.read("a")
    world.sleep(2)
    world.readable(5)
    assert not fresh(1000), "what is confirmed is not applied yet"
    world.sleep(1)
    world.applied = 5
    world.reads.answer()
    assert not fresh(2.9), "it was asked 3 s ago; what was chosen since may be missing here"
    assert fresh(3)
    world.sleep(1)
    assert not fresh(3)
    assert fresh(4)
    assert not fresh(0)


def test_a_stale_read_that_had_to_ask_is_as_good_as_a_linearizable_one() -> None:
    world = World()
    call = world.read("a", consistency="stale", max_staleness=0.5)
    assert world.engine.asked == [1]
    world.readable(1)
    assert not call.done()
    world.applied = 1
    world.reads.answer()
    assert call.result == ("a", 1)


# ---- what goes wrong ----


def test_an_error_in_read_is_its_caller_s_alone() -> None:
    world = World()
    world.read("first")
    calls = [world.read(query) for query in ("a", ZeroDivisionError("of the query"), "few", "b")]
    world.readable(0)
    world.readable(0)
    assert isinstance(calls[1].error, ZeroDivisionError)
    assert isinstance(calls[2].error, TypeError)
    assert "Machine.read_batch returned 0 answers to 1 queries" in str(calls[2].error)
    assert [calls[0].result, calls[3].result] == [("a", 0), ("b", 0)]


def test_ctrl_c_in_read_leaves_the_others() -> None:
    world = World()
    now = [world.read(query, consistency="stale") for query in (KeyboardInterrupt(), "a")]
    world.read("first")
    asked = [world.read(query) for query in (KeyboardInterrupt(), "b")]
    world.reads.readable(0, 1)
    world.reads.readable(0, 2)
    pokes = world.engine.pokes
    for interrupted in (now[0], asked[0]):
        with pytest.raises(KeyboardInterrupt):
            world.reads.answer()
        assert isinstance(interrupted.error, KeyboardInterrupt)
    assert world.engine.pokes == pokes + 2, "else nobody would come for those behind it"
    world.reads.answer()
    assert (now[1].result, asked[1].result) == (("a", 0), ("b", 0))


def test_what_was_cancelled_is_not_read() -> None:
    world = World()
    calls = [world.read("a"), world.read("b"), world.read("c", consistency="stale")]
    for call in calls:
        call.ended = True
    world.readable(0)
    world.readable(0)
    world.sleep(10)
    assert world.machines[0].batches == []
    assert world.reads.answered == 0


def test_too_many_are_refused_and_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_WAITING >= 10_000
    monkeypatch.setattr("paxos.reads.MAX_WAITING", 3)
    world = World()
    calls = [world.read("a"), world.read("b", timeout=1), world.read("c", consistency="stale")]
    for consistency in ("linearizable", "stale"):
        with pytest.raises(paxos.Overloaded, match="3 reads are waiting"):
            world.read("d", consistency=consistency)
    world.reads.answer()  # c
    calls.append(world.read("e", consistency="stale"))
    with pytest.raises(paxos.Overloaded):
        world.read("d")
    world.sleep(1)  # b
    calls.append(world.read("f"))
    world.readable(0)  # a, and e with it
    calls += [world.read("g"), world.read("h")]
    with pytest.raises(paxos.Overloaded):
        world.read("d")
    world.reads.end()
    world.refusal = paxos.NotAvailable("has failed")
    assert sum(call.result is not None for call in calls) == 3


@pytest.mark.parametrize("error", [paxos.NodeClosed("closed"), paxos.NotAvailable("the state machine has failed")])
def test_the_end_is_told_to_all_that_wait_and_to_all_that_come(error: PaxosError) -> None:
    world = World()
    calls = [world.read("a")]
    calls.append(world.read("b"))
    world.readable(9)
    calls.append(world.read("c"))
    calls.append(world.read("d", consistency="stale"))
    world.refusal = error
    world.reads.end()
    assert [call.error for call in calls] == [error] * 4
    for consistency in ("linearizable", "stale"):
        with pytest.raises(type(error)):
            world.read("e", consistency=consistency)
    world.applied = 9
    world.reads.answer()
    world.sleep(10)
    assert world.machines[0].batches == []


def test_who_is_being_refused_when_the_node_ends_does_not_wait_for_ever() -> None:
    """On another thread, between the look at whether the node is closed and the place among those that wait."""
    world = World()
    now = world.engine.now

    def ends_meanwhile() -> int:
        world.refusal = paxos.NodeClosed("closed")
        world.reads.end()
        return now()

    world.engine.now = ends_meanwhile  # type: ignore[method-assign]
    with pytest.raises(paxos.NodeClosed):
        world.read("a")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consistency": "eventual"}, "consistency='eventual': there are 'linearizable', 'lease', 'stale'"),
        ({"max_staleness": 1.0}, "for consistency='stale' only"),
        ({"consistency": "stale", "max_staleness": -1.0}, "max_staleness=-1.0 is a time"),
        ({"consistency": "stale", "max_staleness": float("nan")}, "max_staleness=nan is a time"),
    ],
)
def test_what_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    world = World()
    with pytest.raises(paxos.ConfigError, match=words):
        world.read("a", **options)
    assert world.engine.asked == []


# ---- in their group ----


class Told(Engine):
    """... and tells what a test has it tell."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []

    def drain(self, most: int) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events

    def resign(self, may_lead: bool) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return STATUS

    def membership(self) -> bytes:
        return table((1, 0))


class Restores:
    """A background in which a checkpoint is restored at the next turn."""

    def __init__(self, group: Group, applied: int) -> None:
        self.group = group
        self.applied = applied

    def deliver(self) -> None:
        self.group.applied = self.applied
        self.group._last = {0: self.applied}


class Seen(paxos.StateMachine):
    def __init__(self, last: int = -1) -> None:
        self.last = last

    def last_applied(self) -> int:
        return self.last

    def read(self, query: Any) -> object:
        return query


def group_of(engine: Told, last: int = -1) -> tuple[Group, Call]:
    """A group, and a read that waits there."""
    group = Group(
        cast("Handle", engine),
        lambda: Seen(last),
        Alarms(1),
        max_value=100,
        batch_bytes=1000,
        batch_values=10,
        sessions=False,
    )
    call = Call()
    group.reads.submit(call, ("a",), single=True, machine=0, consistency="linearizable", max_staleness=None, timeout=5)
    return group, call


def test_a_checkpoint_that_is_restored_answers_what_waits_for_its_instances() -> None:
    engine = Told()
    group, call = group_of(engine)
    group._background = cast("Any", Restores(group, 41))
    engine.events = [(EVENT_READABLE, 0, 42, 1)]
    group.drain()
    assert call.result == "a", "nothing else may come to pass for a long time"
    # What the checkpoint has brought is nothing that the state machine has claimed to have.
    second = Call()
    group.reads.submit(
        second, ("b",), single=True, machine=0, consistency="linearizable", max_staleness=None, timeout=5
    )
    engine.events = [(EVENT_READABLE, 0, 30, 2)]
    group.drain()
    assert (group.error, second.result) == (None, "b")


@pytest.mark.parametrize(("index", "ahead"), [(7, True), (8, False)])
def test_a_confirmed_read_shows_a_state_machine_that_is_ahead(index: int, ahead: bool) -> None:
    engine = Told()
    group, call = group_of(engine, last=7)
    engine.events = [(EVENT_READABLE, 0, index, 1)]
    group.drain()
    assert (group.error is not None) is ahead
    assert isinstance(call.error, paxos.NotAvailable) is ahead
    assert call.result == (None if ahead else "a")


@pytest.mark.parametrize("at_the_master", [True, False])
def test_a_read_needs_one_round_trip_however_long_that_takes(at_the_master: bool) -> None:
    """Longer than a question is waited for before it is asked again, which must not make its answers count for nothing."""
    cluster = SimulatedCluster(lambda node, before: Registers(), seed=1)
    try:
        assert cluster.run_until(lambda: all(r.group is not None and r.group.settled for r in cluster.replicas), 20)
        cluster.world.network(delay=(60 * MS, 60 * MS))
        cluster.run(1.0)
        master = cluster.master()
        assert master is not None
        replica = master if at_the_master else next(r for r in cluster.replicas if r is not master)
        call = Call()
        begun = cluster.now
        replica.read(call, b"key")
        assert cluster.run_until(call.done, 5)
        assert call.error is None
        assert cluster.now - begun < (1 if at_the_master else 2) * 2 * 60 * MS + 40 * MS
    finally:
        cluster.close()
