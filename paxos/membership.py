"""Who belongs to the cluster: the table of members as Python sees it, and what becomes of it by each operation.

All of it is functions of a table alone. How a change gets chosen is in :mod:`paxos.changes`; the bytes are those of
``_membership.pyx`` (docs/formats-log.md).
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from paxos.config import MAX_ID, MAX_MEMBERS, parse_address
from paxos.errors import ConfigError, MembershipRefused
from paxos.hosts import host_text

__all__ = [
    "Do",
    "Member",
    "Members",
    "Operation",
    "Role",
    "Situation",
    "Table",
    "address_text",
    "called",
    "judge",
    "member_address",
    "member_id",
    "true_from",
    "voters",
]

#: What a member is: see :class:`Member`.
Role = Literal["voter", "learner", "follower", "leaving"]

ROLES: Final[tuple[Role, ...]] = ("voter", "learner", "follower", "leaving")
VOTER, LEARNER, FOLLOWER, LEAVING = range(4)

ADDRESS_MAX: Final = 255
UNSPECIFIED: Final = ("0.0.0.0", "::")
#: A membership: version, places, mastership, mastered, lease, in force, as of, master, before; then the rows.
HEAD: Final = struct.Struct("<IIQQQQQII")
#: node, role, incarnation (two halves), since, instead, bytes of the address, which follows
ROW: Final = struct.Struct("<IIQQQII")
#: A change: version, places; then the rows.
CHANGE: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster."""

    node_id: int
    role: Role
    """``voter``; ``learner``: it becomes a voter as soon as it is level; ``follower``: it learns, and stays without a vote;
    ``leaving``: a voter that is being removed, and votes until that is in force."""
    address: str
    """``HOST:PORT``, where the others find it; empty: where each of them was told by ``cluster=``."""
    incarnation: str
    """Its data directory: another one has another incarnation. Empty: it has not come yet."""
    replaces: int | None
    """The member that goes when this one becomes a voter, if it comes in the place of one."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members of the cluster at one moment, as one node knows them."""

    version: int
    """How often they have changed since the cluster was formed. On all nodes the same version is the same members."""
    members: tuple[Member, ...]
    """In the order of their ids. Empty: this node knows of no cluster yet."""
    pending: bool
    """A change of who votes is chosen, and not in force yet: that takes 64 instances more. Until then no other is taken."""

    def get(self, node_id: int) -> Member | None:
        """The member with this id, if there is one."""
        return next((member for member in self.members if member.node_id == node_id), None)

    def _of(self, *roles: Role) -> tuple[int, ...]:
        return tuple(member.node_id for member in self.members if member.role in roles)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all."""
        return self._of(*ROLES)

    @property
    def voters(self) -> tuple[int, ...]:
        """The ids of those that have a vote, and keep it."""
        return self._of("voter")

    @property
    def learners(self) -> tuple[int, ...]:
        """The ids of those that become voters when they are level."""
        return self._of("learner")

    @property
    def followers(self) -> tuple[int, ...]:
        """The ids of those that only learn."""
        return self._of("follower")

    @property
    def leaving(self) -> tuple[int, ...]:
        """The ids of those that are being removed."""
        return self._of("leaving")


@dataclass(frozen=True, slots=True)
class Row:
    """A place, and who has it; node 0: nobody."""

    node: int = 0
    role: int = VOTER
    inc_hi: int = 0
    inc_lo: int = 0
    since: int = 0
    instead: int = 0
    address: str = ""


NOBODY: Final = Row()


@dataclass(frozen=True, slots=True)
class Table:
    """The members as they are chosen, in the order of their places. A change of who votes is in force from ``in_force`` on."""

    version: int = 0
    in_force: int = 0
    rows: tuple[Row, ...] = ()

    @classmethod
    def decode(cls, data: bytes) -> Table:
        """What the engine calls the membership. ValueError: it is none."""
        try:
            version, count, _, _, _, in_force, _, _, _ = HEAD.unpack_from(data)
            at = HEAD.size
            rows = []
            for _ in range(count):
                node, role, inc_hi, inc_lo, since, instead, size = ROW.unpack_from(data, at)
                at += ROW.size
                if role >= len(ROLES) or at + size > len(data):
                    raise ValueError("no such role, or cut off")
                rows.append(Row(node, role, inc_hi, inc_lo, since, instead, data[at : at + size].decode("ascii")))
                at += size
        except (struct.error, ValueError) as error:
            raise ValueError(f"this is no table of members: {error}") from error
        return cls(version, in_force, tuple(rows))

    def change(self) -> bytes:
        """The value that changes the members of this version to what stands here."""
        data = bytearray(CHANGE.pack(self.version, len(self.rows)))
        for row in self.rows:
            address = row.address.encode("ascii")
            data += ROW.pack(row.node, row.role, row.inc_hi, row.inc_lo, row.since, row.instead, len(address))
            data += address
        return bytes(data)

    def find(self, node: int) -> Row | None:
        """Who goes by this id."""
        return next((row for row in self.rows if row.node == node), None)

    @property
    def voters(self) -> frozenset[int]:
        """Who has a vote, and keeps it."""
        return frozenset(row.node for row in self.rows if row.node and row.role == VOTER)

    def pending(self, chosen: int) -> bool:
        """Whether another change has to wait."""
        return bool(self.in_force) and chosen <= self.in_force

    def members(self, chosen: int) -> Members:
        """For people, where so many instances are known chosen."""
        found = [
            Member(
                row.node,
                ROLES[row.role],
                row.address,
                f"{row.inc_hi:016x}{row.inc_lo:016x}" if row.inc_hi or row.inc_lo else "",
                row.instead or None,
            )
            for row in self.rows
            if row.node
        ]
        return Members(self.version, tuple(sorted(found, key=lambda m: m.node_id)), self.pending(chosen))

    def _put(self, row: Row) -> Table:
        """With this row in the place of the node's, or in a free one."""
        rows = list(self.rows)
        at = next((i for i, old in enumerate(rows) if old.node == row.node), None)
        if at is None:
            at = next((i for i, old in enumerate(rows) if old.node == 0), len(rows))
        rows[at : at + 1] = [row]
        return dataclasses.replace(self, rows=tuple(rows))

    def _without(self, node: int) -> Table:
        """A voter leaves; another one goes. Who came in its place comes for itself now."""
        rows = []
        for row in self.rows:
            if row.node == node:
                row = dataclasses.replace(row, role=LEAVING, instead=0) if row.role == VOTER else NOBODY
            elif row.instead == node:
                row = dataclasses.replace(row, instead=0)
            rows.append(row)
        return dataclasses.replace(self, rows=tuple(rows))

    def located(self, addresses: Mapping[int, str]) -> Table:
        """With the addresses that are not in it."""
        rows = [
            dataclasses.replace(row, address=_alike(addresses.get(row.node, "")))
            if row.node and not row.address
            else row
            for row in self.rows
        ]
        return dataclasses.replace(self, rows=tuple(rows))


def true_from(data: bytes) -> int:
    """Who knows fewer instances chosen than this does not know what held there, by what the engine calls the membership."""
    as_of: int = HEAD.unpack_from(data)[6]
    return as_of


def voters(data: bytes) -> frozenset[int]:
    """Who votes by what the engine calls the membership."""
    return Table.decode(data).voters


# ---- what is asked for ----


class Do(enum.IntEnum):
    """Operations; the numbers travel."""

    ADD = 1
    ADD_FOLLOWER = 2
    REMOVE = 3
    REMOVE_FORCED = 4
    REPLACE = 5
    PROMOTE = 6
    MOVE = 7


@dataclass(frozen=True, slots=True)
class Operation:
    """A change that somebody wants. ``other``: the one that is replaced."""

    do: Do
    node_id: int
    other: int = 0
    address: str = ""

    def __str__(self) -> str:
        if self.do is Do.REPLACE:
            return f"replacing node {self.other} by node {self.node_id}"
        word = {Do.PROMOTE: "promoting", Do.MOVE: "moving", Do.ADD: "adding", Do.ADD_FOLLOWER: "adding"}
        return f"{word.get(self.do, 'removing')} node {self.node_id}"

    @property
    def removes(self) -> bool:
        """Whether it is about somebody who is to go."""
        return self.do in (Do.REMOVE, Do.REMOVE_FORCED)

    @property
    def goes(self) -> int:
        """Who goes by it; 0: nobody."""
        return self.node_id if self.removes else self.other

    def done(self, table: Table) -> bool:
        """Whether it has nothing to wait for any more, once it was found to be there: a voter that leaves has to be gone."""
        return not self.removes or table.find(self.node_id) is None


def member_id(node_id: object) -> int:
    """An id, checked. ConfigError."""
    if isinstance(node_id, bool) or not isinstance(node_id, int) or not 0 < node_id <= MAX_ID:
        raise ConfigError(f"node_id={node_id!r}: an id is an integer from 1 to {MAX_ID}")
    return node_id


def address_text(host: str, port: int) -> str:
    """``HOST:PORT``, always written alike."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def member_address(address: object) -> str:
    """Where a member is to be found, checked, and always written alike. ConfigError."""
    if not isinstance(address, str):
        raise ConfigError(f"address={address!r}: give HOST:PORT, as in 10.0.0.4:7101")
    host, port = parse_address(address.strip())
    try:
        host = host_text(host)
    except UnicodeError as error:
        raise ConfigError(f"address {address!r}: {host!r} is no name: {error}") from error
    if host in UNSPECIFIED:
        raise ConfigError(
            f"address {address!r} is where a node listens, not where others find it: give the address of its machine"
        )
    text = address_text(host, port)
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > ADDRESS_MAX:
        raise ConfigError(
            f"address {address!r}: at most {ADDRESS_MAX} printable ASCII characters without spaces; write a name as DNS does"
        )
    return text


def _alike(address: str) -> str:
    """What a node was told, written as :func:`member_address` does; nothing, where others could make nothing of it."""
    try:
        return member_address(address)
    except ConfigError:
        return address if address.isascii() and len(address) <= ADDRESS_MAX else ""


# ---- what becomes of it ----


@dataclass(frozen=True, slots=True)
class Situation:
    """What the master looks at beside the table: where it was told the members are, whom it reaches (itself among them), and
    whether the node that goes was seen as a member, by whoever asks or by the master."""

    addresses: Mapping[int, str]
    reached: Collection[int]
    seen: bool = False


def judge(table: Table, operation: Operation, situation: Situation) -> Table | None:
    """The table to be chosen next; None: what is asked for stands in this one. Raises MembershipRefused."""
    there = table.located(situation.addresses)
    found: Table | None
    if operation.do is Do.ADD or operation.do is Do.ADD_FOLLOWER:
        found = _add(there, operation)
    elif operation.removes:
        found = _remove(there, operation, situation)
    elif operation.do is Do.REPLACE:
        found = _replace(there, operation, situation)
    elif operation.do is Do.PROMOTE:
        found = _promote(there, operation)
    else:
        found = _move(there, operation)
    return found


def called(role: str) -> str:
    """A role in a sentence."""
    return role if role == "leaving" else f"a {role}"


def _names(nodes: Collection[int]) -> str:
    return f"node {min(nodes)}" if len(nodes) == 1 else f"nodes {', '.join(map(str, sorted(nodes)))}"


def _unknown(table: Table, node: int) -> MembershipRefused:
    there = _names([row.node for row in table.rows if row.node])
    return MembershipRefused(f"node {node} is no member; there are {there}")


def _free_address(table: Table, node: int, address: str) -> None:
    for row in table.rows:
        if row.node not in (0, node) and row.address == address:
            raise MembershipRefused(
                f"node {row.node} is at {address} already: give node {node} an address of its own, or move node {row.node} first"
            )


def _at_the_address(row: Row, address: str) -> None:
    if row.address != address:
        at = f"at {row.address}" if row.address else "at an address that the master was not told"
        raise MembershipRefused(
            f"node {row.node} is a member already, {at}, not at {address}: to give it another address use move; another "
            "node needs an id of its own"
        )


def _room(table: Table) -> None:
    if len(table.rows) >= MAX_MEMBERS and all(row.node for row in table.rows):
        raise MembershipRefused(f"there are {MAX_MEMBERS} members, and no more can be: remove one first")


def _add(table: Table, operation: Operation) -> Table | None:
    follower = operation.do is Do.ADD_FOLLOWER
    _free_address(table, operation.node_id, operation.address)
    row = table.find(operation.node_id)
    if row is None:
        _room(table)
        return table._put(Row(operation.node_id, FOLLOWER if follower else LEARNER, address=operation.address))
    _at_the_address(row, operation.address)
    if row.role == LEAVING:
        return table  # to be taken in again when it is gone
    if follower and row.role != FOLLOWER:
        raise MembershipRefused(
            f"node {row.node} is {called(ROLES[row.role])} already, no follower: remove it, and add it again with an "
            "empty directory"
        )
    if not follower and row.role == FOLLOWER:
        raise MembershipRefused(f"node {row.node} is a follower: to give it a vote use promote")
    return None


def _remove(table: Table, operation: Operation, situation: Situation) -> Table | None:
    row = table.find(operation.node_id)
    if row is None:
        if situation.seen:
            return None
        raise _unknown(table, operation.node_id)
    if row.role == LEAVING:
        return None
    if row.role == VOTER:
        left = table.voters - {row.node}
        if not left:
            raise MembershipRefused(
                f"node {row.node} is the only voter: without it nothing could be chosen any more, not even another one. Add a "
                "node, wait until it is a voter, then remove this one"
            )
        missing = left - frozenset(situation.reached)
        if operation.do is not Do.REMOVE_FORCED and 2 * (len(left) - len(missing)) <= len(left):
            raise MembershipRefused(
                f"without node {row.node} a majority of the voters left ({_names(left)}) is wanted for everything, and the "
                f"master has no connection to {_names(missing)}: nothing could be chosen. Bring what is missing up, or remove "
                "that first; force removes it all the same"
            )
    return table._without(row.node)


def _replace(table: Table, operation: Operation, situation: Situation) -> Table | None:
    new, old = table.find(operation.node_id), table.find(operation.other)
    _free_address(table, operation.node_id, operation.address)
    if new is not None:
        _at_the_address(new, operation.address)
        gone = old.role == LEAVING if old is not None else situation.seen
        if new.instead == operation.other or (gone and new.role in (VOTER, LEARNER)):
            return None
        if gone and new.role == FOLLOWER:
            raise MembershipRefused(
                f"node {operation.other} has no vote any more, and node {new.node} is a follower: to give it one, promote it"
            )
    if old is None:
        raise _unknown(table, operation.other)
    if old.role != VOTER:
        raise MembershipRefused(
            f"node {old.node} is {called(ROLES[old.role])}, no voter, so there is no vote to take over: "
            f"add node {operation.node_id}, and remove node {old.node}"
        )
    if new is None:
        _room(table)
        return table._put(Row(operation.node_id, LEARNER, instead=old.node, address=operation.address))
    if new.role == LEAVING:
        return table
    if new.role == VOTER:
        raise MembershipRefused(f"node {new.node} is a voter already: remove node {old.node}")
    if new.instead:
        raise MembershipRefused(f"node {new.node} is coming in the place of node {new.instead} already")
    return table._put(dataclasses.replace(new, role=LEARNER, instead=old.node))


def _promote(table: Table, operation: Operation) -> Table | None:
    row = table.find(operation.node_id)
    if row is None:
        raise _unknown(table, operation.node_id)
    if row.role == LEAVING:
        raise MembershipRefused(
            f"node {row.node} is being removed: when it is gone, add it again, with an empty directory"
        )
    return table._put(dataclasses.replace(row, role=LEARNER)) if row.role == FOLLOWER else None


def _move(table: Table, operation: Operation) -> Table | None:
    row = table.find(operation.node_id)
    if row is None:
        raise _unknown(table, operation.node_id)
    _free_address(table, row.node, operation.address)
    if row.address == operation.address:
        return None
    return table._put(dataclasses.replace(row, address=operation.address))
