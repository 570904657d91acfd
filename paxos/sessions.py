"""Sessions: so that a proposal under a token is applied once, however often it is proposed (design rule 18).

The table of sessions is a state machine of the group that nobody sees. Its records are values for the reserved id
``SESSIONS``: a session is opened, a token's value is proposed, a token is fenced, a session is closed. What a record does
depends on nothing but the records before it and the instances that they stand in, so that it is the same on every node:
sessions expire by instances, never by a clock, and all limits below are part of the format.

``unwrap`` turns an instance into what the state machines are to be given, each value in its exact place; ``Step.wrap`` makes
answers of their results. Node and mirror both go through it. One thing may differ between nodes, and nothing is decided by it:
the *result* that is kept for a token. A durable state machine that is ahead of the table is not called again in a replay, so
its node does not learn the result.

Records (little-endian). Anything else is refused, in this release and in every later one: another format takes another of
the reserved ids, which a node that does not know it stops at.

    format u8 = 1, kind u8, zero u16, and then
    OPEN    mark u32, lifetime u64
    CLOSE   session (instance u64, index u32, mark u32)
    FENCE   session, seq u64, acked u64
    VALUE   session, seq u64, acked u64, machine u32, value
"""

from __future__ import annotations

import enum
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from paxos.statemachine import SnapshotReader, SnapshotWriter, StateMachine

__all__ = [
    "MAX_LIFETIME",
    "RESERVED",
    "SESSIONS",
    "VALUE_HEAD",
    "WINDOW",
    "Answer",
    "SessionId",
    "SessionTable",
    "Step",
    "Verdict",
    "pack_close",
    "pack_fence",
    "pack_open",
    "pack_value",
]

#: Ids of state machines from here on belong to the library.
RESERVED: Final = 0xFFFF_FF00
SESSIONS: Final = 0xFFFF_FFFF

#: Tokens of a session that may be without acknowledgement; more are refused.
WINDOW: Final = 256
#: Beyond so many sessions, or tokens that are kept in all of them together, the session that was not used for longest goes.
MAX_SESSIONS: Final = 1 << 14
MAX_KEPT: Final = 1 << 17
#: Bytes of a result up to which it is kept.
MAX_RESULT: Final = 4096
MAX_LIFETIME: Final = 1 << 62

FORMAT: Final = 1
OPEN, CLOSE, FENCE, VALUE = 1, 2, 3, 4
_OPEN: Final = struct.Struct("<BBHIQ")
_CLOSE: Final = struct.Struct("<BBHQII")
_FENCE: Final = struct.Struct("<BBHQIIQQ")
_VALUE: Final = struct.Struct("<BBHQIIQQI")
VALUE_HEAD: Final = _VALUE.size

VERSION: Final = 1  # of the snapshot
_TABLE: Final = struct.Struct("<II")  # version, sessions
_SESSION: Final = struct.Struct("<QIIQQQI")  # id, lifetime, used, acked, tokens kept
_KEPT: Final = struct.Struct("<QBI")  # seq, verdict, bytes of the result


class SessionId(NamedTuple):
    """Where a session was opened: no two have the same."""

    instance: int
    place: int
    """Which of the instance's records of sessions."""
    mark: int
    """Of the cluster, so that a token does not mean something in another one."""


class Verdict(enum.IntEnum):
    """What came of a record."""

    OPENED = 1
    CLOSED = 2
    DONE = 3
    """Applied, now or by an earlier copy; the result is there."""
    NOT_KEPT = 4
    """Applied, but the result is not there."""
    FENCED = 5
    """Never applied, and never will be."""
    EXPIRED = 6
    """There is no such session (any more). Not applied now; of earlier copies nothing is known."""
    ACKNOWLEDGED = 7
    """Whoever has the session has said that he knows the outcome, so it is not kept. Not applied now."""
    FULL = 8
    """Too many tokens of the session are without acknowledgement. Not applied, nor was any earlier copy."""
    MALFORMED = 9
    """No record. Nothing was applied."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a record, for whoever proposed it."""

    verdict: Verdict
    result: bytes | None = None
    session: SessionId | None = None
    detail: str = ""


CLOSED: Final = Answer(Verdict.CLOSED)
FENCED: Final = Answer(Verdict.FENCED)
EXPIRED: Final = Answer(Verdict.EXPIRED)
ACKNOWLEDGED: Final = Answer(Verdict.ACKNOWLEDGED)
FULL: Final = Answer(Verdict.FULL)
MALFORMED: Final = Answer(Verdict.MALFORMED)
NOT_KEPT: Final = Answer(Verdict.NOT_KEPT)


def pack_open(mark: int, lifetime: int) -> bytes:
    return _OPEN.pack(FORMAT, OPEN, 0, mark, lifetime)


def pack_close(session: SessionId) -> bytes:
    return _CLOSE.pack(FORMAT, CLOSE, 0, *session)


def pack_fence(session: SessionId, seq: int, acked: int) -> bytes:
    return _FENCE.pack(FORMAT, FENCE, 0, *session, seq, acked)


def pack_value(session: SessionId, seq: int, acked: int, machine: int, value: bytes) -> bytes:
    return _VALUE.pack(FORMAT, VALUE, 0, *session, seq, acked, machine) + value


class _Given:
    """A value under a token that a state machine is being given; who asks for the same token meanwhile waits for the answer."""

    __slots__ = ("answer", "machine", "place", "run", "seq", "session")

    def __init__(self, session: _Session, seq: int, machine: int, run: int, place: int) -> None:
        self.session = session
        self.seq = seq
        self.machine = machine
        self.run = run
        self.place = place
        self.answer = NOT_KEPT


class _Session:
    """``kept``: by seq, from ``acked`` on, the result; or FENCED, NOT_KEPT."""

    __slots__ = ("acked", "kept", "lifetime", "used")

    def __init__(self, lifetime: int, used: int, acked: int = 0) -> None:
        self.lifetime = lifetime
        self.used = used
        self.acked = acked
        self.kept: dict[int, bytes | Verdict | _Given] = {}


class Step:
    """An instance with records of sessions in it: ``runs`` for the state machines, and who waits for which of their results."""

    __slots__ = ("_given", "_own", "_places", "runs")

    def __init__(self) -> None:
        #: as the engine gives them: (state machine, values)
        self.runs: list[tuple[int, list[bytes]]] = []
        self._places: list[int | list[Answer | _Given]] = []
        self._given: list[_Given] = []
        self._own = False  # whether the last run consists of values under tokens

    def _as_it_is(self, machine: int, values: list[bytes]) -> None:
        self._places.append(len(self.runs))
        self.runs.append((machine, values))
        self._own = False

    def _give(self, session: _Session, seq: int, machine: int, value: bytes) -> _Given:
        if not self._own or self.runs[-1][0] != machine:
            self.runs.append((machine, []))
            self._own = True
        values = self.runs[-1][1]
        given = _Given(session, seq, machine, len(self.runs) - 1, len(values))
        self._given.append(given)
        values.append(value)
        return given

    def wrap(self, results: Sequence[Sequence[object]], machines: Mapping[int, StateMachine]) -> list[Sequence[object]]:
        """``results`` are those of ``runs``; the answers to the runs that were unwrapped."""
        for given in self._given:
            result = results[given.run][given.place]
            kept: bytes | Verdict = Verdict.NOT_KEPT
            if isinstance(result, bytes):
                given.answer = Answer(Verdict.DONE, result)
                if len(result) <= MAX_RESULT:
                    kept = result
            else:
                name = type(machines[given.machine]).__name__
                given.answer = Answer(Verdict.NOT_KEPT, detail=f"{name} answered with a {type(result).__name__}")
            if given.session.kept.get(given.seq) is given:
                given.session.kept[given.seq] = kept
        return [
            results[place]
            if isinstance(place, int)
            else [each.answer if isinstance(each, _Given) else each for each in place]
            for place in self._places
        ]


class SessionTable(StateMachine):
    """All sessions of a group. On the thread that applies."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionId, _Session] = OrderedDict()  # the one that was not used for longest first
        self._kept = 0

    def decided(self) -> list[tuple[SessionId, int, int, int, dict[int, bool]]]:
        """All that decides: equal on all nodes that have applied as much. Of each session id, lifetime, used, acked, and which
        tokens are fenced."""
        return [
            (id_, s.lifetime, s.used, s.acked, {seq: s.kept[seq] is Verdict.FENCED for seq in sorted(s.kept)})
            for id_, s in self._sessions.items()
        ]

    def unwrap(self, instance: int, runs: Sequence[tuple[int, list[bytes]]]) -> Step:
        """What the state machines are to be given of an instance. Raises nothing, whatever the bytes of a record are."""
        step = Step()
        index = 0
        for id_, values in runs:
            if id_ != SESSIONS:
                step._as_it_is(id_, values)
                continue
            answers: list[Answer | _Given] = []
            for record in values:
                answers.append(self._take(instance, index, record, step))
                index += 1
            step._places.append(answers)
        return step

    def _take(self, instance: int, index: int, record: bytes, step: Step) -> Answer | _Given:
        if len(record) < 4 or record[0] != FORMAT or record[2] or record[3]:
            return MALFORMED
        kind, size = record[1], len(record)
        if kind == VALUE and size >= VALUE_HEAD:
            *_, where, at, mark, seq, acked, machine = _VALUE.unpack_from(record)
            if acked > seq or machine >= RESERVED:
                return MALFORMED
            found = self._find(instance, SessionId(where, at, mark), seq, acked)
            if not isinstance(found, _Session):
                return found
            given = found.kept[seq] = step._give(found, seq, machine, record[VALUE_HEAD:])
            self._keep()
            return given
        if kind == FENCE and size == _FENCE.size:
            *_, where, at, mark, seq, acked = _FENCE.unpack(record)
            if acked > seq:
                return MALFORMED
            found = self._find(instance, SessionId(where, at, mark), seq, acked)
            if not isinstance(found, _Session):
                return found
            found.kept[seq] = Verdict.FENCED
            self._keep()
            return FENCED
        if kind == OPEN and size == _OPEN.size:
            *_, mark, lifetime = _OPEN.unpack(record)
            return self._open(instance, SessionId(instance, index, mark), lifetime)
        if kind == CLOSE and size == _CLOSE.size:
            id_ = SessionId(*_CLOSE.unpack(record)[3:])
            if self._use(instance, id_) is None:
                return EXPIRED
            self._drop(id_)
            return CLOSED
        return MALFORMED

    def _open(self, instance: int, id_: SessionId, lifetime: int) -> Answer:
        if not 0 < lifetime <= MAX_LIFETIME:
            return MALFORMED
        self._sessions[id_] = _Session(lifetime, instance)
        # What has expired counts as long as it is there, here as everywhere: when it goes must not depend on who looked.
        while len(self._sessions) > MAX_SESSIONS or self._over(instance):
            self._drop(next(iter(self._sessions)))
        return Answer(Verdict.OPENED, session=id_)

    def _over(self, instance: int) -> bool:
        """Whether the session that was not used for longest has expired."""
        oldest = next(iter(self._sessions.values()))
        return instance - oldest.used > oldest.lifetime

    def _use(self, instance: int, id_: SessionId) -> _Session | None:
        """The session, which is in use as of now; None where there is none, or none any more."""
        session = self._sessions.get(id_)
        if session is None:
            return None
        if instance - session.used > session.lifetime:
            self._drop(id_)
            return None
        session.used = instance
        self._sessions.move_to_end(id_)
        return session

    def _find(self, instance: int, id_: SessionId, seq: int, acked: int) -> _Session | Answer | _Given:
        """The session, where the token is one of which nothing has come yet; else the answer."""
        session = self._use(instance, id_)
        if session is None:
            return EXPIRED
        if acked > session.acked:
            for each in [each for each in session.kept if each < acked]:
                del session.kept[each]
                self._kept -= 1
            session.acked = acked
        if seq < session.acked:
            return ACKNOWLEDGED
        if seq - session.acked >= WINDOW:
            return FULL
        kept = session.kept.get(seq)
        if kept is None:
            return session
        if isinstance(kept, bytes):
            return Answer(Verdict.DONE, kept)
        return kept if isinstance(kept, _Given) else Answer(kept)

    def _keep(self) -> None:
        """One token more is kept. The session that it is of was used last, so that it is not the one that goes."""
        self._kept += 1
        while self._kept > MAX_KEPT:
            self._drop(next(iter(self._sessions)))

    def _drop(self, id_: SessionId) -> None:
        self._kept -= len(self._sessions.pop(id_).kept)

    # -- checkpoints

    def snapshot(self, writer: SnapshotWriter) -> None:
        writer.write(_TABLE.pack(VERSION, len(self._sessions)))
        for id_, session in self._sessions.items():
            part = [_SESSION.pack(*id_, session.lifetime, session.used, session.acked, len(session.kept))]
            for seq, kept in sorted(session.kept.items()):
                verdict = kept if isinstance(kept, Verdict) else Verdict.DONE
                result = kept if isinstance(kept, bytes) else b""
                part.append(_KEPT.pack(seq, verdict, len(result)) + result)
            writer.write(b"".join(part))

    def restore(self, reader: SnapshotReader) -> None:
        """Raises ValueError where it cannot be read, and leaves the table as it was."""

        def take(size: int) -> bytes:
            data = reader.read(size)
            while data and len(data) < size and (more := reader.read(size - len(data))):
                data += more
            if len(data) < size:
                raise ValueError("the sessions in the checkpoint end early")
            return data

        version, count = _TABLE.unpack(take(_TABLE.size))
        if version != VERSION:
            raise ValueError(f"the sessions in the checkpoint have format {version}; this release knows {VERSION}")
        sessions: OrderedDict[SessionId, _Session] = OrderedDict()
        total = 0
        for _ in range(count):
            where, index, mark, lifetime, used, acked, tokens = _SESSION.unpack(take(_SESSION.size))
            session = sessions[SessionId(where, index, mark)] = _Session(lifetime, used, acked)
            for _ in range(tokens):
                seq, verdict, size = _KEPT.unpack(take(_KEPT.size))
                if size > MAX_RESULT or verdict not in (Verdict.DONE, Verdict.NOT_KEPT, Verdict.FENCED):
                    raise ValueError(f"the sessions in the checkpoint have a token of kind {verdict} and {size} bytes")
                result = take(size) if size else b""
                session.kept[seq] = result if verdict == Verdict.DONE else Verdict(verdict)
            total += len(session.kept)
        self._sessions, self._kept = sessions, total
