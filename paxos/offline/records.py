"""The records of a log taken apart: ``docs/formats-log.md``. Recovery has verified the bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["TYPES", "WITH_INSTANCE", "Record", "Value", "ballot_text", "incarnation_text"]

TYPES: Final = {
    1: "write",
    2: "identity",
    3: "formation",
    4: "formed",
    5: "promise",
    6: "accept",
    7: "learn",
    8: "watermark",
    9: "base",
}
#: Those that are about an instance.
WITH_INSTANCE: Final = ("accept", "learn", "base")
KINDS: Final = {0: "no-op", 1: "batch", 2: "change", 3: "master"}

_BALLOT: Final = struct.Struct("<QQQII")
_WATERMARK: Final = struct.Struct("<QII")
_VALUE: Final = struct.Struct("<IIII")
_IDENTITY: Final = struct.Struct("<QQII")
_FORMATION: Final = struct.Struct("<QQII")
_MEMBER: Final = struct.Struct("<IIQQ")
_BASE: Final = struct.Struct("<II")
_MEMBERSHIP: Final = struct.Struct("<IIQQQII")  # version, count, mastership, mastered, lease, master, zero
_ROW: Final = struct.Struct("<IIQQQ")
_CHUNK: Final = struct.Struct("<IIIIQII")
_CHANGE: Final = struct.Struct("<IIQQQQ")
_MASTER: Final = struct.Struct("<IIQQQ")


def incarnation_text(high: int, low: int) -> str:
    """128 bits, as messages show them."""
    return f"{high:016x}{low:016x}"


def ballot_text(round_: int, node: int) -> str:
    """A ballot, without the incarnation of its node."""
    return f"{round_}.{node}"


@dataclass(frozen=True, slots=True)
class Value:
    """What an instance holds. ``kind``: ``no-op``, ``batch`` of users' values, ``change`` of the membership, or ``master``: one
    has taken over, or leases have another length."""

    kind: str
    count: int
    data: bytes

    def values(self) -> Iterator[tuple[int, int, bytes]]:
        """(node that it was proposed at, state machine, bytes) of each of the users' values."""
        at = 0
        while self.kind == "batch" and at < len(self.data):
            size, count, origin, _, _, machine, _ = _CHUNK.unpack_from(self.data, at)
            at += _CHUNK.size
            end = at + size
            for _ in range(count):
                length = int.from_bytes(self.data[at : at + 4], "little")
                yield origin, machine, self.data[at + 4 : at + 4 + length]
                at += 4 + length
            at = end

    def change(self) -> dict[str, Any]:
        """Which incarnation takes whose place."""
        node, version, old_high, old_low, new_high, new_low = _CHANGE.unpack(self.data)
        return {
            "node": node,
            "version": version,
            "old": incarnation_text(old_high, old_low),
            "new": incarnation_text(new_high, new_low),
        }

    def master(self) -> dict[str, Any]:
        """Who has taken over; or whose word it is that leases last so many ns from now on."""
        node, takeover, high, low, lease = _MASTER.unpack(self.data)
        told: dict[str, Any] = {"node": node, "incarnation": incarnation_text(high, low)}
        return told if takeover else told | {"lease_ns": lease}


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the log. ``position``: segment number * segment size + offset."""

    position: int
    number: int
    """Its type."""
    group: int
    instance: int
    body: bytes

    @property
    def type(self) -> str:
        """The name of its type."""
        return TYPES[self.number]

    @property
    def ballot(self) -> tuple[int, int, str] | None:
        """(round, node, incarnation) that it was promised or accepted under."""
        if self.type not in ("promise", "accept", "base"):
            return None
        round_, high, low, node, _ = _BALLOT.unpack_from(self.body)
        return round_, node, incarnation_text(high, low)

    @property
    def value(self) -> Value | None:
        """The value in it."""
        if self.type not in ("accept", "learn"):
            return None
        at = _WATERMARK.size + (_BALLOT.size if self.type == "accept" else 0)
        size, count, kind, _ = _VALUE.unpack_from(self.body, at)
        data = self.body[at + _VALUE.size :]
        if len(data) != size or kind not in KINDS:
            return None
        return Value(KINDS[kind], count, data)

    def fields(self) -> dict[str, Any]:
        """What its body says, but for a value's bytes. Where the body has not the length of its type: that."""
        try:
            return self._fields()
        except struct.error:
            return {"malformed": len(self.body)}

    def _fields(self) -> dict[str, Any]:
        body, type_ = self.body, self.type
        told: dict[str, Any] = {}
        if (ballot := self.ballot) is not None:
            told["ballot"] = ballot_text(*ballot[:2])
            told["incarnation"] = ballot[2]
        if type_ == "identity":
            high, low, node, boot = _IDENTITY.unpack(body)
            told.update(incarnation=incarnation_text(high, low), node=node, boot=boot)
        elif type_ == "formation":
            told.update(formation_fields(body))
        elif type_ in ("accept", "learn", "watermark"):
            chosen, chain, _ = _WATERMARK.unpack_from(body, _BALLOT.size if type_ == "accept" else 0)
            told.update(chosen=chosen, chain=f"{chain:08x}")
            if (value := self.value) is not None:
                told.update(kind=value.kind, values=value.count, bytes=len(value.data))
        elif type_ == "base":
            chain, was_member = _BASE.unpack_from(body, _BALLOT.size)
            rest = body[_BALLOT.size + _BASE.size :]
            version, members = membership_rows(rest)
            told.update(chain=f"{chain:08x}", was_member=bool(was_member), version=version, members=members)
            _, _, mastership, mastered, lease, master, _ = _MEMBERSHIP.unpack_from(rest)
            told.update(master=master, mastership=mastership, mastered=mastered, lease_ns=lease)
        return told


def formation_fields(body: bytes) -> dict[str, Any]:
    """Signature, alpha and first members of a formation record."""
    high, low, alpha, count = _FORMATION.unpack_from(body)
    members = []
    for index in range(count):
        node, _, inc_high, inc_low = _MEMBER.unpack_from(body, _FORMATION.size + index * _MEMBER.size)
        members.append({"node": node, "incarnation": incarnation_text(inc_high, inc_low)})
    return {"signature": incarnation_text(high, low), "alpha": alpha, "members": members}


def membership_rows(data: bytes) -> tuple[int, list[dict[str, Any]]]:
    """(version, rows) of a membership as bytes."""
    version, count = _MEMBERSHIP.unpack_from(data)[:2]
    rows = []
    for index in range(count):
        node, _, high, low, since = _ROW.unpack_from(data, _MEMBERSHIP.size + index * _ROW.size)
        rows.append({"node": node, "incarnation": incarnation_text(high, low), "since": since})
    return version, rows


# -- written: the bodies of a new cluster's log (see newcluster.py), as the decoders above take them apart


def ballot_bytes(round_: int, node: int = 0, incarnation: tuple[int, int] = (0, 0)) -> bytes:
    """A ballot; without a node it is nobody's."""
    return _BALLOT.pack(round_, *incarnation, node, 0)


def formation_bytes(signature: bytes, alpha: int, members: Mapping[int, tuple[int, int]]) -> bytes:
    """The body of a FORMATION; ``members``: incarnations by node id."""
    high, low = int.from_bytes(signature[:8], "big"), int.from_bytes(signature[8:], "big")
    rows = (_MEMBER.pack(node, 0, *incarnation) for node, incarnation in sorted(members.items()))
    return _FORMATION.pack(high, low, alpha, len(members)) + b"".join(rows)


def mastership_of(membership: bytes) -> int:
    """The version of the mastership that stands in the head of a membership."""
    version: int = _MEMBERSHIP.unpack_from(membership)[2]
    return version


def membership_bytes(
    version: int, members: Mapping[int, tuple[int, int]], *, mastership: int = 0, mastered: int = 0, lease: int = 0
) -> bytes:
    """A membership as it stands in a BASE and in the manifest of a checkpoint; the votes of all members count from instance 0
    on."""
    rows = (_ROW.pack(node, 0, *incarnation, 0) for node, incarnation in sorted(members.items()))
    return _MEMBERSHIP.pack(version, len(members), mastership, mastered, lease, 0, 0) + b"".join(rows)


def base_bytes(promised: bytes, chain: int, membership: bytes) -> bytes:
    """The body of a BASE, in the log of a member."""
    return promised + _BASE.pack(chain, 1) + membership


def watermark_bytes(chosen: int, chain: int) -> bytes:
    """The body of a WATERMARK."""
    return _WATERMARK.pack(chosen, chain, 0)


def learn_bytes(instance: int, chain: int, kind: int, count: int, data: bytes) -> bytes:
    """The body of a LEARN; ``chain`` is the checksum before the instance."""
    return watermark_bytes(instance, chain) + _VALUE.pack(len(data), count, kind, 0) + data
