"""Bytes of a log as no right writer and no plain rot leaves them: checksums are right, and what they cover cannot be.

A file that is missing, cut short or of another log; a header or the newest write changed and sealed again. Each wrong comes with
what the next start must say of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from paxos._codec import checksum
from paxos.testing._simdisk import SimFolder

__all__ = ["BODY", "FILES", "HEADERS", "WRITES", "Newest", "contradict", "seal_header", "substitute"]

BLOCK: Final = 4096
#: Of the one record in the newest write; not a multiple of 8, so that it is filled up.
BODY: Final = 45
RECORD: Final = 56
"""Where that record stands in its write."""
IDENTITY: Final = 2


def seal_header(segment: bytearray) -> None:
    """Makes the checksum of a segment's header right."""
    struct.pack_into("<I", segment, 4, checksum(bytes(segment[8:BLOCK])))


class Newest:
    """The newest write of a segment: RECORD_WRITE and one record of BODY bytes."""

    def __init__(self, segment: bytearray, number: int, offset: int) -> None:
        self.segment = segment
        self.offset = offset
        high, low = struct.unpack_from("<QQ", segment, 32)
        self.seed = checksum(struct.pack("<QQQ", high, low, number))

    def put(self, form: str, at: int, value: int) -> None:
        """Changes a field, by its place in the write."""
        struct.pack_into("<" + form, self.segment, self.offset + at, value)

    def seal(self, *, previous: bool) -> None:
        """Makes both checksums right, and, but for ``previous``, the link of the record to what stands before it."""
        first = self._crc(0, 24)
        self.put("I", 0, first)
        if previous:
            self.put("I", RECORD + 4, first)
        size = struct.unpack_from("<I", self.segment, self.offset + RECORD + 8)[0]
        self.put("I", RECORD, self._crc(RECORD, size))

    def _crc(self, at: int, size: int) -> int:
        begin = self.offset + at
        return checksum(bytes(self.segment[begin + 4 : begin + 32 + size]), self.seed)


def _longer(write: Newest) -> None:
    write.put("I", 44, 2 * BLOCK)
    write.segment[write.offset + BLOCK : write.offset + 2 * BLOCK] = bytes(BLOCK)


def _identity(write: Newest) -> None:
    write.put("B", RECORD + 13, IDENTITY)
    write.put("I", RECORD + 8, 24)
    begin = write.offset + RECORD + 32
    write.segment[begin + 24 : begin + 48] = bytes(24)


def _to_the_end(write: Newest) -> None:
    """A record that leaves no room for the header of the next one, which is counted all the same."""
    write.put("I", 48, 2)
    write.put("I", RECORD + 8, BLOCK - 16 - RECORD - 32)


#: What is wrong, what the next start must say ("damaged", "version", "boot", or "cut": that write is taken for torn), the change.
WRITES: Final[list[tuple[str, str, Callable[[Newest], None]]]] = [
    ("a write of a group", "damaged", lambda write: write.put("I", 16, 1)),
    ("a write of an odd length", "damaged", lambda write: write.put("I", 44, BLOCK + 1)),
    ("a write of too many records", "damaged", lambda write: write.put("I", 48, 1000)),
    ("a write of an earlier start", "damaged", lambda write: write.put("I", 40, 0)),
    ("a write longer than its records", "damaged", _longer),
    ("a write of a later version", "version", lambda write: write.put("B", 12, 2)),
    ("a write with fewer records", "cut", lambda write: write.put("I", 48, 0)),
    ("a write of another history", "cut", lambda write: write.put("I", 4, 1)),
    ("a record that leaves no room for the next", "cut", _to_the_end),
    ("the last boot number", "boot", lambda write: write.put("I", 40, 0xFFFFFFFF)),
    ("a record of a later version", "version", lambda write: write.put("B", RECORD + 12, 2)),
    ("a record of a later type", "version", lambda write: write.put("B", RECORD + 13, 99)),
    ("a record with flags", "damaged", lambda write: write.put("H", RECORD + 14, 1)),
    ("a record of another history", "cut", lambda write: write.put("I", RECORD + 4, 1)),
    ("a record not filled up with zeros", "cut", lambda write: write.put("B", RECORD + 32 + BODY, 1)),
    ("a write not filled up with zeros", "cut", lambda write: write.put("B", 200, 1)),
    ("an identity of a wrong size", "damaged", lambda write: write.put("B", RECORD + 13, IDENTITY)),
    ("another identity", "damaged", _identity),
]

#: Changes of a header, and how many segments there must be for the next start to notice. 0: of the first one as well.
HEADERS: Final[list[tuple[str, str, int, Callable[[bytearray], None]]]] = [
    ("a header of a later version", "version", 1, lambda segment: struct.pack_into("<I", segment, 8, 2)),
    ("a header with an odd size", "damaged", 1, lambda segment: struct.pack_into("<Q", segment, 24, 12345)),
    ("a header of another number", "damaged", 1, lambda segment: struct.pack_into("<Q", segment, 16, 1 << 40)),
    ("a header of another log", "damaged", 2, lambda segment: struct.pack_into("<Q", segment, 32, 1)),
    ("a header of another history", "damaged", 2, lambda segment: struct.pack_into("<I", segment, 64, 1)),
]

#: What can happen to whole files, likewise.
FILES: Final[list[tuple[str, int, Callable[[bytes], bytes | None]]]] = [
    ("a segment is missing", 2, lambda data: None),
    ("a segment is cut short", 1, lambda data: data[:-BLOCK]),
    ("a segment is nearly empty", 1, lambda data: data[:100]),
]


# ---- the log of a node: records that contradict what stands before them ----

_FORMATION, _FORMED, _PROMISE, _ACCEPT, _LEARN, _WATERMARK, _BASE = 3, 4, 5, 6, 7, 8, 9
#: By type: (form, place in the record, how it changes). The body begins at 32.
_CONTRADICTIONS: Final[dict[int, list[tuple[str, int, Callable[[int], int]]]]] = {
    _PROMISE: [("B", 13, lambda _: _WATERMARK), ("B", 13, lambda _: _FORMED)],
    _ACCEPT: [
        ("B", 13, lambda _: _PROMISE),
        ("B", 13, lambda _: _WATERMARK),
        ("B", 13, lambda _: _LEARN),
        ("B", 13, lambda _: _FORMATION),
        ("B", 13, lambda _: _FORMED),
        ("I", 16, lambda _: 5),  # group
        ("Q", 24, lambda instance: instance + (1 << 30)),
        ("Q", 32, lambda _: 0),  # round of the ballot
        ("Q", 64, lambda _: 1 << 40),  # chosen
        ("I", 72, lambda chain: chain ^ 1),
        ("I", 80, lambda size: size + 1),
        ("I", 88, lambda _: 9),  # kind of the value
    ],
    _LEARN: [
        ("B", 13, lambda _: _WATERMARK),
        ("B", 13, lambda _: _ACCEPT),
        ("Q", 24, lambda instance: instance + 5),
        ("Q", 32, lambda _: 1 << 40),  # chosen
        ("I", 40, lambda chain: chain ^ 1),
        ("I", 48, lambda size: size + 1),
        ("I", 56, lambda _: 9),  # kind of the value
    ],
    _WATERMARK: [("Q", 32, lambda _: 1 << 40), ("I", 40, lambda chain: chain ^ 1), ("B", 13, lambda _: _PROMISE)],
}


def contradict(folder: SimFolder, number: int) -> bool:
    """Changes a record of the newest write so that it does not fit, and seals it again. False: there is none to be had."""
    names = sorted(name for name in folder.names() if name.endswith(".seg"))
    if not names:
        return False
    segment = bytearray(folder.view(names[-1]))
    if len(segment) <= BLOCK:
        return False
    high, low = struct.unpack_from("<QQ", segment, 32)
    seed = checksum(struct.pack("<QQQ", high, low, int(names[-1][:16], 16)))
    at, newest = BLOCK, 0
    while at < len(segment) and struct.unpack_from("<I", segment, at)[0] == checksum(
        bytes(segment[at + 4 : at + 56]), seed
    ):
        newest = at
        at += struct.unpack_from("<I", segment, at + 44)[0]
    if not newest:
        return False
    records = []
    at = newest + RECORD
    for _ in range(struct.unpack_from("<I", segment, newest + 48)[0]):
        records.append(at)
        at += 32 + (struct.unpack_from("<I", segment, at + 8)[0] + 7) // 8 * 8
    # What a RECORD_BASE makes obsolete is not compared with anything.
    begin = max((at for at in records if segment[at + 13] == _BASE), default=0)
    fitting = [at for at in records if at > begin and segment[at + 13] in _CONTRADICTIONS]
    if not fitting:
        return False
    at = fitting[number % len(fitting)]
    changes = _CONTRADICTIONS[segment[at + 13]]
    form, place, change = changes[number // 7 % len(changes)]
    old = struct.unpack_from("<" + form, segment, at + place)[0]
    struct.pack_into("<" + form, segment, at + place, change(old))
    previous = struct.unpack_from("<I", segment, newest)[0]
    for at in records:
        struct.pack_into("<I", segment, at + 4, previous)
        size = struct.unpack_from("<I", segment, at + 8)[0]
        previous = checksum(bytes(segment[at + 4 : at + 32 + size]), seed)
        struct.pack_into("<I", segment, at, previous)
    folder.replace(names[-1], bytes(segment))
    return True


# ---- the log of a node: another value, and nothing that contradicts it ----


def substitute(segment: bytearray, instance: int, new: bytes) -> int:
    """Puts other last bytes into the value of an instance, and makes all that stands on it right: crcs, links, and the chain
    checksums that the log names from there on. What is left is a log that verifies, of a cluster that chose something else.

    The log must be this one segment. How many records of the instance were changed.
    """
    high, low, number = *struct.unpack_from("<QQ", segment, 32), struct.unpack_from("<Q", segment, 16)[0]
    seed = checksum(struct.pack("<QQQ", high, low, number))
    records, previous, changed, at = [], 0, 0, BLOCK
    while struct.unpack_from("<I", segment, at)[0] == checksum(bytes(segment[at + 4 : at + RECORD]), seed):
        records.append(at)
        inner = at + RECORD
        for _ in range(struct.unpack_from("<I", segment, at + 48)[0]):
            records.append(inner)
            inner += 32 + (struct.unpack_from("<I", segment, inner + 8)[0] + 7) // 8 * 8
        at += struct.unpack_from("<I", segment, at + 44)[0]
    values: dict[int, tuple[int, bytes]] = {}
    named: dict[int, int] = {}  # where a chain checksum stands, and behind how many instances
    for at in records:
        kind, size = segment[at + 13], struct.unpack_from("<I", segment, at + 8)[0]
        if kind not in (_ACCEPT, _LEARN, _WATERMARK):
            continue
        place = 64 if kind == _ACCEPT else 32
        named[at + place + 8] = struct.unpack_from("<Q", segment, at + place)[0]
        if kind == _WATERMARK:
            continue
        which, head = struct.unpack_from("<Q", segment, at + 24)[0], at + place + 16
        begin, end = head + 16, at + 32 + size
        if which == instance:
            segment[end - len(new) : end] = new
            changed += 1
        values[which] = (struct.unpack_from("<I", segment, head + 8)[0], bytes(segment[begin:end]))
    chains = [0]
    while (which := len(chains) - 1) in values:
        kind, data = values[which]
        chains.append(checksum(struct.pack("<QQ", which, kind << 32 | len(data)) + data, chains[-1]))
    for at, chosen in named.items():
        struct.pack_into("<I", segment, at, chains[chosen])
    for at in records:
        struct.pack_into("<I", segment, at + 4, previous)
        size = struct.unpack_from("<I", segment, at + 8)[0]
        previous = checksum(bytes(segment[at + 4 : at + 32 + size]), seed)
        struct.pack_into("<I", segment, at, previous)
    return changed
