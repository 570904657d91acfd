"""What is left of a cluster in one log: the values that it knows chosen, those that it accepted, and how far it can be
believed.

A log is walked record by record, as a start does, but from the first watermark that it names and not from its newest BASE,
and of a damaged one up to the damage: whatever it still holds may be what no other has.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paxos._codec import checksum
from paxos._distrust import distrusted
from paxos._files import Files
from paxos._folder import StoppedFolder, segment_number
from paxos.checkpoint import CheckpointStore
from paxos.errors import ConfigError, DamagedLog, RecoveryRefused
from paxos.manifest import Manifest
from paxos.offline.log import Progress, StoppedNode, System, silent
from paxos.offline.records import KINDS, Record

__all__ = ["Accepted", "Ballot", "Checkpoint", "Data", "Run", "Survivor", "survivors_of"]

#: (round, node, incarnation), compared as the core compares ballots.
Ballot = tuple[int, int, str]
#: (kind, count, bytes) of a value.
Data = tuple[int, int, bytes]

_BALLOT: Final = struct.Struct("<QQQII")
_WATERMARK: Final = struct.Struct("<QII")
_VALUE: Final = struct.Struct("<IIII")
_CHAIN: Final = struct.Struct("<QII")
_BASE: Final = struct.Struct("<II")
ACCEPT, LEARN, WATERMARK, BASE = 6, 7, 8, 9
QUARANTINE: Final = "quarantine"


def chain_next(chain: int, instance: int, data: Data) -> int:
    """The chain checksum behind an instance."""
    kind, _, body = data
    return checksum(body, checksum(_CHAIN.pack(instance, len(body), kind), chain))


def value_at(record: Record) -> Data:
    """The value in an ACCEPT or a LEARN. ValueError where there is none."""
    at = _WATERMARK.size + (_BALLOT.size if record.number == ACCEPT else 0)
    if len(record.body) < at + _VALUE.size:
        raise ValueError("is too short")
    size, count, kind, _ = _VALUE.unpack_from(record.body, at)
    data = record.body[at + _VALUE.size :]
    if len(data) != size or kind not in KINDS:
        raise ValueError("holds no value")
    return kind, count, data


@dataclass(frozen=True, slots=True)
class Accepted:
    """A value that a log accepted above its watermark; ``index`` is that of its record."""

    ballot: Ballot
    index: int


@dataclass(slots=True)
class Run:
    """Instances without a gap that a log knows chosen, from ``first`` on: their records, and the chain checksum at each."""

    first: int
    chains: array[int]  # one more than there are records
    records: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))

    @property
    def end(self) -> int:
        """One past the last."""
        return self.first + len(self.records)

    def chain_at(self, instance: int) -> int:
        """The chain checksum of all below an instance, which is from ``first`` to ``end``."""
        return self.chains[instance - self.first]

    def cut(self, end: int) -> None:
        """Forgets what is from there on."""
        keep = max(0, end - self.first)
        del self.records[keep:]
        del self.sizes[keep:]
        del self.chains[keep + 1 :]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose manifest verifies, and where it lies."""

    path: str
    files: Files
    manifest: Manifest


class _Contradiction(Exception):
    """A record does not fit what came before it."""


class _Walk:
    """The records of one log, in order."""

    def __init__(self, node: StoppedNode, from_zero: bool) -> None:
        self.node = node
        self.runs: list[Run] = []
        self.slots: dict[int, Accepted] = {}
        if from_zero:
            self._run(0, 0)

    def take(self, index: int, record: Record) -> None:
        """The next record."""
        body = record.body
        try:
            if record.number == ACCEPT:
                round_, high, low, proposer, _ = _BALLOT.unpack_from(body)
                self._watermark(*_WATERMARK.unpack_from(body, _BALLOT.size)[:2])
                value_at(record)
                self._accept(record.instance, Accepted((round_, proposer, f"{high:016x}{low:016x}"), index))
            elif record.number == LEARN:
                self._watermark(*_WATERMARK.unpack_from(body)[:2])
                if record.instance != self.runs[-1].end:
                    raise _Contradiction
                self._choose(index, value_at(record))
            elif record.number == WATERMARK:
                self._watermark(*_WATERMARK.unpack_from(body)[:2])
            elif record.number == BASE:
                self._base(record.instance, _BASE.unpack_from(body, _BALLOT.size)[0])
        except (struct.error, ValueError) as error:
            raise _Contradiction from error

    def _run(self, first: int, chain: int) -> None:
        """What is below is not in this log: it was deleted, or skipped with a checkpoint."""
        self.runs.append(Run(first, array("I", [chain])))
        for instance in [instance for instance in self.slots if instance < first]:
            del self.slots[instance]

    def _choose(self, index: int, data: Data) -> None:
        run = self.runs[-1]
        self.slots.pop(run.end, None)
        run.chains.append(chain_next(run.chains[-1], run.end, data))
        run.records.append(index)
        run.sizes.append(len(data[2]))

    def _watermark(self, chosen: int, chain: int) -> None:
        if not self.runs:
            self._run(chosen, chain)
            return
        run = self.runs[-1]
        while run.end < chosen and (slot := self.slots.get(run.end)) is not None:
            self._choose(slot.index, value_at(Record(*self.node.read().record(slot.index))))
        if run.end < chosen:
            self._run(chosen, chain)
        elif run.end > chosen or run.chains[-1] != chain:
            raise _Contradiction

    def _base(self, first: int, chain: int) -> None:
        if not self.runs or first > self.runs[-1].end:
            self._run(first, chain)
        elif first >= self.runs[-1].first and self.runs[-1].chain_at(first) != chain:
            raise _Contradiction

    def _accept(self, instance: int, new: Accepted) -> None:
        if instance < self.runs[-1].end:
            return
        old = self.slots.get(instance)
        if old is None or new.ballot >= old.ballot:  # the highest ballot, not the last record (design rule 14)
            self.slots[instance] = new


@dataclass(slots=True)
class Survivor:
    """One log, the node's own or one that was set aside, and what it says."""

    path: str
    """Of its data directory, or of the log in ``quarantine/``."""
    quarantined: bool
    log: StoppedNode
    state: str = "good"
    """``good``, ``torn`` (what was under way when the process ended is cut), ``damaged``, ``distrusted``, ``empty``, ``not
    formed``."""
    why: str = ""
    id: int = 0
    incarnation: str = ""
    system: System = field(default_factory=lambda: System(0, "", 0))
    runs: list[Run] = field(default_factory=list)
    slots: dict[int, Accepted] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """Beside it; none of a log that was set aside."""
    bad_checkpoints: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether its silence tells something: what it does not hold it has not accepted."""
        return self.state in ("good", "torn") and not self.quarantined

    @property
    def holds(self) -> bool:
        """Whether there is anything in it that a new cluster could use."""
        return bool(self.slots) or any(run.end for run in self.runs)

    @property
    def chosen(self) -> int:
        """Up to where it knows what is chosen."""
        return self.runs[-1].end if self.runs else 0

    @property
    def segment_size(self) -> int:
        """Bytes of its segments."""
        return self.log.read().segment_size

    def data(self, index: int) -> Data:
        """The value in a record."""
        return value_at(Record(*self.log.read().record(index)))

    def changes(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(instance, table) of each change of the membership that was accepted here, and is not known to be chosen."""
        for instance, slot in sorted(self.slots.items()):
            record = Record(*self.log.read().record(slot.index))
            if (value := record.value) is not None and value.kind == "change":
                with suppress(ValueError, struct.error):  # (no node would make or take such a one)
                    yield instance, value.change()

    def read(self, progress: Progress = silent) -> None:
        """Reads all of it. RecoveryRefused where a later version has written it, or the disk cannot read it."""
        try:
            found = self.log.read(progress)
        except DamagedLog as error:
            raise RecoveryRefused(
                f"{error}. Copy what can be read of this directory to another disk (ddrescue fills the rest with zeros), and "
                "name the copy: what stands before the damage serves"
            ) from error
        if found.outcome == "empty":
            self.state = "empty"
            self._beside()
            return
        if found.outcome == "unsupported":
            number, offset = found.where or (0, 0)
            raise RecoveryRefused(
                f"{self.log.folder.where(self.log.name_of(number))}, offset {offset}: {found.why}. Use the version of the "
                "library that wrote it, or a later one"
            )
        self.id = found.node
        self.system = self.log.system(progress)
        self.incarnation = self.system.incarnation
        self.state, self.why = ("damaged", found.why) if found.outcome == "damaged" else (found.outcome, "")
        if found.outcome == "damaged" and found.where is not None:
            self.why = f"{self.log.name_of(found.where[0])}, offset {found.where[1]}: {found.why}"
        self._walk(progress)
        self._beside()
        if self.state in ("good", "torn") and not self.system.formed:
            self.state = "not formed"

    def _walk(self, progress: Progress) -> None:
        walk = _Walk(self.log, self.log.numbers()[0] == 1)
        record = None
        try:
            for index, record in enumerate(
                self.log.records(lambda _, done, of: progress("gathering values", done, of))
            ):
                if record.number >= ACCEPT:
                    walk.take(index, record)
        except _Contradiction:
            assert record is not None
            self._contradicts(record)
        self.runs, self.slots = walk.runs, walk.slots
        system = self.system
        if self.state in ("good", "torn") and system.contradiction is not None:
            self._contradicts(system.contradiction)
        elif self.state in ("good", "torn") and system.formed:
            end = (self.runs[-1].end, self.runs[-1].chains[-1]) if self.runs else (0, 0)
            if end != (system.chosen, system.chain):
                # Both are right, or neither is to be believed.
                raise RecoveryRefused(
                    f"{self.path}: a start would find {system.chosen} instances chosen, chain checksum "
                    f"{system.chain:08x}; this tool finds {end[0]}, {end[1]:08x}. That is a bug of this tool: please report "
                    "it"
                )

    def _contradicts(self, record: Record) -> None:
        number, offset = self.log.place(record.position)
        self.state = "damaged"
        self.why = (
            f"{self.log.name_of(number)}, offset {offset}: the record here ({record.type}, instance {record.instance}) does "
            "not fit what came before it"
        )

    def _beside(self) -> None:
        """The checkpoints, and the mark that says from which instance on nothing here is to be believed."""
        if self.quarantined:
            return
        try:
            files = self.log.folder.files()
        except FileNotFoundError:
            return
        store = CheckpointStore(files)
        self.checkpoints = [Checkpoint(self.path, files, manifest) for manifest in store.list()]
        self.bad_checkpoints = [f"{self.path}, checkpoint {instance}: {why}" for instance, why in store.damaged]
        if (marked := distrusted(files)) is None:
            return
        first, why = marked
        self.state, self.why = "distrusted", f"from instance {first} on: {why}"
        self.slots = {}  # accepted by a node that had another history than its cluster
        for run in self.runs:
            run.cut(first)
        self.runs = [run for run in self.runs if run.first <= first]
        self.checkpoints = [checkpoint for checkpoint in self.checkpoints if checkpoint.manifest.instance <= first]


def _logs(directory: Path, quarantined: bool) -> Iterator[tuple[str, str | None]]:
    """(data directory, log that was set aside or None) of what was named: a data directory, or one log in quarantine/."""
    inside = directory.parent.name == QUARANTINE and not (directory / "log").is_dir()
    if inside and any(segment_number(file.name) is not None for file in directory.iterdir()):
        yield str(directory.parent.parent), str(directory)
        return
    yield str(directory), None
    if quarantined and (directory / QUARANTINE).is_dir():
        for place in sorted((directory / QUARANTINE).iterdir()):
            if place.is_dir():
                yield str(directory), str(place)


def survivors_of(directory: Path, stack: ExitStack, quarantined: bool) -> Iterator[Survivor]:
    """The logs in a directory, locked until the stack ends, not read yet.

    :raises ConfigError: it is no data directory. :raises DirectoryInUse: a node runs on it.
    """
    for path, aside in _logs(directory, quarantined):
        folder = StoppedFolder(path, aside)
        try:
            folder.open()
        except NotADirectoryError:
            raise ConfigError(
                f"{directory} is no data directory of a node: there is no log/ in it. Name the directory that the node "
                "was given (--data, or the path of Node.open), or a log in its quarantine/"
            ) from None
        stack.callback(folder.close)
        log = StoppedNode(folder)
        stack.callback(log.close)
        yield Survivor(aside or path, aside is not None, log)
