"""Frames and records of the core, built and taken apart by a second implementation, for tests (see docs/)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import google_crc32c

HELLO, REFUSE, FORM, FORM_OK, FORMED, PIECE, JOIN, WELCOME, MEMBERS = range(1, 10)
PREVOTE, PREVOTE_REPLY, PREPARE, PROMISE_VALUE, PROMISE, REJECT, ACCEPT, ACCEPTED = range(16, 24)
HEARTBEAT, HEARTBEAT_REPLY, LEARN, LEARNED, FORWARD, FORWARD_REFUSED = range(24, 30)
KEPT = 30
READ, READABLE, TRANSFER, RELIEVE = 32, 33, 34, 35
RECORD_FORMATION, RECORD_FORMED, RECORD_PROMISE, RECORD_ACCEPT, RECORD_LEARN, RECORD_WATERMARK, RECORD_BASE = range(
    3, 10
)
NOOP, BATCH, CHANGE, MASTER = 0, 1, 2, 3
VOTER, LEARNER, FOLLOWER, LEAVING = 0, 1, 2, 3
NOT_AVAILABLE, OVERLOADED, UNKNOWN = 1, 2, 3

HEAD = struct.Struct("<IIIBBHIIQQQQII")
BALLOT = struct.Struct("<QQQII")
CHUNK = struct.Struct("<IIIIQII")
VALUE = struct.Struct("<IIII")
MEMBERSHIP_HEAD = struct.Struct("<IIQQQQQII")
ROW = struct.Struct("<IIQQQII")

NAMES = {
    HELLO: "hello", REFUSE: "refuse", FORM: "form", FORM_OK: "form_ok", FORMED: "formed", PIECE: "piece", PREVOTE: "prevote",
    JOIN: "join", WELCOME: "welcome", MEMBERS: "members",
    PREVOTE_REPLY: "prevote_reply", PREPARE: "prepare", PROMISE_VALUE: "promise_value", PROMISE: "promise",
    REJECT: "reject", ACCEPT: "accept", ACCEPTED: "accepted", HEARTBEAT: "heartbeat", HEARTBEAT_REPLY: "heartbeat_reply",
    LEARN: "learn", LEARNED: "learned", FORWARD: "forward", FORWARD_REFUSED: "forward_refused",
    KEPT: "kept", READ: "read", READABLE: "readable", TRANSFER: "transfer", RELIEVE: "relieve",
}  # fmt: skip

# Fixed fields of each body; "B" stands for a ballot, "V" for a value head. What follows them is kept as bytes.
LAYOUTS: dict[int, list[tuple[str, str]]] = {
    HELLO: [("sig_hi", "Q"), ("sig_lo", "Q"), ("to", "I"), ("boot", "I"), ("state", "I"), ("config", "I")],
    REFUSE: [("reason", "I"), ("zero", "I")],
    FORM: [("sig_hi", "Q"), ("sig_lo", "Q"), ("alpha", "I"), ("count", "I")],
    PIECE: [("transfer", "Q"), ("total", "I"), ("offset", "I")],
    JOIN: [("inc_hi", "Q"), ("inc_lo", "Q")],
    PREVOTE: [("ballot", "B"), ("cut_off", "I"), ("zero", "I")],
    PREVOTE_REPLY: [("ballot", "B"), ("promised", "B"), ("granted", "I"), ("zero", "I")],
    PREPARE: [("ballot", "B"), ("released", "B"), ("first", "Q"), ("attempt", "I"), ("zero", "I")],
    PROMISE_VALUE: [("ballot", "B"), ("accepted", "B"), ("instance", "Q"), ("attempt", "I"), ("zero", "I"), ("value", "V")],
    PROMISE: [("ballot", "B"), ("first_kept", "Q"), ("attempt", "I"), ("count", "I")],
    REJECT: [("ballot", "B"), ("promised", "B")],
    ACCEPT: [("ballot", "B"), ("instance", "Q"), ("own_from", "Q"), ("value", "V")],
    ACCEPTED: [("ballot", "B"), ("first", "Q"), ("last", "Q")],
    HEARTBEAT: [("ballot", "B"), ("own_from", "Q"), ("settled", "Q"), ("sent_at", "Q")],
    HEARTBEAT_REPLY: [("ballot", "B"), ("sent_at", "Q"), ("lease", "Q"), ("priority", "I"), ("zero", "I")],
    LEARN: [("first", "Q"), ("end", "Q"), ("max_bytes", "I"), ("zero", "I")],
    LEARNED: [("first", "Q"), ("count", "I"), ("zero", "I")],
    FORWARD: [("ballot", "B"), ("boot", "I"), ("count", "I")],
    FORWARD_REFUSED: [("ballot", "B"), ("boot", "I"), ("reason", "I"), ("count", "I"), ("life", "I")],
    KEPT: [("asked", "Q"), ("first_kept", "Q")],
    TRANSFER: [("ballot", "B")],
    RELIEVE: [("ballot", "B"), ("heard", "I"), ("zero", "I")],
    READ: [("token", "Q"), ("boot", "I"), ("life", "I")],
    READABLE: [("token", "Q"), ("boot", "I"), ("life", "I"), ("index", "Q")],
}  # fmt: skip
LAYOUTS[FORM_OK] = LAYOUTS[FORMED] = LAYOUTS[WELCOME] = LAYOUTS[MEMBERS] = LAYOUTS[FORM]

MEMBERSHIP = [
    ("version", "I"),
    ("count", "I"),
    ("mastership", "Q"),
    ("mastered", "Q"),
    ("lease", "Q"),
    ("in_force", "Q"),
    ("as_of", "Q"),
    ("master", "I"),
    ("before", "I"),
]

RECORDS: dict[int, list[tuple[str, str]]] = {
    RECORD_FORMATION: LAYOUTS[FORM],
    RECORD_FORMED: [],
    RECORD_PROMISE: [("ballot", "B")],
    RECORD_ACCEPT: [("ballot", "B"), ("chosen", "Q"), ("chain", "I"), ("zero", "I"), ("value", "V")],
    RECORD_LEARN: [("chosen", "Q"), ("chain", "I"), ("zero", "I"), ("value", "V")],
    RECORD_WATERMARK: [("chosen", "Q"), ("chain", "I"), ("zero", "I")],
    RECORD_BASE: [("promised", "B"), ("chain", "I"), ("was_member", "I"), *MEMBERSHIP],
}

Ballot = tuple[int, int, int, int]  # round, node, inc_hi, inc_lo: as Core.state() says it


#: What the tests give a node that has lost its disk.
OTHER_INCARNATION = (7001, 7002)


def incarnation(node: int) -> tuple[int, int]:
    """What the tests give a node as incarnation."""
    return node * 7, node * 11


def members(count: int) -> list[tuple[int, int, int]]:
    return [(node, *incarnation(node)) for node in range(1, count + 1)]


def ballot(round_: int, node: int) -> Ballot:
    return (round_, node, *incarnation(node))


def crc(data: bytes, before: int = 0) -> int:
    found: int = google_crc32c.extend(before, data)
    return found


def chain(values: list[tuple[int, bytes]], start: int = 0, before: int = 0) -> int:
    """The chain checksum after [(kind, bytes), ...] from instance ``start`` on."""
    for instance, (kind, data) in enumerate(values, start):
        before = crc(struct.pack("<QII", instance, len(data), kind) + data, before)
    return before


def chunk(
    origin: int, seq: int, values: list[bytes], boot: int = 1, machine: int = 0, life: int | None = None
) -> bytes:
    body = b"".join(struct.pack("<I", len(value)) + value for value in values)
    life = incarnation(origin)[1] if life is None else life
    return CHUNK.pack(len(body), len(values), origin, boot, seq, machine, life) + body


def row(
    node: int,
    role: int = VOTER,
    inc: tuple[int, int] | None = None,
    *,
    since: int = 0,
    instead: int = 0,
    address: bytes = b"",
) -> bytes:
    """A member in a table. (Node 0: a place that nobody has.)"""
    return ROW.pack(node, role, *(inc or incarnation(node)), since, instead, len(address)) + address


def table(rows: list[bytes], version: int = 0) -> bytes:
    """The value by which the membership becomes these rows."""
    return struct.pack("<II", version, len(rows)) + b"".join(rows)


def membership(
    rows: list[bytes],
    version: int = 0,
    *,
    mastership: int = 0,
    mastered: int = 0,
    lease: int = 0,
    in_force: int = 0,
    as_of: int = 0,
    master: int = 0,
    before: int | None = None,
) -> bytes:
    """A membership as it stands in a BASE, a WELCOME, and the manifest of a checkpoint."""
    if before is None:
        before = sum(1 << i for i, data in enumerate(rows) if data[:4] != bytes(4) and data[4:8] == bytes(4))
    head = (version, len(rows), mastership, mastered, lease, in_force, as_of, master, before)
    return MEMBERSHIP_HEAD.pack(*head) + b"".join(rows)


def takeover(node: int) -> bytes:
    """The value by which a master says that it has taken over."""
    return struct.pack("<IIQQQ", node, 1, *incarnation(node), 0)


def lasting(node: int, lease: int) -> bytes:
    """The value by which a master says that leases last so many ns from now on."""
    return struct.pack("<IIQQQ", node, 0, *incarnation(node), lease)


def chunks(data: bytes) -> list[tuple[int, int, int]]:
    """(origin, boot, seq) of each chunk in a batch value or behind a Forward."""
    found = []
    at = 0
    while at < len(data):
        size, _, origin, boot, seq, _, _ = CHUNK.unpack_from(data, at)
        found.append((origin, boot, seq))
        at += CHUNK.size + size
    return found


def pack(layout: list[tuple[str, str]], given: dict[str, object], data: bytes) -> bytes:
    out = b""
    for name, code in layout:
        value = given.pop(name, None)
        if code == "B":
            round_, node, inc_hi, inc_lo = value if isinstance(value, tuple) else (0, 0, 0, 0)
            out += BALLOT.pack(round_, inc_hi, inc_lo, node, 0)
        elif code == "V":
            count, kind = value if isinstance(value, tuple) else (1 if data else 0, BATCH if data else NOOP)
            out += VALUE.pack(len(data), count, kind, 0)
        else:
            out += struct.pack("<" + code, value or 0)
    assert not given, f"no such fields: {sorted(given)}"
    return out + data


def unpack(layout: list[tuple[str, str]], body: bytes) -> tuple[dict[str, object], bytes]:
    found: dict[str, object] = {}
    at = 0
    for name, code in layout:
        if code == "B":
            round_, inc_hi, inc_lo, node, zero = BALLOT.unpack_from(body, at)
            assert zero == 0
            found[name] = (round_, node, inc_hi, inc_lo)
            at += BALLOT.size
        elif code == "V":
            size, count, kind, zero = VALUE.unpack_from(body, at)
            assert zero == 0
            assert size == len(body) - at - VALUE.size
            found[name] = (count, kind)
            at += VALUE.size
        else:
            (number,) = struct.unpack_from("<" + code, body, at)
            at += struct.calcsize("<" + code)
            if name == "zero":
                assert number == 0
            else:
                found[name] = number
    return found, body[at:]


def frame(
    kind: int,
    sender: int,
    *,
    chosen: int = 0,
    chain: int = 0,
    data: bytes = b"",
    group: int = 0,
    signature: int = 1,
    inc: tuple[int, int] | None = None,
    **fields: object,
) -> bytes:
    """A valid frame. Fields that are not named are zero; a value head is made from ``data`` (one value, or a no-op)."""
    body = pack(LAYOUTS[kind], dict(fields), data)
    inc_hi, inc_lo = incarnation(sender) if inc is None else inc
    rest = struct.pack("<BBHIIQQQQII", 1, kind, 0, group, sender, signature, inc_hi, inc_lo, chosen, chain, 0) + body
    return struct.pack("<III", 0x31465850, 12 + len(rest), crc(rest)) + rest


def record(kind: int, *, data: bytes = b"", **fields: object) -> bytes:
    """The body of a log record."""
    return pack(RECORDS[kind], dict(fields), data)


@dataclass(frozen=True)
class Message:
    """A frame taken apart."""

    kind: int
    sender: int
    chosen: int
    chain: int
    fields: dict[str, object] = field(default_factory=dict)
    data: bytes = b""


def parse(raw: bytes) -> Message:
    magic, length, check, version, kind, flags, _, sender, _, inc_hi, inc_lo, chosen, chain_at, zero = HEAD.unpack_from(
        raw
    )
    assert (magic, length, version, flags, zero) == (0x31465850, len(raw), 1, 0, 0)
    assert check == crc(raw[12:])
    assert (inc_hi, inc_lo) in (incarnation(sender), OTHER_INCARNATION)
    fields, data = unpack(LAYOUTS[kind], raw[HEAD.size :])
    return Message(kind, sender, chosen, chain_at, fields, data)


def peers(mask: int) -> list[int]:
    """Node ids 1, 2, ... of a mask of members."""
    return [index + 1 for index in range(31) if mask >> index & 1]


def short(effects: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Effects with their bytes taken apart, in a form that is good to compare with literals:

    ("send", name, [nodes], after, {fields}, data), ("log", number, name, instance, {fields}, data), all others as they are.
    Ballots are (round, node); a chosen watermark of a sender other than 0 is a field "n".
    """

    def small(fields: dict[str, object]) -> dict[str, object]:
        return {
            k: v[:2] if isinstance(v, tuple) and len(v) == 4 else v
            for k, v in fields.items()
            if v not in (0, (0, 0, 0, 0))
        }

    found: list[tuple[object, ...]] = []
    for effect in effects:
        if effect[0] == "send":
            _, mask, after, raw = effect
            assert isinstance(raw, bytes)
            assert isinstance(mask, int)
            message = parse(raw)
            fields = small(message.fields)
            if message.chosen:
                fields["n"] = message.chosen
            found.append(("send", NAMES[message.kind], peers(mask), after, fields, message.data))
        elif effect[0] == "log":
            _, number, kind, instance, raw = effect
            assert isinstance(raw, bytes)
            assert isinstance(kind, int)
            fields, data = unpack(RECORDS[kind], raw)
            name = {
                RECORD_PROMISE: "promise",
                RECORD_ACCEPT: "accept",
                RECORD_LEARN: "learn",
                RECORD_WATERMARK: "watermark",
            }[kind]
            found.append(
                ("log", number, name, instance, {k: v for k, v in small(fields).items() if k != "chain"}, data)
            )
        else:
            found.append(effect)
    return found
