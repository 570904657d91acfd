"""Nodes whose values, or state machines, differ: found while they run, at one instance, and the majority is right."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import paxos
from nodes import table, until
from paxos._distrust import distrusted, mark, set_aside
from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.errors import Diverged
from paxos.reconcile import Reconcile
from paxos.results import KEPT, WINDOW, Results, Verdict, decide, encode
from paxos.testing._simdisk import MemoryDisk
from paxos.testing.cluster import Cluster
from paxos.testing.workload import Registers
from paxos.testing.wrongwriter import substitute
from test_getting_well import Cluster as RealCluster
from test_getting_well import Journal, other_than, run


@pytest.mark.parametrize(
    ("own", "answers", "members", "verdict"),
    [
        (1, [1, 1], 3, Verdict.EQUAL),
        (1, [1], 3, Verdict.EQUAL),
        (1, [1, 2], 3, Verdict.RIGHT),
        (2, [1, 1], 3, Verdict.WRONG),
        (2, [1], 3, Verdict.OPEN),
        (1, [2, 3], 3, Verdict.NOBODY),
        (1, [1, 2, 2], 4, Verdict.NOBODY),
        (1, [1, 2], 4, Verdict.OPEN),
        (1, [2, 2, 2], 5, Verdict.WRONG),
        (1, [2, 2, 3], 5, Verdict.OPEN),
        (1, [1, 2, 2, 3], 5, Verdict.NOBODY),
        (1, [2], 2, Verdict.NOBODY),
    ],
)
def test_the_majority_decides(own: int, answers: list[int], members: int, verdict: Verdict) -> None:
    assert decide(own, answers, members) is verdict


@pytest.mark.parametrize(
    ("own", "answers", "others", "votes", "verdict"),
    [
        # Members without a vote, three voters.
        (1, [1, 1], [1], True, Verdict.EQUAL),
        (1, [1, 1], [2, 2, 2, 2], True, Verdict.RIGHT),
        (1, [], [2, 2, 2, 2], True, Verdict.RIGHT),
        (1, [2], [1, 1, 1], True, Verdict.OPEN),
        (1, [2, 2], [1, 1, 1], True, Verdict.WRONG),
        # ... and this is one of them.
        (1, [1, 1, 1], [], False, Verdict.EQUAL),
        (1, [1], [1], False, Verdict.EQUAL),
        (1, [1, 1], [2], False, Verdict.RIGHT),
        (1, [], [2, 2], False, Verdict.UNHEARD),
        (1, [2], [1, 1], False, Verdict.OPEN),
        (1, [2, 2], [1, 1], False, Verdict.WRONG),
        (1, [1, 1, 2], [], False, Verdict.RIGHT),
        (1, [2, 3, 4], [1, 1], False, Verdict.NOBODY),
    ],
)
def test_who_has_no_vote_has_no_say(
    own: int, answers: list[int], others: list[int], votes: bool, verdict: Verdict
) -> None:
    assert decide(own, answers, 3, others, votes=votes) is verdict


# ---- the comparison, between nodes that are nothing else ----


class Net:
    """Python sides of nodes, and what is between them. Time goes by in ``tick``."""

    def __init__(
        self, chains: dict[int, list[int]], first_kept: dict[int, int] | None = None, followers: Sequence[int] = ()
    ) -> None:
        self.followers = followers
        self.nodes = {id_: Stub(self, id_, own, (first_kept or {}).get(id_, 0)) for id_, own in chains.items()}
        self.lost: Callable[[int, int, bytes], bool] = lambda source, target, data: False
        self.due: deque[Callable[[], object]] = deque()

    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            for node in self.nodes.values():
                node.calls, calls = [], node.calls
                for call in calls:
                    call()
            while self.due:
                self.due.popleft()()

    @property
    def stopped(self) -> dict[int, int]:
        return {id_: node.stopped for id_, node in self.nodes.items() if node.stopped is not None}


class Stub:
    """What a Reconcile wants of an engine and of a background."""

    def __init__(self, net: Net, id_: int, chains: list[int], first_kept: int) -> None:
        self.net, self.id, self.chains, self.first_kept = net, id_, chains, first_kept
        self.calls: list[Callable[[], object]] = []
        self.stopped: int | None = None
        self.left = False
        self.marks: list[int] = []
        self.reconcile = Reconcile(cast(Handle, self), cast(Any, self), Alarms(id_))
        self.reconcile.stop = self.stop

    def stop(self, instance: int, error: Diverged) -> None:
        self.stopped = instance

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], object]) -> None:
        done(work(), None)

    def status(self) -> dict[str, Any]:
        peers = {id_: True for id_ in self.net.nodes if id_ != self.id}
        return {
            "node_id": self.id,
            "formed": True,
            "chosen": len(self.chains),
            "first_kept": self.first_kept,
            "peers": peers,
        }

    def membership(self) -> bytes:
        return table(*((id_, 2 if id_ in self.net.followers else 0) for id_ in self.net.nodes))

    def send(self, node: int, data: bytes) -> bool:
        if not self.net.lost(self.id, node, data):
            self.net.due.append(lambda: self.net.nodes[node].reconcile.receive(self.id, bytes(data)))
        return True

    def ask_chain(self, instance: int) -> None:
        there = self.first_kept <= instance < len(self.chains)
        self.net.due.append(lambda: self.reconcile.known(instance, self.chains[instance] if there else 0))

    def part(self) -> None:
        self.left = True

    def distrust(self, first: int, why: str) -> None:
        self.marks.append(first)


RIGHT = list(range(1, 101))


def wrong_from(instance: int, by: int = 1000) -> list[int]:
    return [chain + by * (number >= instance) for number, chain in enumerate(RIGHT)]


def test_followers_are_compared_and_have_no_say() -> None:
    net = Net(
        {1: RIGHT, 2: RIGHT, 3: RIGHT, 4: wrong_from(50), 5: wrong_from(50), 6: wrong_from(50)}, followers=(4, 5, 6)
    )
    net.tick(30)
    assert sorted(net.stopped) == [4, 5, 6], "they were more than half of all"
    assert all(net.nodes[id_].marks[-1] == 50 for id_ in (4, 5, 6))
    net = Net({1: RIGHT, 2: [], 3: [], 4: wrong_from(0)}, followers=(4,))
    net.lost = lambda source, target, data: {source, target} & {2, 3} != set()
    net.tick(30)
    assert net.stopped.keys() <= {4}, "a voter does not stop for what a follower says"


def test_equal_nodes_agree_on_the_newest_instance_that_a_majority_has() -> None:
    net = Net({1: RIGHT, 2: RIGHT[:90], 3: RIGHT[:5]})
    net.tick(5)
    assert net.stopped == {}
    assert {id_: node.reconcile.compared for id_, node in net.nodes.items()} == {1: 90, 2: 90, 3: 5}


@pytest.mark.parametrize("first", [0, 1, 37, 63, 64, 98, 99])
def test_who_is_in_the_minority_stops_and_finds_the_first_instance(
    first: int, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net({1: RIGHT, 2: wrong_from(first), 3: RIGHT})
    net.tick(4)
    assert net.stopped == {2: 99}
    assert [id_ for id_, node in net.nodes.items() if node.left] == [2]
    assert f"the first one is {first}" in caplog.text
    assert net.nodes[2].marks == [0, first], "until the place is known nothing is to be trusted"
    assert isinstance(net.nodes[2].reconcile.diverged, Diverged)


def test_a_difference_below_what_the_logs_hold_is_said_to_be_there(caplog: pytest.LogCaptureFixture) -> None:
    net = Net({1: RIGHT, 2: wrong_from(10), 3: RIGHT}, {1: 40, 2: 20, 3: 40})
    net.tick(4)
    assert net.stopped == {2: 99}
    assert "the first one is 40, or one before it that the logs no longer hold" in caplog.text
    assert net.nodes[2].marks == [0, 0]


def test_without_a_majority_all_stop_and_keep_their_logs() -> None:
    net = Net({1: RIGHT, 2: wrong_from(10), 3: wrong_from(20, 5000)})
    net.tick(3)
    assert set(net.stopped) == {1, 2, 3}
    assert not any(node.left or node.marks for node in net.nodes.values())


def test_an_answer_that_is_missing_is_waited_for() -> None:
    net = Net({1: RIGHT, 2: wrong_from(10), 3: RIGHT})
    net.lost = lambda source, target, data: 3 in (source, target)
    net.tick(8)
    assert net.stopped == {}, "node 3 will say who is right"
    net.lost = lambda source, target, data: False
    net.tick(3)
    assert net.stopped == {2: 99}


def test_a_difference_that_nobody_settles_stops_both() -> None:
    net = Net({1: RIGHT, 2: wrong_from(10), 3: RIGHT})
    net.lost = lambda source, target, data: 3 in (source, target)
    net.tick(14)
    assert set(net.stopped) == {1, 2}


def test_a_bisection_outlives_lost_messages(caplog: pytest.LogCaptureFixture) -> None:
    net = Net({1: RIGHT, 2: wrong_from(37), 3: RIGHT})
    dice = random.Random(5)
    net.lost = lambda source, target, data: net.nodes[2].left and dice.random() < 0.3
    net.tick(40)
    assert "the first one is 37" in caplog.text


def test_a_bisection_that_gets_no_answer_ends_and_trusts_no_checkpoint(caplog: pytest.LogCaptureFixture) -> None:
    net = Net({1: RIGHT, 2: wrong_from(37), 3: RIGHT})
    net.lost = lambda source, target, data: net.nodes[2].left
    net.tick(20)
    assert "the first one is not before 0, and not behind 99" in caplog.text
    assert net.nodes[2].marks == [0, 0]


def test_malformed_messages_change_nothing() -> None:
    net = Net({1: RIGHT, 2: RIGHT, 3: RIGHT})
    for data in (b"\x10", b"\x11", b"\x11" + bytes(40), b"\x12" + bytes(5), b"\x12", b"\x63abc"):
        net.nodes[1].reconcile.receive(2, data)
    net.tick(3)
    assert net.nodes[1].reconcile.compared == 100


# ---- the mark for the next start ----


def test_the_mark_sets_checkpoints_aside_that_hold_what_is_wrong() -> None:
    folder = MemoryDisk(1).folder()
    folder.open()
    files = folder.files()
    assert distrusted(files) is None
    for instance in (5, 10, 11):
        for ending in (".manifest", "-0.data"):
            files.create(f"{instance:016x}{ending}").close()
    mark(files, 3, "first")
    mark(files, 10, "then")
    assert distrusted(files) == (10, "then")
    set_aside(files)
    assert distrusted(files) is None
    there = sorted(files.names())
    assert there == sorted(
        [f"{i:016x}{ending}" for i in (5, 10) for ending in (".manifest", "-0.data")]
        + [f"distrusted-{11:016x}{ending}" for ending in (".manifest", "-0.data")]
    )


# ---- real nodes ----


def rewrite(path: Path, instance: int, new: bytes) -> None:
    (segment,) = path.glob("log/*.seg")
    data = bytearray(segment.read_bytes())
    assert substitute(data, instance, new)
    segment.write_bytes(data)


@pytest.mark.parametrize("heal", [True, False])
def test_a_log_with_a_value_that_was_not_chosen(tmp_path: Path, caplog: pytest.LogCaptureFixture, heal: bool) -> None:
    """The record was changed and sealed again, so the log verifies."""

    async def story(c: RealCluster) -> None:
        node = c.nodes[c.master()]
        for number in range(20):
            await node.propose(b"value %02d" % number, timeout=10)
        await c.level()
        wrong = other_than(c.master())
        index = c.of(wrong).values.index(b"value 11")
        instance = node.status().chosen - (20 - 11)
        assert index == 11
        await c.stop(wrong)
        rewrite(tmp_path / str(wrong), instance, b"12")
        with caplog.at_level(logging.WARNING, "paxos"):
            await c.start(wrong)
            bad = c.nodes[wrong]
            await until(lambda: f"the first one is {instance}" in caplog.text, "it knows where")
        assert c.of(wrong).values[11].decode() == "value 12", "(it was applied: replay comes before the comparison)"
        assert "Diverged" in str(bad.status().state_machine_error)
        with pytest.raises(paxos.NotAvailable, match="differs from others"):
            await bad.propose(b"x", timeout=5)
        right = c.nodes[other_than(wrong)]
        await right.propose(b"the others go on", timeout=10)
        assert right.status().state_machine_error is None
        applied = bad.status().applied
        await right.propose(b"and on", timeout=10)
        assert bad.status().applied == applied
        await c.stop(wrong)
        await c.start(wrong)
        status = c.nodes[wrong]._engine.status()  # type: ignore[attr-defined]
        if not heal:
            assert status["quarantined"] is None
            await until(lambda: c.nodes[wrong].status().state_machine_error is not None, "it is found again")
            return
        assert status["quarantined"] is not None
        assert f"the first one is {instance}" in (Path(status["quarantined"]) / "why.txt").read_text()
        await right.propose(b"at last", timeout=10)
        await c.level()
        assert c.of(wrong).values[11] == b"value 11"

    run(tmp_path, story, heal_divergence=heal)


class Shaky(Journal):
    """Its answers differ where it was told so."""

    wrong = False

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        super().apply_batch(instance, values)
        return [(instance, self.wrong and instance == 70) for _ in values]


class Wrong(Shaky):
    wrong = True


def test_a_state_machine_that_answers_differently_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        c = RealCluster(tmp_path, machine=Shaky, check_results=True)
        try:
            await c.start(1, 2)
            c.machine = Wrong
            await c.start(3)
            for node in c.nodes.values():
                await node.wait_ready(30)
            for number in range(140):
                await c.nodes[1].propose(b"%d" % number, timeout=10)
            await until(lambda: c.nodes[3].status().state_machine_error is not None, "node 3 is found out")
            assert "state machine 0 (Wrong) for instances 64 to 127 are not those of the majority" in caplog.text
            assert "set its data directory aside" in caplog.text
            await c.nodes[1].propose(b"the others go on", timeout=10)
            assert c.nodes[1].status().state_machine_error is None
            assert c.nodes[2].status().state_machine_error is None
        finally:
            await c.stop()

    with caplog.at_level(logging.CRITICAL, "paxos"):
        asyncio.run(main())


# ---- checksums over results ----


def test_results_of_different_types_or_shapes_are_encoded_differently() -> None:
    different = [
        None, True, False, 0, 1, -1, 1 << 70, b"", b"1", "", "1", "\ud800", (), [], (1,), [1], ((1,),), (1, 1), ("1",), (b"1",),
        ("a", "b"), ("ab",), (("a",), "b"), (None, None), (None,),
    ]  # fmt: skip
    seen = set()
    for result in different:
        out = bytearray()
        encode(result, out)
        seen.add(bytes(out))
    assert len(seen) == len(different)


@pytest.mark.parametrize("result", [1.5, {}, {1}, object(), [[1.5]], bytearray(b"x"), type("Own", (int,), {})(3)])
def test_other_results_are_not_checked(result: object) -> None:
    with pytest.raises(TypeError):
        encode(result, bytearray())


def test_a_result_that_is_nested_without_end_is_not_checked() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(TypeError):
        encode(endless, bytearray())


class Digested(Registers):
    """Has a digest."""

    said = b"one"

    def digest(self) -> bytes:
        return self.said


def told(results: Results, stub: Any) -> bytes:
    stub.sent = []
    results.tell([2])
    return b"".join(stub.sent)


class Sender:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, node: int, data: bytes) -> None:
        self.sent.append(data)


def checked(machine: paxos.StateMachine, begin: int, end: int, result: Callable[[int], object] = str) -> Results:
    results = Results(cast(Handle, Sender()), {0: machine})
    for instance in range(begin, end):
        results.note(0, instance, [result(instance)])
    return results


def windows(results: Results) -> dict[int, int]:
    data = told(results, results._engine)
    return {window: crc for _, window, crc in struct.iter_unpack("<IQI", data[1:])} if data else {}


def test_a_node_that_begins_in_the_middle_is_comparable_from_its_next_window_on() -> None:
    whole, part = windows(checked(Registers(), 0, 4 * WINDOW)), windows(checked(Registers(), 70, 4 * WINDOW))
    assert sorted(whole) == [0, 1, 2, 3]
    assert sorted(part) == [2, 3]
    assert part.items() <= whole.items()
    gap = checked(Registers(), 0, 10)
    for instance in range(11, 3 * WINDOW):
        gap.note(0, instance, [str(instance)])
    assert sorted(windows(gap)) == [1, 2]


def test_one_result_that_differs_changes_its_window_alone() -> None:
    whole = windows(checked(Registers(), 0, 4 * WINDOW))
    other = windows(checked(Registers(), 0, 4 * WINDOW, lambda i: str(i) if i != 100 else 100))
    assert [window for window in whole if whole[window] != other[window]] == [1]


def test_a_digest_that_differs_is_found_though_the_results_are_equal() -> None:
    a, b = Digested(), Digested()
    b.said = b"two"
    left, right = windows(checked(a, 0, 16 * WINDOW)), windows(checked(b, 0, 16 * WINDOW))
    assert [window for window in left if left[window] != right[window]] == [15]


def test_what_is_not_checked_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert windows(checked(Registers(), 0, 4 * WINDOW, float)) == {}
    assert caplog.text.count("answers with a float, which is not checked") == 1


def test_the_majority_of_the_windows_decides_and_far_ones_are_not_kept() -> None:
    results = checked(Registers(), 0, 4 * WINDOW)
    own = windows(results)
    entry = struct.Struct("<IQI")
    for window in range(KEPT * 3):
        results.receive(2, b"\x12" + entry.pack(0, window, own.get(window, 5)))
    assert len(results._others) <= 2 * KEPT
    assert results.compare((2, 3)) is None
    results.receive(2, b"\x12" + entry.pack(0, 2, 1))
    assert results.compare((2, 3)) is None, "node 3 may say the same as this one"
    results.receive(3, b"\x12" + entry.pack(0, 2, 1))
    found = results.compare((2, 3))
    assert found is not None
    assert found[0] == 2 * WINDOW
    results.receive(3, b"\x12" + entry.pack(0, 2, 7))
    found = results.compare((2, 3))
    assert found is not None
    assert "no majority agrees" in str(found[1])


# ---- the simulator ----


def test_a_simulated_node_whose_log_holds_something_else_stops_and_gets_well_at_its_next_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster(lambda node, before: Registers(), seed=3, segment_size=1 << 20)
    try:
        assert cluster.run_until(lambda: cluster.master() is not None, 10)

        class Done:
            def __init__(self) -> None:
                self.over = False

            def done(self) -> bool:
                return self.over

            def set_result(self, result: object, /) -> None:
                self.over = True

            def set_exception(self, error: BaseException, /) -> None:
                raise error

        def write(word: bytes) -> None:
            done, master = Done(), cluster.master()
            assert master is not None
            master.submit(done, b"set:k:" + word + b":")
            assert cluster.run_until(done.done, 10)

        for number in range(10):
            write(b"%04d" % number)
        assert cluster.run_until(cluster.level, 10)
        cluster.run(1.0)
        master = cluster.master()
        wrong = next(replica for replica in cluster.replicas if replica is not master)
        instance = wrong.status()["chosen"] - 5
        cluster.crash(wrong)
        folder = cluster.world.folder(wrong.index)
        (name,) = [name for name in folder.names() if name.endswith(".seg")]
        data = bytearray(folder.view(name))
        assert substitute(data, instance, b"9:")
        folder.replace(name, bytes(data))
        # Judges, and the comparison of what is applied, would say it at once: here the node itself is to find out.
        cluster.world.unjudged()
        monkeypatch.setattr(cluster, "compare", lambda *anything: None)

        def drain(index: int) -> None:
            group = cluster.replicas[index].group
            if group is not None:
                group.drain()

        cluster.world.on_python = drain
        assert wrong.start()
        group = wrong.group
        assert group is not None
        assert cluster.run_until(lambda: group.error is not None, 20)
        assert isinstance(group.error, Diverged)
        others = [replica for replica in cluster.replicas if replica is not wrong]
        assert not any(replica.group.error for replica in others if replica.group is not None)
        write(b"more")
        assert cluster.run_until(lambda: cluster.level(others), 10)
        cluster.run(2.0)
        assert wrong.status()["chosen"] < others[0].status()["chosen"], "it takes no part any more"
        incarnation = cluster.world.incarnation(wrong.index)
        cluster.crash(wrong)
        assert wrong.start()
        assert f"the first one is {instance}" in str(wrong.status()["damage"])
        assert cluster.world.incarnation(wrong.index) != incarnation
        assert cluster.run_until(lambda: cluster.world.votes(wrong.index) and cluster.level(), 30)
    finally:
        cluster.close()
