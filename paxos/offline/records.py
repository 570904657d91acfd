"""The records of a log taken apart: ``docs/formats-log.md``. Recovery has verified the bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from paxos.membership import CHANGE, HEAD, ROW

__all__ = ["ROLES", "TYPES", "WITH_INSTANCE", "Record", "Value", "ballot_text", "incarnation_text"]

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
#: What a member may be. One that is leaving votes until the change that removes it is in force.
ROLES: Final = {0: "voter", 1: "learner", 2: "follower", 3: "leaving"}

_BALLOT: Final = struct.Struct("<QQQII")
_WATERMARK: Final = struct.Struct("<QII")
_VALUE: Final = struct.Struct("<IIII")
_IDENTITY: Final = struct.Struct("<QQII")
_FORMATION: Final = struct.Struct("<QQII")
_MEMBER: Final = struct.Struct("<IIQQ")
_BASE: Final = struct.Struct("<II")
_CHUNK: Final = struct.Struct("<IIIIQII")
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
        """The members as they are to be, in place of those of a version. ValueError where the bytes are no such table."""
        if len(self.data) < CHANGE.size:
            raise ValueError("is too short")
        version, count = CHANGE.unpack_from(self.data)
        return {"version": version, "members": _rows(self.data[CHANGE.size :], count)}

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
        except (struct.error, ValueError):
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
            told.update(chain=f"{chain:08x}", was_member=bool(was_member))
            told.update(membership_fields(body[_BALLOT.size + _BASE.size :]))
        return told


def formation_fields(body: bytes) -> dict[str, Any]:
    """Signature, alpha and members of a formation: the first ones, or, of a node that came later, those that it was told."""
    high, low, alpha, count = _FORMATION.unpack_from(body)
    if count == 0:
        members = membership_fields(body[_FORMATION.size :])["members"]
    else:
        members = []
        for index in range(count):
            node, role, inc_high, inc_low = _MEMBER.unpack_from(body, _FORMATION.size + index * _MEMBER.size)
            members.append({"node": node, "role": role_text(role), "incarnation": incarnation_text(inc_high, inc_low)})
    return {"signature": incarnation_text(high, low), "alpha": alpha, "members": members}


def formation_membership(body: bytes) -> bytes | None:
    """The membership that a formation record tells where its node came later; None: it is of the first members."""
    return body[_FORMATION.size :] if _FORMATION.unpack_from(body)[3] == 0 else None


def role_text(role: int) -> str:
    """What a member is."""
    return ROLES.get(role, f"role {role}")


def _rows(data: bytes, count: int) -> list[dict[str, Any]]:
    """The members in a table of ``count`` places; of a place that nobody has there is none."""
    rows, at = [], 0
    for place in range(count):
        node, role, high, low, since, instead, size = ROW.unpack_from(data, at)
        at += ROW.size
        address = data[at : at + size]
        at += size
        if node:
            rows.append({
                "node": node, "place": place, "role": role_text(role), "incarnation": incarnation_text(high, low),
                "since": since, "instead": instead, "address": address.decode("ascii", "backslashreplace"),
            })  # fmt: skip
    if at != len(data):
        raise ValueError("the table ends elsewhere than the bytes")
    return rows


def membership_fields(data: bytes) -> dict[str, Any]:
    """What a membership says, that came as bytes, and the mastership with it. ``before``: the nodes that vote below ``in_force``.
    struct.error or ValueError where the bytes are none."""
    version, count, mastership, mastered, lease, in_force, as_of, master, before = HEAD.unpack_from(data)
    rows = _rows(data[HEAD.size :], count)
    return {
        "version": version, "members": rows, "in_force": in_force, "as_of": as_of,
        "before": [row["node"] for row in rows if before >> row["place"] & 1],
        "master": master, "mastership": mastership, "mastered": mastered, "lease_ns": lease,
    }  # fmt: skip


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
    version: int = HEAD.unpack_from(membership)[2]
    return version


def membership_bytes(
    version: int,
    members: Mapping[int, tuple[int, int]],
    *,
    mastership: int = 0,
    mastered: int = 0,
    lease: int = 0,
    settled: int,
) -> bytes:
    """A membership as it stands in a BASE and in the manifest of a checkpoint: all are voters, whose votes count from instance 0
    on, with the addresses that each node is configured with. ``settled``: it stands for all changes below that instance,
    which is not 0."""
    rows = (ROW.pack(node, 0, *incarnation, 0, 0, 0) for node, incarnation in sorted(members.items()))
    before = (1 << len(members)) - 1
    head = (version, len(members), mastership, mastered, lease, settled - 1, settled, 0, before)
    return HEAD.pack(*head) + b"".join(rows)


def base_bytes(promised: bytes, chain: int, membership: bytes) -> bytes:
    """The body of a BASE, in the log of a member."""
    return promised + _BASE.pack(chain, 1) + membership


def watermark_bytes(chosen: int, chain: int) -> bytes:
    """The body of a WATERMARK."""
    return _WATERMARK.pack(chosen, chain, 0)


def learn_bytes(instance: int, chain: int, kind: int, count: int, data: bytes) -> bytes:
    """The body of a LEARN; ``chain`` is the checksum before the instance."""
    return watermark_bytes(instance, chain) + _VALUE.pack(len(data), count, kind, 0) + data
