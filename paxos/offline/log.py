"""The log of a stopped node: its segments, its records, and what a start would make of them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from typing_extensions import Buffer

from paxos._codec import checksum
from paxos._folder import Folder, StoppedFolder
from paxos._formation import FormationCore
from paxos._recovery import Recovered, recover
from paxos._stepping import Core
from paxos.errors import ConfigError
from paxos.offline.records import Record, formation_fields, formation_membership, incarnation_text, membership_fields

__all__ = ["Place", "Progress", "Segment", "StoppedNode", "System", "Write"]

#: Told what is being done, how much of it is done, and how much it is.
Progress = Callable[[str, int, int], object]

BLOCK: Final = 4096
LOG_END: Final = 1
_MAGIC: Final = 0x31535850
FORMED: Final = 2  # the state of a formation
_HEADER: Final = struct.Struct("<IIIIQQQQQQII")
_WRITE: Final = struct.Struct("<IIIBBHIIQQIIII")


def silent(what: str, done: int, of: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write of the log, as far as its first record tells: what was made durable at once."""

    offset: int
    boot: int
    length: int
    records: int
    oldest: int
    ends: bool
    """Whether the log goes on in the next segment."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of the log, as far as it verifies."""

    number: int
    name: str
    size: int
    header: dict[str, Any] | None
    """The fields of its header; None: it does not verify."""
    used: int
    """Where the writes that verify end."""
    writes: int
    records: int


@dataclass(slots=True)
class System:
    """What the records say of the node, replayed through the core as a start does."""

    node: int
    incarnation: str
    boot: int
    formed: bool = False
    signature: str | None = None
    alpha: int | None = None
    first_members: list[dict[str, Any]] = field(default_factory=list)
    """Of the formation; of a node that came later, those that it was told."""
    members: list[dict[str, Any]] = field(default_factory=list)
    """Now: node, place, role, incarnation, the instance from which on its votes count, the node that it comes instead of (0:
    none), and address (empty: as each node was configured)."""
    membership_version: int = 0
    in_force: int = 0
    """From this instance on they count as they stand."""
    before: list[int] = field(default_factory=list)
    """The nodes that vote below it."""
    as_of: int = 0
    """All instances below it were chosen when the membership became this one, whether or not they are known here."""
    master: int = 0
    """Who has taken over last, as far as is known chosen here; 0: nobody."""
    mastership: int = 0
    """Its version."""
    lease_ns: int = 0
    outsider: bool = False
    """Whether this incarnation is no member."""
    promised: tuple[int, int, str] | None = None
    """(round, node, incarnation)"""
    chosen: int = 0
    chain: int = 0
    first_kept: int = 0
    accepted: int = 0
    """Instances above the watermark with an accepted value."""
    contradiction: Record | None = None
    """The first record that does not fit what came before it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value of an instance lies."""

    record: Record
    segment: int
    offset: int


class StoppedNode:
    """A data directory, to be looked at. Use it with ``with``; while it is open no node starts there.

    :raises ConfigError: it is no data directory. :raises DirectoryInUse: a node runs on it.
    :raises DamagedLog: the disk cannot read a segment.
    """

    def __init__(self, directory: str | os.PathLike[str] | Folder) -> None:
        self._own = not isinstance(directory, Folder)
        self.folder = directory if isinstance(directory, Folder) else StoppedFolder(os.fspath(directory))
        self.path = self.folder.path
        self._views: dict[int, Buffer] = {}
        self._found: Recovered | None = None
        self._system: System | None = None

    def __enter__(self) -> Self:
        if self._own:
            try:
                self.folder.open()
            except NotADirectoryError:
                raise ConfigError(
                    f"{self.path} is no data directory of a node: there is no log/ in it. Name the directory that the node was "
                    "given (--data, or the path of Node.open)"
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets the directory go. May be called again."""
        self._views.clear()
        self._found = self._system = None
        if self._own:
            self.folder.close()

    # -- bytes

    def name_of(self, number: int) -> str:
        """The name of a segment's file."""
        return f"{number:016x}.seg"

    def numbers(self) -> list[int]:
        """Of the segments that are there."""
        return self.folder.segments()

    def bytes_of(self, number: int) -> memoryview:
        """The bytes of a segment, after ``read()``."""
        return memoryview(self._views[number])

    def read(self, progress: Progress = silent) -> Recovered:
        """What recovery says of the log, as at a start; every byte of it is read."""
        if self._found is None:
            numbers = self.numbers()
            sizes = [self.folder.size(self.name_of(number)) for number in numbers]
            done, total = 0, sum(sizes)
            for number, size in zip(numbers, sizes, strict=True):
                progress("reading the log", done, total)
                self._views[number] = self.folder.view(self.name_of(number))
                done += size
            progress("reading the log", done, total)
            self._found = recover(list(self._views.items()))
        return self._found

    @property
    def end(self) -> tuple[int, int] | None:
        """(segment, offset) up to where the log verifies; None for one without a segment."""
        found = self.read()
        return found.where if found.cut is None else found.cut

    # -- segments

    def _header(self, number: int) -> dict[str, Any] | None:
        data = self.bytes_of(number)
        if len(data) < BLOCK:
            return None
        magic, crc, version, node, own, size, high, low, durable, oldest, previous, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC or checksum(data[8:BLOCK]) != crc:
            return None
        return {
            "crc": f"{crc:08x}", "version": version, "node": node, "number": own, "size": size,
            "incarnation": incarnation_text(high, low), "durable": durable, "oldest": oldest, "previous": f"{previous:08x}",
        }  # fmt: skip

    def writes(self, number: int) -> Iterator[Write]:
        """The writes of a segment that verify, in order."""
        end = self.end
        if end is None or number > end[0]:
            return
        data = self.bytes_of(number)
        limit = end[1] if number == end[0] else len(data)
        offset = BLOCK
        while offset + _WRITE.size <= limit:
            flags = data[offset + 14]
            boot, length, records, oldest = _WRITE.unpack_from(data, offset)[-4:]
            if length < BLOCK:
                return
            yield Write(offset, boot, length, records, oldest, bool(flags & LOG_END))
            offset += length
            if flags & LOG_END:
                return

    def segments(self) -> list[Segment]:
        """The files of the log."""
        self.read()
        result = []
        for number in self.numbers():
            header = self._header(number)
            used, writes, records = BLOCK, 0, 0
            if header is None:
                used = 0
            else:
                for write in self.writes(number):
                    used = write.offset + write.length
                    writes += 1
                    records += write.records
            result.append(
                Segment(number, self.name_of(number), len(self.bytes_of(number)), header, used, writes, records)
            )
        return result

    # -- records

    def place(self, position: int) -> tuple[int, int]:
        """(segment, offset) of a position."""
        return divmod(position, self.read().segment_size)

    def records(self, progress: Progress = silent) -> Iterator[Record]:
        """The records in log order, up to the end of the log or the first damage."""
        found = self.read()
        for index in range(found.legible):
            if index % 4096 == 0:
                progress("reading the records", index, found.legible)
            yield Record(*found.record(index))

    def values(self, instance: int) -> list[Place]:
        """Where values of an instance lie. The first is the one that a start goes by."""
        places = []
        for record in self.records():
            if record.instance == instance and record.type in ("accept", "learn"):
                places.append(Place(record, *self.place(record.position)))
        # One that was learned is chosen; of those accepted, the highest ballot's counts. Of two alike the later one.
        places.reverse()
        places.sort(key=lambda place: (place.record.type == "learn", place.record.ballot or (0, 0, "")), reverse=True)
        return places

    # -- what they say

    def system(self, progress: Progress = silent) -> System:
        """The node as a start would find it; of a damaged log, as far as it verifies."""
        if self._system is None:
            self._system = self._replay(progress)
        return self._system

    def _replay(self, progress: Progress) -> System:
        found = self.read()
        system = System(found.node, incarnation_text(*found.incarnation), found.boot)
        formation: Record | None = None
        formed: Record | None = None
        base: Record | None = None
        for record in self.records():
            if record.type == "formation":
                formation = record
            elif record.type == "formed":
                formed = record
            elif record.type == "base":
                base = record
        if formation is None:
            return system
        core = self._formation(system, found, formation, formed)
        if core is None:
            return system
        if base is not None and not core.restore_base(base.instance, base.body):
            system.contradiction = base
            return system
        for record in self.records(lambda _, done, of: progress("replaying the records", done, of)):
            if record.type in ("identity", "formation", "formed"):
                continue
            if record.group != 0 or not core.restore(record.number, record.instance, record.body):
                system.contradiction = record
                break
        progress("replaying the records", found.legible, found.legible)
        self._take(system, core)
        return system

    def _formation(self, system: System, found: Recovered, formation: Record, formed: Record | None) -> Core | None:
        """The replica of the cluster that was formed; None: it was not, or the record is not one of this node."""
        judge = FormationCore(found.node, [found.node], found.incarnation, (0, 0))
        if not judge.restore(formation.number, formation.body):
            system.contradiction = formation
            return None
        fields = formation_fields(formation.body)
        system.signature, system.alpha = fields["signature"], fields["alpha"]
        system.first_members = fields["members"]
        if formed is None or not judge.restore(formed.number, formed.body):
            system.contradiction = formed
            return None
        system.formed = True
        state, signature, members, _ = judge.state()
        assert state == FORMED
        told = formation_membership(formation.body)
        rows = [(node, *incarnation) for node, incarnation in members] if told is None else told
        return Core(found.node, rows, signature=signature[1], boot=max(found.boot, 1), incarnation=found.incarnation)

    @staticmethod
    def _take(system: System, core: Core) -> None:
        state, membership = core.state(), membership_fields(core.membership())
        system.members, system.membership_version = membership["members"], membership["version"]
        system.in_force, system.before, system.as_of = membership["in_force"], membership["before"], membership["as_of"]
        system.outsider = state["outsider"]
        system.master, system.mastership, system.lease_ns = state["mastership"]
        round_, node, high, low = state["promised"]
        system.promised = (round_, node, incarnation_text(high, low)) if round_ else None
        system.chosen, system.chain, system.first_kept = state["chosen"], state["chain"], state["first_kept"]
        system.accepted = len(state["accepted"])
