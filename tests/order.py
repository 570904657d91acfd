"""Checks the order of writes and sends in the traces of real nodes (design, rules 1 and 2; section 3).

``check`` returns what breaks the order, in words:
- a Promise, or a report in it, left before the promise was durable;
- a Prepare left before the record of its ballot was durable;
- an Accepted left before the acceptance was durable;
- an Accept of the master left, to everybody, only after the master's own write of that instance had begun.

The formats are those of ``paxos/_types.pxd``.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shim import Event

BLOCK = 4096
FRAME_MAGIC = b"PXF1"
FRAME_HEADER = 64
PREPARE, PROMISE_VALUE, PROMISE, ACCEPT, ACCEPTED = 18, 19, 20, 22, 23
RECORD = struct.Struct("<IIIBBHIIQ")
RECORD_WRITE, RECORD_PROMISE, RECORD_ACCEPT = 1, 5, 6
BALLOT = struct.Struct("<QQQII")

Ballot = tuple[int, ...]


@dataclass(frozen=True)
class Sent:
    """A frame as it was handed to the kernel: first byte in the call that began at ``begin`` (sequence)."""

    type: int
    body: bytes
    begin: int
    end: int
    time: int

    @property
    def ballot(self) -> Ballot:
        return BALLOT.unpack_from(self.body)


@dataclass(frozen=True)
class Logged:
    """A record in a write that began at ``begin``; ``durable`` is the sequence of the return that made it so."""

    type: int
    instance: int
    body: bytes
    begin: int
    durable: int | None
    time: int

    @property
    def ballot(self) -> Ballot:
        return BALLOT.unpack_from(self.body)


def _pairs(events: Sequence[Event], begin: str, end: str) -> Iterator[tuple[Event, Event]]:
    """Calls that returned, as (begin, end): a thread is in one call at a time."""
    open_calls: dict[int, Event] = {}
    for event in events:
        if event.kind == begin:
            open_calls[event.thread] = event
        elif event.kind == end:
            yield open_calls.pop(event.thread), event


def sent_frames(events: Sequence[Event]) -> list[Sent]:
    """The frames of all connections of one process. Streams that do not begin with a frame are other traffic."""
    streams: dict[int, list[tuple[Event, Event, bytes]]] = defaultdict(list)
    for begin, end in _pairs(events, "tb", "te"):
        if end.size > 0:
            assert len(begin.data) >= min(end.size, begin.size), "the trace does not hold the whole message"
            streams[begin.ino].append((begin, end, begin.data[: end.size]))
    frames = []
    for calls in streams.values():
        stream = b"".join(data for _, _, data in calls)
        if not stream.startswith(FRAME_MAGIC):
            continue
        starts, total = [], 0
        for begin, end, data in calls:
            starts.append((total, begin, end))
            total += len(data)
        at, call = 0, 0
        while at + FRAME_HEADER <= len(stream):
            magic, length = struct.unpack_from("<4sI", stream, at)
            assert magic == FRAME_MAGIC, f"no frame at byte {at} of a stream of frames"
            if at + length > len(stream):
                break
            while call + 1 < len(starts) and starts[call + 1][0] <= at:
                call += 1
            _, begin, end = starts[call]
            body = stream[at + FRAME_HEADER : at + length]
            frames.append(Sent(stream[at + 13], body, begin.sequence, end.sequence, begin.time))
            at += length
    return sorted(frames, key=lambda frame: frame.begin)


def logged_records(events: Sequence[Event]) -> list[Logged]:
    """The records of all log writes of one process, with the moment at which each became durable."""
    syncs: dict[int, list[tuple[Event, Event]]] = defaultdict(list)
    for begin, end in _pairs(events, "sb", "se"):
        if end.size == 0:
            syncs[begin.ino].append((begin, end))
    records = []
    for begin, end in _pairs(events, "wb", "we"):
        if end.size < 0:
            continue
        done: Event | None = None
        if begin.durable:
            done = end
        else:
            done = next((after for before, after in syncs[begin.ino] if before.sequence > end.sequence), None)
        for kind, instance, body in _records(begin.data):
            records.append(
                Logged(kind, instance, body, begin.sequence, done and done.sequence, done.time if done else 0)
            )
    return records


def _records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    for block in range(0, len(data), BLOCK):
        if len(data) < block + RECORD.size:
            return
        _, _, size, version, kind, _, _, _, _ = RECORD.unpack_from(data, block)
        if (version, kind, size) != (1, RECORD_WRITE, 24):
            continue  # the middle of a write, a segment header, zeros
        _, _, _, count, _ = struct.unpack_from("<QIIII", data, block + RECORD.size)
        at = block + RECORD.size + size
        for _ in range(count):
            if at + RECORD.size > len(data):
                break
            _, _, size, _, kind, _, _, _, instance = RECORD.unpack_from(data, at)
            yield kind, instance, data[at + RECORD.size : at + RECORD.size + size]
            at += (RECORD.size + size + 7) & ~7


@dataclass
class Report:
    violations: list[str]
    seen: dict[int, int]  # frames checked, by type


def check(events: Sequence[Event]) -> Report:
    """Looks at the whole life of one process that began with an empty directory."""
    promised: dict[Ballot, int] = {}
    accepted: dict[tuple[Ballot, int], int] = {}
    own_write: dict[tuple[Ballot, int], int] = {}
    for record in logged_records(events):
        if record.type == RECORD_ACCEPT:
            own_write.setdefault((record.ballot, record.instance), record.begin)
        if record.durable is None:
            continue
        if record.type in (RECORD_PROMISE, RECORD_ACCEPT):  # the accept record implies the promise
            promised[record.ballot] = min(record.durable, promised.get(record.ballot, record.durable))
        if record.type == RECORD_ACCEPT:
            key = (record.ballot, record.instance)
            accepted[key] = min(record.durable, accepted.get(key, record.durable))
    report = Report([], defaultdict(int))
    first_accept: dict[tuple[Ballot, int], int] = {}
    for frame in sent_frames(events):
        if frame.type in (PREPARE, PROMISE, PROMISE_VALUE):
            report.seen[frame.type] += 1
            durable = promised.get(frame.ballot)
            if durable is None or durable > frame.begin:
                report.violations.append(
                    f"frame type {frame.type} of round {frame.ballot[0]} before its promise was durable"
                )
        elif frame.type == ACCEPTED:
            first, last = struct.unpack_from("<QQ", frame.body, BALLOT.size)
            for instance in range(first, last + 1):
                report.seen[ACCEPTED] += 1
                durable = accepted.get((frame.ballot, instance))
                if durable is None or durable > frame.begin:
                    report.violations.append(f"Accepted of instance {instance} before the acceptance was durable")
        elif frame.type == ACCEPT:
            (instance,) = struct.unpack_from("<Q", frame.body, BALLOT.size)
            key = (frame.ballot, instance)
            first_accept[key] = min(frame.begin, first_accept.get(key, frame.begin))
    for key, begin in first_accept.items():
        report.seen[ACCEPT] += 1
        if key in own_write and own_write[key] < begin:
            report.violations.append(f"Accept of instance {key[1]} left only after the master's own write had begun")
    return report
