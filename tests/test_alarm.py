"""Alarms: each is a line in the log, a count in the status, and a call of the owner's own, whatever that does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import logging
import re
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import paxos
from calls import master_of
from nodes import DEADLINE, Journal, book, cluster, table, until
from paxos.alarm import Alarms, Kind
from paxos.errors import DamagedLog
from paxos.scrub import Scrub
from paxos.testing.cluster import Cluster as SimulatedNodes
from paxos.testing.simcluster import SimCluster
from paxos.testing.workload import Registers
from test_full_disk import fill, work
from test_getting_well import Cluster, flip, other_than, run
from test_host_regressions import Script, chosen, group
from test_reconcile import RIGHT, Net, wrong_from
from test_scrub import Recycled

SMALL: dict[str, Any] = {"segment_bytes": 4 << 20, "max_value": 1 << 20}
TOP = Path(__file__).resolve().parent.parent


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "paxos")
    return caplog


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has of level CRITICAL, and of a full disk."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


# ---- the place where they are raised ----


def test_an_alarm_is_a_line_a_count_and_a_call(quiet: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []
    alarms = Alarms(7, heard.append)
    error = ValueError("of it")
    alarms.sound("apply-failed", "at %d: %s", 5, "100 %", instance=5, error=error)
    alarms.sound("disk-full", "100 % full", level=logging.ERROR, path="here")
    alarms.sound("disk-full", "again")
    assert alarms.counts == {"apply-failed": 1, "disk-full": 2}
    assert heard == [
        paxos.Alarm("apply-failed", "at 5: 100 %", 7, instance=5, error=error),
        paxos.Alarm("disk-full", "100 % full", 7, path="here"),
        paxos.Alarm("disk-full", "again", 7),
    ]
    assert [record.getMessage() for record in quiet.records] == [alarm.text for alarm in heard]
    first, second, _ = quiet.records
    assert (first.levelno, second.levelno) == (logging.CRITICAL, logging.ERROR)
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert first.funcName == "test_an_alarm_is_a_line_a_count_and_a_call", "the log names who raised it"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), asyncio.CancelledError()])
def test_what_the_callback_raises_is_logged(quiet: pytest.LogCaptureFixture, error: BaseException) -> None:
    def broken(alarm: paxos.Alarm) -> None:
        raise error

    alarms = Alarms(1, broken)
    alarms.sound("bug", "one")
    record = quiet.records[-1]
    assert "on_alarm has failed, at an alarm of the kind bug" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert alarms.counts == {"bug": 1}


def test_ctrl_c_in_the_callback_is_not_kept_from_the_process(quiet: pytest.LogCaptureFixture) -> None:
    def interrupted(alarm: paxos.Alarm) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Alarms(1, interrupted).sound("bug", "one")


def test_nothing_else_of_the_library_logs_what_is_critical() -> None:
    """Else the log would say what neither the count nor the callback knows."""
    found = [
        path.name
        for path in (TOP / "paxos").rglob("*.py")
        if path.name != "alarm.py" and re.search(r"\.critical\(|log\((logging\.)?CRITICAL", path.read_text())
    ]
    assert not found


def test_the_operator_s_guide_has_each_kind() -> None:
    section = (TOP / "docs" / "operations.md").read_text().split("## Alarms")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == sorted(typing.get_args(Kind))


@pytest.mark.parametrize("wrong", ["loud", asyncio.sleep])
def test_a_callback_that_would_not_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(paxos.ConfigError, match="on_alarm"):
        paxos.Options(on_alarm=wrong)


# ---- what a group makes of the engine's events ----


class Poisoned(Journal):
    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        if b"poison" in values:
            raise ValueError("cannot digest this")
        return super().apply_batch(instance, values)


@pytest.mark.parametrize(
    ("event", "alarm"),
    [
        ((3, logging.ERROR, "no room", "disk-full"), paxos.Alarm("disk-full", "no room", 1)),
        ((3, logging.CRITICAL, "it is empty", "log-lost"), paxos.Alarm("log-lost", "it is empty", 1)),
        ((5, 0, 40, 2), paxos.Alarm("values-differ", "values differ between nodes", 1, instance=40)),
        (chosen(0, b"poison"), paxos.Alarm("apply-failed", "the state machine raised at instance 0", 1, instance=0)),
        ((3, logging.ERROR, "only a line of the log", None), None),
    ],
)
def test_an_event_is_the_alarm_that_it_should_be(
    quiet: pytest.LogCaptureFixture, event: tuple[Any, ...], alarm: paxos.Alarm | None
) -> None:
    heard: list[paxos.Alarm] = []
    script = Script()
    g = group(script, Poisoned, alarms=Alarms(1, heard.append))
    script.events = [[event]]
    g.drain()
    if alarm is None:
        assert not heard
        return
    (told,) = heard
    assert told.text.startswith(alarm.text)
    assert dataclasses.replace(told, text=alarm.text, error=None) == alarm
    assert (told.error is not None) == (alarm.kind == "apply-failed")
    assert quiet.messages == [told.text]
    assert quiet.records[0].levelno == (logging.ERROR if alarm.kind == "disk-full" else logging.CRITICAL)


class Outside(Script):
    """An engine that is no member any more, or is turned away."""

    def __init__(self, members: bytes, replaced: bool, disowned: list[int], incarnation: int = 1) -> None:
        super().__init__()
        self.members, self.replaced, self.disowned = members, replaced, disowned
        self.incarnation = f"{incarnation:016x}" * 2
        self.at = 0

    def now(self) -> int:
        return self.at

    def status(self) -> dict[str, Any]:
        own = {"incarnation": self.incarnation, "replaced": self.replaced, "disowned": self.disowned}
        return {**super().status(), **own}

    def membership(self) -> bytes:
        return self.members

    def poke(self) -> None:
        pass


MEMBERS = [(1, 0), (2, 0), (3, 0)]
AGAIN = table(*MEMBERS)[:64] + bytes(16) + table(*MEMBERS)[80:]  # node 1 is to come anew


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (Outside(table(*MEMBERS), False, []), None),
        (Outside(table(*MEMBERS), True, [], incarnation=9), "replaced"),
        (Outside(table(*MEMBERS[1:]), True, []), "removed"),
        (Outside(AGAIN, True, []), "removed"),  # ... and added again, for another directory
        (Outside(AGAIN, False, []), None),
        (Outside(table(*MEMBERS[1:]), False, []), None),  # it has not been one yet
        (Outside(table(*MEMBERS), False, [2, 3]), "removed"),
        (Outside(table(*MEMBERS), False, [2]), None),  # which may be behind
        (Outside(table(*MEMBERS, (4, 0), (5, 2)), False, [4, 5]), None),
        (Outside(table((1, 3), (2, 0), (3, 0)), False, [3]), "removed"),
        (Outside(table((1, 3), (2, 0), (3, 0)), False, []), None),
        (Outside(table(*MEMBERS), False, [2, 3], incarnation=9), None),  # it waits for its place
    ],
)
def test_who_is_no_member_any_more_says_so_once(quiet: pytest.LogCaptureFixture, engine: Outside, kind: str) -> None:
    heard: list[paxos.Alarm] = []
    g = group(engine, alarms=Alarms(1, heard.append))
    for _ in range(3):
        engine.events = [[(9, 0, 1)]]
        g.drain()
        if engine.at == 0:
            assert kind != "removed" or not engine.disowned or heard == [], "those may be behind, for a moment"
        engine.at += 2_000_000_000
    assert [alarm.kind for alarm in heard] == ([] if kind is None else [kind])
    if kind is None:
        assert g.submit(concurrent.futures.Future(), b"x", 1.0, 0) is None
        return
    assert heard[0].text.startswith("node 1 has been removed" if kind == "removed" else "another process")
    with pytest.raises(paxos.NotAvailable, match="it is no member; propose at another node"):
        g.submit(concurrent.futures.Future(), b"x", 1.0, 0)


def test_a_bug_is_an_alarm(quiet: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []
    g = group(Script(), alarms=Alarms(1, heard.append))

    def broken() -> None:
        raise ZeroDivisionError

    g._guarded(broken)
    assert [(alarm.kind, type(alarm.error)) for alarm in heard] == [("bug", ZeroDivisionError)]
    assert lines(quiet) == [heard[0].text]


# ---- those of the comparison, and of the scrub ----


@pytest.mark.parametrize("marks", [True, False])
def test_a_node_that_differs_says_so(quiet: pytest.LogCaptureFixture, marks: bool) -> None:
    net = Net({1: RIGHT, 2: wrong_from(37), 3: RIGHT})
    heard: list[paxos.Alarm] = []
    stub = net.nodes[2]
    stub.reconcile._alarms = Alarms(2, heard.append)
    if not marks:
        stub.run = lambda work, done: done(None, OSError("a read-only file system"))  # type: ignore[method-assign]
    net.tick(4)
    told = [(alarm.kind, alarm.instance) for alarm in heard if alarm.kind == "diverged"]
    assert told == [("diverged", 99), ("diverged", 37)], "what to do, and where it begins"
    failed = [alarm.text for alarm in heard if alarm.kind == "heal-failed"]
    assert len(failed) == (0 if marks else 2)
    assert all("set the data directory aside" in text for text in failed)
    assert lines(quiet) == [alarm.text for alarm in heard]


def test_a_group_that_differs_says_so(quiet: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []
    g = group(Script(), alarms=Alarms(1, heard.append))
    g._keeper = typing.cast(Any, type("Withdrawn", (), {"withdraw": lambda self: None})())
    g.diverged(12, paxos.Diverged("it differs"))
    assert heard == [paxos.Alarm("diverged", "it differs", 1, instance=12)]


class Unhealed(Recycled):
    """A damaged segment that stays: no checkpoint can be made."""

    def stopped(self) -> bool:
        return False

    def make(self, done: Callable[[None, BaseException], object], *, here: bool) -> None:
        done(None, paxos.StorageError("no room"))


def test_a_segment_that_cannot_be_got_rid_of_is_said_once(quiet: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []
    stub: Any = Unhealed(1)
    Scrub(stub, stub, stub, stub, 1000, Alarms(1, heard.append))
    stub.run = lambda work, done: done(None, DamagedLog("bad"))
    healing: list[Callable[[], object]] = []
    stub.later, first = lambda seconds, call: healing.append(call), stub.call
    first()
    healing[0]()
    assert [alarm.kind for alarm in heard] == ["log-damaged", "heal-failed"]
    assert heard[1].text == "the damaged segment 1 cannot be got rid of: no room"
    assert lines(quiet) == [alarm.text for alarm in heard]


# ---- whole nodes ----


@pytest.fixture
def simulated() -> Iterator[SimulatedNodes]:
    heard: list[paxos.Alarm] = []
    made = SimulatedNodes(
        lambda node, before: Registers(), seed=1, segment_size=1 << 17, max_value=1 << 12, batch_bytes=1 << 12,
        log_budget=1 << 24, scrub_rate=1 << 22, on_alarm=heard.append,
    )  # fmt: skip
    made.heard = heard  # type: ignore[attr-defined]
    yield made
    made.close()


def test_a_full_disk_is_an_alarm(simulated: SimulatedNodes, quiet: pytest.LogCaptureFixture) -> None:
    full = master_of(simulated)
    heard: list[paxos.Alarm] = simulated.heard  # type: ignore[attr-defined]
    assert heard == []
    fill(simulated, full)
    assert simulated.run_until(lambda: bool(heard), 5)
    assert [(alarm.kind, alarm.node_id) for alarm in heard] == [("disk-full", full.id)]
    assert full.group is not None
    assert full.group.status().alarms == {"disk-full": 1}
    other = next(each for each in simulated.replicas if each is not full)
    work(simulated, other, lambda: len(heard) == 2)
    assert "does not even vote" in heard[1].text
    assert full.group.status().alarms == {"disk-full": 2}
    simulated.world.disk(full.index, full=False)
    assert simulated.run_until(lambda: not full.status()["disk_full"], 5)
    simulated.run(1)
    assert len(heard) == 2, "that there is room again is none"


def test_a_log_that_rots_is_an_alarm(simulated: SimulatedNodes, quiet: pytest.LogCaptureFixture) -> None:
    hurt = next(each for each in simulated.replicas if each is not master_of(simulated))
    heard: list[paxos.Alarm] = simulated.heard  # type: ignore[attr-defined]
    assert simulated.world.flip(hurt.index) is not None
    assert simulated.run_until(lambda: bool(heard), 10)
    assert [(alarm.kind, alarm.node_id) for alarm in heard] == [("log-damaged", hurt.id)]
    assert "0000000000000001.seg, offset" in heard[0].text
    assert lines(quiet) == [heard[0].text]


@pytest.mark.parametrize(("suffix", "raises"), [(".data", False), (".manifest", True)])
def test_alarms_of_the_opening_come_before_it_returns(
    tmp_path: Path, quiet: pytest.LogCaptureFixture, suffix: str, raises: bool
) -> None:
    """On the thread of the event loop, though another one opens the node. It gets well, whatever the callback does."""

    async def story(c: Cluster) -> None:
        await c.write(3000)
        await c.level()
        hurt = other_than(c.master())
        await c.nodes[hurt].checkpoint()
        await c.stop(hurt)
        directory = tmp_path / str(hurt)
        flip(min((directory / "log").glob("*.seg")), 9000)
        file = max((directory / "checkpoints").glob("*" + suffix), key=lambda path: path.stat().st_size)
        flip(file, file.stat().st_size // 2)
        quiet.clear()
        heard: list[tuple[paxos.Alarm, threading.Thread]] = []

        def on_alarm(alarm: paxos.Alarm) -> None:
            heard.append((alarm, threading.current_thread()))
            if raises:
                raise ValueError("not today")

        await c.start(hurt, on_alarm=on_alarm)
        assert [alarm.kind for alarm, _ in heard[:2]] == ["log-set-aside", "checkpoint-damaged"]
        first, second = (alarm for alarm, _ in heard[:2])
        assert first.path == str(directory / "quarantine" / "001")
        assert first.path in first.text
        assert second.instance == int(file.name[:16], 16)
        await c.write(10)
        await c.level()
        assert "log-lost" in [alarm.kind for alarm, _ in heard], "as of a node whose directory is empty"
        assert {thread for _, thread in heard} == {threading.current_thread()}
        assert {alarm.node_id for alarm, _ in heard} == {hurt}
        assert lines(quiet) == [alarm.text for alarm, _ in heard]
        counts = c.nodes[hurt].status().alarms
        assert counts["log-set-aside"] == counts["checkpoint-damaged"] == 1
        assert sum(counts.values()) == len(heard)
        assert sum("not today" in str(r.exc_info) for r in quiet.records) == (len(heard) if raises else 0)
        assert all(node.status().alarms == {} for id_, node in c.nodes.items() if id_ != hurt)

    run(tmp_path, story)


def test_an_alarm_of_an_opening_that_fails_is_heard(tmp_path: Path, quiet: pytest.LogCaptureFixture) -> None:
    """All checkpoints of a node that is alone are damaged, and its log does not go back to the beginning."""

    async def main() -> None:
        heard: list[str] = []
        addresses = book(1)
        async with Cluster(tmp_path, count=1) as c:
            addresses = c.addresses
            await c.deleted()
        for data in (tmp_path / "1" / "checkpoints").glob("*.data"):
            flip(data, data.stat().st_size // 2)
        with pytest.raises(paxos.DamagedCheckpoint):
            await paxos.Node.open(
                tmp_path / "1", node_id=1, cluster=addresses, state_machine=c.machine, **c.options,
                on_alarm=lambda alarm: heard.append(alarm.kind),
            )  # fmt: skip
        assert set(heard) == {"checkpoint-damaged"}

    asyncio.run(main())


def test_a_state_machine_that_fails_is_an_alarm_and_the_node_votes_on(
    tmp_path: Path, quiet: pytest.LogCaptureFixture
) -> None:
    heard: list[paxos.Alarm] = []

    def broken(alarm: paxos.Alarm) -> None:
        heard.append(alarm)
        raise RuntimeError("the pager is broken")

    made = 0

    def make() -> Journal:
        nonlocal made
        made += 1
        return Poisoned() if made == 1 else Journal()

    async def main() -> None:
        async with cluster(tmp_path, machine=make, on_alarm=broken) as nodes:
            with pytest.raises(paxos.StateMachineFailed):
                await nodes[1].propose(b"poison", timeout=DEADLINE)
            await until(lambda: bool(heard), "the callback has been called")
            assert [(alarm.kind, alarm.node_id) for alarm in heard] == [("apply-failed", 1)]
            assert isinstance(heard[0].error, ValueError)
            assert "the pager is broken" in quiet.text
            assert nodes[1].status().alarms == {"apply-failed": 1}
            chosen_before = nodes[1].status().chosen
            await until(lambda: any(nodes[i].is_master() for i in (2, 3)), "another node is master")
            await nodes[2].propose(b"goes on", timeout=DEADLINE)
            await until(lambda: nodes[1].status().chosen > chosen_before, "the node still votes and learns")

    asyncio.run(main())


def test_a_checkpoint_of_another_cluster_is_an_alarm(tmp_path: Path, quiet: pytest.LogCaptureFixture) -> None:
    heard: list[paxos.Alarm] = []

    async def story(c: Cluster) -> None:
        await c.write(10)
        await c.nodes[1].checkpoint()
        keeper = c.nodes[1]._group.keeper
        newest = keeper._newest
        assert newest is not None
        keeper._fetched(dataclasses.replace(newest, signature=bytes(len(newest.signature))))
        await until(lambda: bool(heard), "the callback has been called")
        assert [(alarm.kind, alarm.instance) for alarm in heard] == [("checkpoint-foreign", newest.instance)]
        assert lines(quiet) == [heard[0].text]

    run(tmp_path, story, count=1, on_alarm=heard.append)


def test_threads_hear_of_it_on_the_one_that_applies_and_it_goes_on(
    tmp_path: Path, quiet: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, str]] = []
    told = threading.Event()

    def on_alarm(alarm: paxos.Alarm) -> None:
        heard.append((alarm.kind, threading.current_thread().name))
        told.set()
        raise SystemExit  # it would end that thread, and all who wait would wait for ever

    with paxos.SyncNode.open(
        tmp_path / "1", node_id=1, cluster=book(1), state_machine=Poisoned, on_alarm=on_alarm, **SMALL
    ) as node:
        node.wait_ready(DEADLINE)
        future = node.submit(b"poison", timeout=DEADLINE)
        assert isinstance(future.exception(DEADLINE), paxos.StateMachineFailed)
        assert told.wait(DEADLINE)
        assert heard == [("apply-failed", "paxos-apply-1")]
        assert node.status().alarms == {"apply-failed": 1}
        assert node._thread.is_alive()


# ---- a user's own simulation ----


def test_a_simulated_node_tells_the_test(quiet: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, int, bool]] = []

    def on_alarm(alarm: paxos.Alarm) -> None:
        heard.append((alarm.kind, alarm.node_id, asyncio.get_running_loop() is simulation.loop))

    async def fill_one() -> None:
        simulation.cluster.world.disk(0, full=True)
        while not heard:
            await simulation.propose(bytes(1 << 12))

    with SimCluster(Journal, segment_bytes=1 << 18, max_value=1 << 16, on_alarm=on_alarm) as simulation:
        simulation.run(fill_one())
        assert heard == [("disk-full", 1, True)]
        assert simulation.node(1).status().alarms == {"disk-full": 1}


def test_a_callback_that_raises_fails_the_simulation() -> None:
    def on_alarm(alarm: paxos.Alarm) -> None:
        raise AssertionError("this must not happen")

    async def fill_one() -> None:
        simulation.cluster.world.disk(0, full=True)
        while True:
            await simulation.propose(bytes(1 << 12))

    with (
        SimCluster(Journal, segment_bytes=1 << 18, max_value=1 << 16, on_alarm=on_alarm) as simulation,
        pytest.raises(AssertionError, match="this must not happen"),
    ):
        simulation.run(fill_one())
