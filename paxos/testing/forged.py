"""Frames that no right peer sends, with right checksums: each must be refused or dropped, and change nothing.

A frame is its type and body; ``own``: it is a FORWARD under the receiver's newest own ballot, of the sender's present process, so
that only the rest is wrong; and what its header says, where that is not what a member of the receiver's cluster would say
(``to``: a HELLO to the receiver).
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

__all__ = ["FORGED"]

#: type, body, own, header
Forged: TypeAlias = tuple[int, bytes, bool, dict[str, int]]

HELLO, REFUSE, FORM = 1, 2, 3
PREVOTE, PREPARE, PROMISE_VALUE, ACCEPT, ACCEPTED, HEARTBEAT = 16, 18, 19, 22, 23, 24
LEARN, LEARNED, FORWARD, FORWARD_REFUSED = 26, 27, 28, 29
NOOP, BATCH = 0, 1
FAR: Final = 1 << 40


def _ballot(node: int = 999) -> bytes:
    """Of nobody."""
    return struct.pack("<QQQII", FAR, 7, 7, node, 0)


def _accept(size: int, count: int, kind: int, data: bytes = b"", zero: int = 0) -> Forged:
    return ACCEPT, _ballot() + struct.pack("<QQIIII", 0, 0, size, count, kind, zero) + data, False, {}


def _chunk(size: int, count: int, data: bytes, *, origin: int = 999) -> bytes:
    return struct.pack("<IIIIQII", size, count, origin, 1, FAR, 0, 0) + data


def _batch(chunks: bytes, count: int) -> Forged:
    return _accept(len(chunks), count, BATCH, chunks)


def _learned(count: int, data: bytes, first: int = FAR) -> Forged:
    return LEARNED, struct.pack("<QII", first, count, 0) + data, False, {}


def _head(size: int, count: int, kind: int) -> bytes:
    return struct.pack("<IIII", size, count, kind, 0)


_WORD = struct.pack("<I", 1) + b"x"
_HEARTBEAT = _ballot() + bytes(24)
_HELLO = struct.pack("<QQIIII", 1, 1, 0, 1, 2, 0)  # of a formed cluster, to nobody

FORGED: Final[list[Forged]] = [
    # Malformed: the connection ends.
    _accept(100, 1, BATCH, b"short"),
    _accept(0, 0, BATCH),
    _accept(0, 0, 9),
    _accept(0, 1, NOOP),
    _accept(0, 0, NOOP, zero=1),
    _batch(b"half a chunk", 1),
    _batch(_chunk(0, 0, b""), 0),
    _batch(_chunk(100, 1, _WORD), 1),
    _batch(_chunk(5, 2, _WORD), 2),
    _batch(_chunk(5, 1, struct.pack("<I", 9) + b"x"), 1),
    _batch(_chunk(6, 1, _WORD + b"y"), 1),
    _batch(_chunk(5, 1, _WORD), 2),
    (PROMISE_VALUE, _ballot() + bytes(48) + _head(9, 0, NOOP), False, {}),
    _learned(1, b""),
    _learned(1, _head(9, 1, BATCH)),
    _learned(1, _head(0, 0, NOOP) + b"more"),
    (FORWARD, _ballot() + struct.pack("<II", 1, 2) + _chunk(5, 1, _WORD), False, {}),
    (FORWARD_REFUSED, _ballot() + struct.pack("<IIII", 1, 9, 0, 0), False, {}),
    (FORWARD_REFUSED, _ballot() + struct.pack("<IIII", 1, 1, 2, 0) + bytes(8), False, {}),
    (FORM, bytes(24), False, {}),
    (REFUSE, bytes(2000), False, {}),
    (HEARTBEAT, _HEARTBEAT + bytes(8), False, {}),
    (LEARN, bytes(24), False, {"flags": 1}),
    (LEARN, bytes(24), False, {"version": 2}),
    (LEARN, bytes(24), False, {"length": 1 << 30}),
    (LEARN, bytes(24), False, {"length": 70}),
    (LEARN, bytes(24), False, {"length": 96}),
    (99, bytes(24), False, {}),
    # Of another cluster, an unknown group, a node that is none.
    (LEARN, bytes(24), False, {"signature": 1}),
    (LEARN, bytes(24), False, {"sender": 999}),
    (LEARN, bytes(24), False, {"inc": 1}),
    (LEARN, bytes(24), False, {"group": 5}),
    (REFUSE, bytes(8), False, {"sender": 999}),
    (REFUSE, bytes(8), False, {}),
    (HELLO, _HELLO, False, {}),
    (HELLO, _HELLO, False, {"to": 1, "sender": 999}),
    (HELLO, _HELLO, False, {"to": 1}),
    # In the name of somebody else, or of another time.
    _accept(0, 0, NOOP),
    (HEARTBEAT, _HEARTBEAT, False, {}),
    (PREPARE, _ballot() + bytes(16), False, {}),
    _learned(0, b""),
    (FORWARD_REFUSED, _ballot() + struct.pack("<IIII", 0xFFFFFFFF, 1, 1, 0) + bytes(8), False, {}),
    (FORWARD, _ballot() + struct.pack("<II", 0, 1) + _chunk(5, 1, _WORD), True, {}),
]
