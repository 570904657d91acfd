"""Changes of the membership in simulated lives: any set of voters to any other, learners, followers, replacements, and the disks
of those who left destroyed as soon as their change is in force.

A life with spare nodes has them (``Plan.spares``). All that is drawn here comes from dice of its own. Tables are made here
without the library's own means, and may be odd: sets without a common node, a master that removes itself, voters that know
nothing yet.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from paxos.testing.cluster import MS, SECOND, Cluster, Replica, Violation
from paxos.testing.faults import Faults

__all__ = ["Moves", "Row", "table_of"]

#: Simulated seconds after the last fault within which who comes in has a vote, and who leaves is gone.
SETTLED_WITHIN: Final = 30

VOTER, LEARNER, FOLLOWER, LEAVING = range(4)

_HEAD: Final = struct.Struct("<IIQQQQQII")  # version, count, three of the mastership, in force, as of, master, before
_ROW: Final = struct.Struct("<IIQQQII")
_CHANGE: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Row:
    """A place in the table of members; node 0: nobody has it."""

    node: int = 0
    role: int = 0
    incarnation: tuple[int, int] = (0, 0)
    since: int = 0
    instead: int = 0
    address: bytes = b""


@dataclass(frozen=True, slots=True)
class Table:
    """What a node takes for the membership."""

    version: int
    in_force: int
    before: int
    rows: tuple[Row, ...]

    def row(self, node: int) -> Row | None:
        """That of a node, if it has one."""
        return next((row for row in self.rows if row.node == node), None)

    def change(self, rows: Sequence[Row]) -> bytes:
        """The value that has other rows chosen."""
        packed = (
            _ROW.pack(row.node, row.role, *row.incarnation, row.since, row.instead, len(row.address)) + row.address
            for row in rows
        )
        return _CHANGE.pack(self.version, len(rows)) + b"".join(packed)


def table_of(data: bytes) -> Table:
    """A membership, from its bytes."""
    version, count, _, _, _, in_force, _, _, before = _HEAD.unpack_from(data)
    rows, at = [], _HEAD.size
    for _ in range(count):
        node, role, high, low, since, instead, size = _ROW.unpack_from(data, at)
        at += _ROW.size
        rows.append(Row(node, role, (high, low), since, instead, data[at : at + size]))
        at += size
    return Table(version, in_force, before, tuple(rows))


class Moves:
    """What one life has of them; ``hits`` counts what was asked for."""

    def __init__(self, seed: int, cluster: Cluster, faults: Faults) -> None:
        self.dice = random.Random(seed * 2 + 5)
        self.cluster = cluster
        self.faults = faults
        self.hits: Counter[str] = Counter()
        self.gap = self.dice.choice([50, 300, 1000, 3000]) * MS
        self.destroys = self.dice.choice([0.0, 0.5, 1.0])
        self.been: set[int] = set()  # nodes that have been members, with the disk that they have
        self.end = 0
        self.asked: list[Sequence[Row]] = []  # the newest tables that may be or become the present one
        faults.may_rot = self._may_rot

    def begin(self, seconds: float) -> None:
        """Asks for changes as long as the faults last."""
        self.end = self.cluster.now + int(seconds * SECOND)
        self.cluster.world.call_at(self.cluster.now + 200 * MS, self._turn)

    def _turn(self) -> None:
        master = self.cluster.master()
        if master is not None and master.handle is not None and not self.faults.over:
            table = table_of(master.handle.membership())
            self.been |= {row.node for row in table.rows if row.node and row.incarnation != (0, 0)}
            # (A master of long ago does not know who has come back since.)
            if master.status()["chosen"] > table.in_force and table.version == self._newest().version:
                self._settled(table)
                rows = self._draw(table)
                if rows is not None and master.handle is not None:
                    self.asked = [*self.asked[-4:], rows]
                    master.handle.change(table.change(rows))
        if self.cluster.now < self.end:
            wait = 1 + int(self.dice.expovariate(1 / self.gap))
            self.cluster.world.call_at(self.cluster.now + wait, self._turn)

    # -- what is true once a change is in force

    def _settled(self, table: Table) -> None:
        """Who is no member any more may be destroyed; in operation the nodes' configuration would follow the membership, too."""
        present = [row.node for row in table.rows if row.node]
        self.cluster.world.configured = present
        for replica in self.cluster.replicas:
            if replica.id not in present and replica.id in self.been and self.dice.random() < self.destroys:
                self._destroy(replica)

    def _destroy(self, replica: Replica) -> None:
        self.hits["destroyed"] += 1
        self.been.discard(replica.id)
        self.faults.contradicted.discard(replica.id)
        self.faults.rotten.pop(replica.id, None)
        if replica.up:
            self.cluster.crash(replica)
        replica.damaged = None
        self.cluster.world.wipe(replica.index)
        self.cluster.world.call_at(self.cluster.now + 20 * MS, lambda: self.faults.revive(replica))

    def _restart(self, replica: Replica) -> None:
        """It was given the wrong nodes to begin with."""
        if replica.up and replica.id not in self.been:
            self.cluster.crash(replica)

    def _fresh(self, replica: Replica) -> bool:
        """Whether its disk has never been a member's: one that was removed does not come again with that."""
        if replica.id in self.been:
            return False
        if replica.handle is not None and replica.handle.status()["replaced"]:
            self.been.add(replica.id)  # it came and went between two looks
            return False
        return True

    # -- what is asked for

    def _here(self, row: Row) -> bool:
        """Whether the disk of that node is the one of which the table speaks."""
        return row.incarnation != (0, 0) and self.cluster.world.incarnation(row.node - 1) == row.incarnation

    @staticmethod
    def _voting(rows: Sequence[Row]) -> set[int]:
        return {row.node for row in rows if row.node and row.role == VOTER}

    def _may_rot(self, replica: Replica) -> bool:
        """Whether a majority remains of each set of voters that counts, or may soon, when this node has lost its log, too."""
        newest = self._newest()
        before = {newest.rows[i].node for i in range(len(newest.rows)) if newest.before >> i & 1}
        lost = {*self.faults.rotten, replica.id}
        tables = [newest.rows, *self.asked]
        if any(row.node == replica.id and row.role == LEARNER for rows in tables for row in rows):
            return False  # it may be made a voter at this moment
        sets = [before, *map(self._voting, tables)]
        return all(2 * len(voters & lost) < len(voters) for voters in sets if voters)

    def _sound(self, rows: Sequence[Row]) -> bool:
        """Whether a majority of the voters to be is none that has to get well first, or that never comes."""
        voters = [row for row in rows if row.node and row.role == VOTER]
        well = [row for row in voters if self._here(row) and row.node not in self.faults.rotten]
        return 2 * len(well) > len(voters)

    def _draw(self, table: Table) -> list[Row] | None:
        dice = self.dice
        rows = list(table.rows)
        kind = dice.choice(["add", "add", "remove", "set", "set", "role", "replace", "address"])
        absent = [replica for replica in self.cluster.replicas if table.row(replica.id) is None]
        if kind == "add" or kind == "replace":
            fresh = [replica for replica in absent if self._fresh(replica)]
            voters = [row.node for row in rows if row.node and row.role == VOTER]
            if not fresh or (kind == "replace" and len(voters) < 2):
                return None
            new = dice.choice(fresh)
            instead = dice.choice(voters) if kind == "replace" else 0
            role = LEARNER if kind == "replace" else dice.choice([LEARNER, LEARNER, FOLLOWER])
            row = Row(new.id, role, (0, 0), 0, instead, b"node%d:7101" % new.id)
            vacant = next((i for i, place in enumerate(rows) if not place.node), None)
            if vacant is None:
                rows.append(row)
            else:
                rows[vacant] = row
            self._restart(new)
        else:
            present = [i for i, row in enumerate(rows) if row.node]
            if kind == "remove":
                self._remove(rows, dice.choice(present))
            elif kind == "set":
                for i in present:
                    self._set(rows, i, dice.random() < 0.6)
            elif kind == "role":
                i = dice.choice(present)
                self._set(rows, i, rows[i].role != VOTER)
            else:
                i = dice.choice(present)
                rows[i] = replace(rows[i], address=b"elsewhere%d:7101" % dice.randint(1, 9))
        if not self._sound(rows):
            return None
        self.hits[kind] += 1
        return rows

    @staticmethod
    def _remove(rows: list[Row], i: int) -> None:
        rows[i] = replace(rows[i], role=LEAVING, instead=0) if rows[i].role == VOTER else Row()

    def _set(self, rows: list[Row], i: int, votes: bool) -> None:
        """A voter, or none: then it goes, or stays as a follower, or to become one again."""
        row = rows[i]
        if votes:
            if row.role != VOTER and self._here(row):
                rows[i] = replace(row, role=VOTER, instead=0)
        elif self.dice.random() < 0.5:
            self._remove(rows, i)
        elif row.role == VOTER:
            rows[i] = replace(row, role=self.dice.choice([FOLLOWER, LEARNER]))

    # -- in the peace that follows

    def _newest(self) -> Table:
        """The membership, as whoever knows most knows it."""
        knowing = [replica for replica in self.cluster.replicas if replica.handle is not None]
        tables = [
            (replica.status()["chosen"], table_of(replica.handle.membership())) for replica in knowing if replica.handle
        ]
        return max(tables, key=lambda known: (known[1].version, known[0]))[1]

    def versions(self) -> int:
        """How many changes were chosen."""
        return self._newest().version if any(replica.up for replica in self.cluster.replicas) else 0

    def _comes(self, row: Row) -> bool:
        """Whether that node is the one of which the table speaks, or is going to be."""
        return self._here(row) or row.node in self.faults.rotten or self._fresh(self.cluster.replicas[row.node - 1])

    def _unrest(self) -> list[int]:
        """Members that are still on their way in or out."""
        return [row.node for row in self._newest().rows if row.node and (
            row.role == LEAVING or (row.role == LEARNER and self._comes(row)))]  # fmt: skip

    def peace(self) -> list[Replica]:
        """Waits until everybody has become what he is to become; the members then. Of others nothing is to be expected."""
        self.cluster.run(5.0)  # what was asked for last is chosen, or lost
        if not self.cluster.run_until(lambda: not self._unrest(), SETTLED_WITHIN):
            raise Violation(
                f"members {self._unrest()} are still on their way {SETTLED_WITHIN} s after the last fault: {self._newest()}"
            )
        rows = {row.node: row for row in self._newest().rows if row.node}
        return [r for r in self.cluster.replicas if r.id in rows and self._comes(rows[r.id])]

    def voters(self) -> list[Replica]:
        """Of these, the ones that have a vote."""
        voters = {row.node for row in self._newest().rows if row.node and row.role == VOTER}
        return [replica for replica in self.cluster.replicas if replica.id in voters]
