"""The table of sessions by itself: what a record does, and that it depends on nothing but the records (design rule 18)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paxos
from paxos import sessions as s
from paxos._folder import Folder
from paxos.checkpoint import CheckpointStore
from paxos.sessions import SESSIONS, SessionId, SessionTable, Verdict
from paxos.snapshot import Cut, Writing, make_machines, restore_machines

FOREVER = 1 << 40
Runs = list[tuple[int, list[bytes]]]


class Machine(paxos.StateMachine):
    """Answers with bytes: how many values came before, and the value."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.batches: list[tuple[int, list[bytes]]] = []

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        first = len(self.values)
        self.values += values
        self.batches.append((instance, list(values)))
        return [b"%d %b" % (number, value) for number, value in enumerate(values, first)]


class Group:
    """A table with the state machines behind it: what ``paxos.group`` and the mirror do."""

    def __init__(self, *ids: int) -> None:
        self.table = SessionTable()
        self.machines: dict[int, Any] = {id_: Machine() for id_ in ids or (0,)}
        self.instance = -1

    def apply(self, runs: Runs, at: int | None = None) -> list[Sequence[object]]:
        self.instance = self.instance + 1 if at is None else at
        step = self.table.unwrap(self.instance, runs)
        batches: dict[int, list[bytes]] = {id_: [] for id_ in self.machines}
        places = []
        for id_, values in step.runs:
            places.append((id_, len(batches[id_]), len(values)))
            batches[id_] += values
        results = {id_: list(self.machines[id_].apply_batch(self.instance, batch)) for id_, batch in batches.items()}
        return step.wrap([results[id_][start : start + count] for id_, start, count in places], self.machines)

    def one(self, record: bytes, at: int | None = None) -> s.Answer:
        answer = self.apply([(SESSIONS, [record])], at)[0][0]
        assert isinstance(answer, s.Answer)
        return answer

    def open(self, lifetime: int = FOREVER, mark: int = 7, at: int | None = None) -> SessionId:
        answer = self.one(s.pack_open(mark, lifetime), at)
        assert answer.verdict is Verdict.OPENED
        assert answer.session is not None
        return answer.session

    @property
    def values(self) -> list[bytes]:
        found: list[bytes] = self.machines[0].values
        return found


def state(table: SessionTable) -> bytes:
    out = io.BytesIO()
    table.snapshot(out)
    return out.getvalue()


def copy(table: SessionTable) -> SessionTable:
    made = SessionTable()
    made.restore(io.BytesIO(state(table)))
    return made


def test_a_token_is_applied_once_and_answered_alike() -> None:
    group = Group()
    session = group.open()
    record = s.pack_value(session, 0, 0, 0, b"a")
    first = group.one(record)
    assert (first.verdict, first.result) == (Verdict.DONE, b"0 a")
    # Twice in one instance, too: the second copy waits for the answer of the first.
    other = s.pack_value(session, 1, 0, 0, b"b")
    answers = group.apply([(SESSIONS, [other, record, other])])[0]
    assert [answer.result for answer in answers] == [b"1 b", b"0 a", b"1 b"]  # type: ignore[attr-defined]
    assert group.one(other).result == b"1 b"
    assert group.values == [b"a", b"b"]


def test_values_keep_their_places_beside_those_without_tokens() -> None:
    group = Group(0, 5)
    session = group.open()
    results = group.apply(
        [
            (0, [b"a", b"b"]),
            (SESSIONS, [s.pack_value(session, 0, 0, 0, b"c"), s.pack_value(session, 1, 0, 5, b"x"), b"?",
                        s.pack_value(session, 2, 0, 0, b"d")]),
            (5, [b"y"]),
            (0, [b"e"]),
            (SESSIONS, [s.pack_value(session, 3, 0, 0, b"f"), s.pack_value(session, 4, 0, 0, b"g")]),
        ]
    )  # fmt: skip
    assert group.values == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    assert group.machines[5].values == [b"x", b"y"]
    assert len(group.machines[0].batches) == 2, "one call for each instance, as ever"
    assert [results[0], results[2], results[3]] == [[b"0 a", b"1 b"], [b"1 y"], [b"4 e"]]
    assert [answer.result for answer in results[1]] == [b"2 c", b"0 x", None, b"3 d"]  # type: ignore[attr-defined]
    assert [answer.result for answer in results[4]] == [b"5 f", b"6 g"]  # type: ignore[attr-defined]


def test_a_fence_settles_a_token_for_good() -> None:
    group = Group()
    session = group.open()
    assert group.one(s.pack_fence(session, 0, 0)).verdict is Verdict.FENCED
    assert group.one(s.pack_value(session, 0, 0, 0, b"late")).verdict is Verdict.FENCED
    assert group.one(s.pack_fence(session, 0, 0)).verdict is Verdict.FENCED
    assert group.values == []
    group.one(s.pack_value(session, 1, 0, 0, b"first"))
    answer = group.one(s.pack_fence(session, 1, 0))
    assert (answer.verdict, answer.result) == (Verdict.DONE, b"0 first")
    # ... and in one instance, in either order.
    value, fence = s.pack_value(session, 2, 0, 0, b"x"), s.pack_fence(session, 2, 0)
    answers = group.apply([(SESSIONS, [value, fence])])[0]
    assert [answer.result for answer in answers] == [b"1 x", b"1 x"]  # type: ignore[attr-defined]
    value, fence = s.pack_value(session, 3, 0, 0, b"y"), s.pack_fence(session, 3, 0)
    answers = group.apply([(SESSIONS, [fence, value])])[0]
    assert [answer.verdict for answer in answers] == [Verdict.FENCED] * 2  # type: ignore[attr-defined]
    assert group.values == [b"first", b"x"]


def test_no_session_no_execution() -> None:
    group = Group()
    session = group.open()
    strangers = [session._replace(instance=99), session._replace(place=1), session._replace(mark=8)]
    for stranger in strangers:
        for record in (s.pack_value(stranger, 0, 0, 0, b"x"), s.pack_fence(stranger, 0, 0), s.pack_close(stranger)):
            assert group.one(record).verdict is Verdict.EXPIRED
    assert group.one(s.pack_close(session)).verdict is Verdict.CLOSED
    assert group.table.decided() == []
    assert group.one(s.pack_value(session, 0, 0, 0, b"x")).verdict is Verdict.EXPIRED
    assert group.values == []


def test_two_sessions_of_one_instance_are_two() -> None:
    group = Group()
    answers = group.apply(
        [(SESSIONS, [s.pack_open(7, 9)]), (0, [b"x"]), (SESSIONS, [s.pack_open(7, 9), s.pack_open(7, 9)])]
    )
    ids = [answer.session for run in (0, 2) for answer in answers[run]]  # type: ignore[attr-defined]
    assert ids == [SessionId(0, 0, 7), SessionId(0, 1, 7), SessionId(0, 2, 7)]


def test_a_session_expires_behind_its_last_use_by_instances() -> None:
    group = Group()
    session = group.open(lifetime=10, at=100)
    assert group.one(s.pack_value(session, 0, 0, 0, b"a"), at=110).verdict is Verdict.DONE
    assert group.one(s.pack_value(session, 0, 0, 0, b"a"), at=120).verdict is Verdict.DONE, "a copy is a use"
    assert group.one(s.pack_fence(session, 1, 0), at=130).verdict is Verdict.FENCED
    assert group.one(s.pack_value(session, 2, 0, 0, b"b"), at=141).verdict is Verdict.EXPIRED
    assert group.table.decided() == []
    assert group.values == [b"a"]


def test_what_is_acknowledged_is_forgotten_and_not_applied_again() -> None:
    group = Group()
    session = group.open()
    for seq in range(5):
        group.one(s.pack_value(session, seq, 0, 0, b"%d" % seq))
    assert group.one(s.pack_value(session, 5, 4, 0, b"5")).verdict is Verdict.DONE
    ((_, _, _, acked, kept),) = group.table.decided()
    assert (acked, sorted(kept)) == (4, [4, 5])
    assert group.one(s.pack_value(session, 3, 0, 0, b"3")).verdict is Verdict.ACKNOWLEDGED
    assert group.one(s.pack_fence(session, 3, 3)).verdict is Verdict.ACKNOWLEDGED
    assert group.one(s.pack_value(session, 4, 0, 0, b"4")).result == b"4 4"
    # ... in one and the same instance, too: its result comes when the token is forgotten already.
    answers = group.apply([(SESSIONS, [s.pack_value(session, 6, 5, 0, b"6"), s.pack_value(session, 7, 7, 0, b"7")])])[0]
    assert [answer.result for answer in answers] == [b"6 6", b"7 7"]  # type: ignore[attr-defined]
    ((_, _, _, acked, kept),) = group.table.decided()
    assert (acked, sorted(kept)) == (7, [7])
    assert group.values == [b"%d" % seq for seq in range(8)]


def test_a_session_keeps_so_many_tokens_and_no_more() -> None:
    group = Group()
    session = group.open()
    assert group.one(s.pack_value(session, s.WINDOW - 1, 0, 0, b"in")).verdict is Verdict.DONE
    assert group.one(s.pack_value(session, s.WINDOW, 0, 0, b"out")).verdict is Verdict.FULL
    assert group.one(s.pack_fence(session, s.WINDOW, 0)).verdict is Verdict.FULL
    assert group.one(s.pack_value(session, s.WINDOW, 1, 0, b"in again")).verdict is Verdict.DONE
    assert group.values == [b"in", b"in again"]


def test_beyond_the_limits_the_session_that_was_not_used_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_SESSIONS", 3)
    monkeypatch.setattr(s, "MAX_KEPT", 4)
    group = Group()
    a, b, c = group.open(), group.open(), group.open()
    group.one(s.pack_value(a, 0, 0, 0, b"a"))
    d = group.open()
    assert [id_ for id_, *_ in group.table.decided()] == [c, a, d]
    assert group.one(s.pack_fence(b, 0, 0)).verdict is Verdict.EXPIRED
    group.one(s.pack_value(c, 0, 0, 0, b"c"))
    for seq in range(2):
        group.one(s.pack_value(d, seq, 0, 0, b"d"))
    assert [id_ for id_, *_ in group.table.decided()] == [a, c, d]
    group.one(s.pack_value(d, 2, 0, 0, b"d"))
    assert [id_ for id_, *_ in group.table.decided()] == [c, d]
    # What is let go of makes room again.
    group.one(s.pack_close(d))
    group.apply([(SESSIONS, [s.pack_value(c, seq, 0, 0, b"c") for seq in (1, 2, 3)])])
    assert [id_ for id_, *_ in group.table.decided()] == [c]


def test_what_is_acknowledged_or_closed_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "MAX_KEPT", 4)
    group = Group()
    idle, busy = group.open(), group.open()
    group.one(s.pack_fence(idle, 0, 0))
    for seq in range(20):
        group.one(s.pack_value(busy, seq, max(seq - 1, 0), 0, b"x"))
    for _ in range(5):
        session = group.open()
        group.one(s.pack_fence(session, 0, 0))
        group.one(s.pack_close(session))
    assert [id_ for id_, *_ in group.table.decided()] == [idle, busy]


def test_opening_clears_what_has_expired() -> None:
    group = Group()
    group.open(lifetime=1, at=10)
    group.open(lifetime=100, at=11)
    late = group.open(at=50)
    assert [id_.instance for id_, *_ in group.table.decided()] == [11, 50]
    group.open(at=112)
    assert next(iter(group.table.decided()))[0] == late


class Odd(paxos.StateMachine):
    def apply(self, instance: int, value: bytes) -> object:
        return {b"none": None, b"int": 5, b"text": "x", b"bytes": b"y", b"long": bytes(s.MAX_RESULT + 1)}[value]


def test_results_that_are_not_kept_say_so() -> None:
    group = Group()
    group.machines[0] = Odd()
    session = group.open()
    for seq, (value, kind) in enumerate({b"none": "NoneType", b"int": "int", b"text": "str"}.items()):
        first, again = (group.one(s.pack_value(session, seq, 0, 0, value)) for _ in range(2))
        assert (first.verdict, first.detail) == (Verdict.NOT_KEPT, f"Odd answered with a {kind}")
        assert (again.verdict, again.result) == (Verdict.NOT_KEPT, None)
    first, again = (group.one(s.pack_value(session, 5, 0, 0, b"long")) for _ in range(2))
    assert first.result == bytes(s.MAX_RESULT + 1), "who proposed it has it all the same"
    assert (again.verdict, again.result) == (Verdict.NOT_KEPT, None)
    assert group.one(s.pack_fence(session, 0, 0)).verdict is Verdict.NOT_KEPT


def test_the_formats_are_what_they_were() -> None:
    session = SessionId(0x0102, 3, 0x04050607)
    name = "02010000000000000300000007060504"
    assert s.pack_open(0x04050607, 9).hex() == "01010000070605040900000000000000"
    assert s.pack_close(session).hex() == "01020000" + name
    assert s.pack_fence(session, 8, 5).hex() == "01030000" + name + "08000000000000000500000000000000"
    assert s.pack_value(session, 8, 5, 2, b"v").hex() == (
        "01040000" + name + "0800000000000000" "0500000000000000" "02000000" "76"
    )  # fmt: skip
    assert len(s.pack_value(session, 8, 5, 2, b"v")) == s.VALUE_HEAD + 1
    assert (s.RESERVED, SESSIONS, s.WINDOW, s.MAX_SESSIONS, s.MAX_KEPT, s.MAX_RESULT) == (
        0xFFFFFF00, 0xFFFFFFFF, 256, 16384, 131072, 4096,
    ), "other limits decide otherwise: they take another id"  # fmt: skip
    group = Group()
    opened = group.open(lifetime=9, at=2)
    group.apply([(SESSIONS, [s.pack_value(opened, 1, 1, 0, b"v"), s.pack_fence(opened, 2, 0)])], at=3)
    assert state(group.table).hex() == (
        "01000000" "01000000"
        "0200000000000000" "00000000" "07000000" "0900000000000000" "0300000000000000" "0100000000000000" "02000000"
        "0100000000000000" "03" "03000000" "302076"
        "0200000000000000" "05" "00000000"
    )  # fmt: skip


# -- anything may come


ID = SessionId(0, 0, 7)
RECORDS = st.one_of(
    st.builds(s.pack_open, st.just(7), st.integers(0, 20)),
    st.builds(s.pack_value, st.just(ID), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), st.just(b"v")),
    st.builds(s.pack_fence, st.just(ID), st.integers(0, 300), st.integers(0, 3)),
    st.builds(s.pack_close, st.just(ID)),
)


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A record with something wrong with it, or right after all."""
    record = bytearray(draw(RECORDS))
    for _ in range(draw(st.integers(0, 3))):
        record[draw(st.integers(0, len(record) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, 3))
    return bytes(record[: len(record) - cut]) + draw(st.binary(max_size=3))


@given(st.lists(st.one_of(spoiled(), st.binary(max_size=60)), max_size=30))
@settings(deadline=None)
def test_whatever_the_bytes_it_is_an_answer_on_every_node_the_same(records: list[bytes]) -> None:
    """Nothing raises; what is no record changes nothing and reaches no state machine."""
    groups = [Group(0, 1), Group(0, 1)]
    for group in groups:
        assert group.open(lifetime=15) == ID
    for record in records:
        before = state(groups[0].table)
        given_ = [len(machine.values) for machine in groups[0].machines.values()]
        try:
            answers = [group.one(record) for group in groups]
        except KeyError:
            # A whole record for a state machine that is not here: the group stops at it, as at a value without a token.
            assert len(record) >= s.VALUE_HEAD
            return
        assert answers[0] == answers[1]
        assert groups[0].table.decided() == groups[1].table.decided()
        if answers[0].verdict is Verdict.MALFORMED:
            assert state(groups[0].table) == before
            assert [len(machine.values) for machine in groups[0].machines.values()] == given_


@pytest.mark.parametrize(
    "record",
    [
        b"", b"\x01", b"\x01\x04\x00", b"\x02" + s.pack_close(ID)[1:], b"\x01\x05" + s.pack_close(ID)[2:],
        b"\x01\x02\x01\x00" + s.pack_close(ID)[4:], s.pack_close(ID)[:-1], s.pack_close(ID) + b"x",
        s.pack_open(7, 0), s.pack_open(7, s.MAX_LIFETIME + 1), s.pack_fence(ID, 1, 2), s.pack_value(ID, 1, 2, 0, b"x"),
        s.pack_value(ID, 1, 1, SESSIONS, b"x"), s.pack_value(ID, 1, 1, s.RESERVED, b"x"),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(record: bytes) -> None:
    group = Group()
    assert group.open() == ID
    before = group.table.decided()
    assert group.one(record).verdict is Verdict.MALFORMED
    assert group.table.decided() == before


# -- against a model


class Model:
    """What the rule says, in its own words: of each token, what it was told; nothing is told otherwise later."""

    def __init__(self) -> None:
        self.applied: dict[tuple[SessionId, int], bytes] = {}
        self.fenced: set[tuple[SessionId, int]] = set()
        self.gone: set[SessionId] = set()

    def check(
        self, kind: str, session: SessionId, seq: int, answer: s.Answer, given_: list[bytes], value: bytes
    ) -> None:
        token = (session, seq)
        if session in self.gone:
            assert answer.verdict is Verdict.EXPIRED, "what is gone never comes back"
        if given_:
            assert kind == "value"
            assert given_ == [value]
            assert token not in self.applied, "applied twice"
            assert token not in self.fenced, "applied behind a fence"
            assert answer.verdict is Verdict.DONE
            self.applied[token] = answer.result or b""
        if answer.verdict is Verdict.DONE:
            assert answer.result == self.applied[token]
        elif answer.verdict is Verdict.FENCED:
            assert token not in self.applied
            self.fenced.add(token)
        elif answer.verdict in (Verdict.EXPIRED, Verdict.CLOSED):
            self.gone.add(session)
        else:
            assert answer.verdict in (Verdict.ACKNOWLEDGED, Verdict.FULL)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_each_token_is_settled_once_over_checkpoints_and_expiry(data: st.DataObject) -> None:
    group, model = Group(), Model()
    ids: list[SessionId] = []
    acked: dict[SessionId, int] = {}
    at = 0
    for _ in range(data.draw(st.integers(1, 40))):
        at += data.draw(st.sampled_from([1, 1, 1, 3, 12]))
        kind = data.draw(st.sampled_from(["open", "value", "value", "value", "fence", "close", "checkpoint"]))
        if kind == "checkpoint":
            before = state(group.table)
            group.table = copy(group.table)
            assert state(group.table) == before
            continue
        if kind == "open" or not ids:
            ids.append(group.open(lifetime=data.draw(st.sampled_from([2, 10, 1000])), at=at))
            acked[ids[-1]] = 0
            continue
        session = data.draw(st.sampled_from(ids))
        seq = data.draw(st.integers(0, 6))
        acked[session] = data.draw(st.integers(acked[session], max(acked[session], seq)))
        low = min(acked[session], seq)
        value = b"%d.%d" % (session.instance, seq)
        record = {
            "value": s.pack_value(session, seq, low, 0, value),
            "fence": s.pack_fence(session, seq, low),
            "close": s.pack_close(session),
        }[kind]
        before_ = len(group.values)
        answer = group.one(record, at=at)
        model.check(kind, session, seq, answer, group.values[before_:], value)


@given(st.lists(st.tuples(RECORDS, st.booleans()), max_size=40))
@settings(deadline=None)
def test_what_is_decided_depends_on_no_result(records: list[tuple[bytes, bool]]) -> None:
    """A node whose state machine is not called in a replay decides as the others do."""

    class Silent(Machine):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            return [None] * len(values)

    knows, replays = Group(0, 1), Group(0, 1)
    replays.machines = {0: Silent(), 1: Silent()}
    for group in (knows, replays):
        group.open(lifetime=15)
    for record, checkpoint in records:
        a, b = knows.one(record), replays.one(record)
        assert a.verdict == b.verdict or (a.verdict, b.verdict) == (Verdict.DONE, Verdict.NOT_KEPT)
        if checkpoint:
            replays.table = copy(replays.table)
        assert knows.table.decided() == replays.table.decided()


# -- checkpoints


def filled() -> SessionTable:
    group = Group()
    session = group.open(lifetime=9)
    group.open(lifetime=99)
    group.one(s.pack_value(session, 1, 1, 0, b"v"))
    group.one(s.pack_fence(session, 2, 0))
    return group.table


@pytest.mark.parametrize("size", range(1, len(state(filled()))))
def test_a_snapshot_that_ends_early_is_an_error_and_changes_nothing(size: int) -> None:
    table = Group().table
    table.restore(io.BytesIO(state(filled())))
    before = state(table)
    with pytest.raises(ValueError, match="end early"):
        table.restore(io.BytesIO(state(filled())[:size]))
    assert state(table) == before


def test_a_snapshot_of_another_format_is_named() -> None:
    data = bytearray(state(filled()))
    data[0] = 2
    with pytest.raises(ValueError, match="have format 2; this release knows 1"):
        SessionTable().restore(io.BytesIO(data))
    data = bytearray(state(filled()))
    data[8 + 44 + 44 + 8] = 9  # behind two sessions, the verdict of the first token
    with pytest.raises(ValueError, match="a token of kind 9"):
        SessionTable().restore(io.BytesIO(data))


class Slow:
    """Gives one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, 1))


def test_a_reader_may_give_less_than_was_asked_for() -> None:
    table = SessionTable()
    table.restore(Slow(state(filled())))
    assert state(table) == state(filled())


class Saved(Machine):
    def snapshot(self, writer: paxos.SnapshotWriter) -> None:
        writer.write(b"x")

    def restore(self, reader: paxos.SnapshotReader) -> None:
        assert reader.read(9) == b"x"


def test_a_checkpoint_has_the_table_or_says_that_there_is_none(tmp_path: Path) -> None:
    """An empty table has an entry, too: where there is none, nobody knows what was done under tokens."""
    folder = Folder(str(tmp_path))
    store = CheckpointStore(folder.files())
    for instance, table in ((5, filled()), (9, SessionTable()), (12, None)):
        machines = {0: Saved()} if table is None else {0: Saved(), SESSIONS: table}
        with Writing(store, Cut(instance, 1, bytes(16), b""), tmp_path / "work") as writing:
            writing.take(machines)
            writing.commit()
    without, empty, full = store.list()
    assert [entry.machine for entry in full.entries] == [0, SESSIONS]
    assert [entry.machine for entry in empty.entries] == [0, SESSIONS]
    table = SessionTable()
    restore_machines(store, full, {0: Saved(), SESSIONS: table}, tmp_path / "work")
    assert state(table) == state(filled())
    restore_machines(store, empty, {0: Saved(), SESSIONS: table}, tmp_path / "work")
    assert table.decided() == []
    with pytest.raises(paxos.ConfigError, match="opened with sessions=False"):
        restore_machines(store, full, {0: Saved()}, tmp_path / "work")
    with pytest.raises(paxos.ConfigError, match="made by a node with sessions=False"):
        restore_machines(store, without, {0: Saved(), SESSIONS: table}, tmp_path / "work")
    folder.close()


@pytest.mark.parametrize("id_", [s.RESERVED, SESSIONS])
def test_ids_of_the_library_are_not_for_users(id_: int) -> None:
    with pytest.raises(paxos.ConfigError, match=f"has the id {id_}; ids from 4294967040 on belong to the library"):
        make_machines({0: Machine, id_: Machine})


# -- tokens


def test_tokens_are_kept_as_text() -> None:
    session = paxos.Session(SessionId(0x1234, 5, 0xBEEF), 100)
    tokens = [session.token() for _ in range(3)]
    session.acknowledge(tokens[0])
    tokens.append(session.token())
    assert str(tokens[3]) == "1234-5-beef-3-1"
    for token in tokens:
        again = paxos.Token.parse(str(token))
        assert (again, again.acked) == (token, token.acked)
    assert len(set(tokens)) == 4
    wrong = "1-2-3-4 1-2-3-4-5-6 g-0-0-0-0 0-0-0-1-2 -1-0-0-0-0 0-0-0-10000000000000000-0 0-0-100000000-0-0"
    for text in ("", *wrong.split()):
        with pytest.raises(paxos.ConfigError, match="token"):
            paxos.Token.parse(text)


def test_a_session_acknowledges_without_a_gap_and_is_bounded() -> None:
    session = paxos.Session(ID, 100)
    tokens = [session.token() for _ in range(s.WINDOW)]
    with pytest.raises(paxos.Overloaded, match=r"acknowledge\(\)"):
        session.token()
    session.acknowledge(tokens[1])
    with pytest.raises(paxos.Overloaded):
        session.token()
    session.acknowledge(tokens[0])
    assert session.token().acked == 2
    for token in tokens:
        session.acknowledge(token)
    assert session.token().acked == s.WINDOW
    with pytest.raises(paxos.ConfigError, match="of another session"):
        session.acknowledge(paxos.Token(ID._replace(mark=1), 0))
