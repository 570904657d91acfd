"""Every byte of a stopped node's directory, looked at: what is wrong, where, what the next start makes of it, and the way out."""

from __future__ import annotations

import os
import re
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paxos._files import Files
from paxos._folder import Folder, segment_number
from paxos._recovery import recover
from paxos.checkpoint import CheckpointStore
from paxos.errors import DamagedCheckpoint, DamagedLog
from paxos.manifest import Manifest
from paxos.offline.log import Progress, StoppedNode, silent
from paxos.stored import DATA, MANIFEST, PieceFile, file_name, found, parse_name

__all__ = ["Checked", "Finding", "Report", "newest_checkpoint", "verify"]

#: The rows of recovery's table that say no more than that a segment looked at by itself is not the whole log.
ENDED, OLDEST_MISSING = 7, 5
_OFFSET: Final = re.compile(r"^(?P<name>\S+?)(?:, offset (?P<offset>\d+))?: (?P<why>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as a running node leaves it."""

    path: str
    """The file, from the data directory on."""
    offset: int | None
    level: str
    """``damage``; ``torn``: what was under way when the process ended; ``left over``: belongs to nothing."""
    what: str
    meaning: str
    """What the next start makes of it."""
    way_out: str
    """What to do; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A file whose bytes were looked at."""

    path: str
    bytes: int
    state: str
    """``good``, or the level of what was found in it."""
    what: str


@dataclass(slots=True)
class Report:
    """What ``verify`` found."""

    directory: str
    node: int | None = None
    members: int | None = None
    """Of the cluster, by what is known here; None: nobody can tell."""
    chosen: int = 0
    first_kept: int = 0
    records: int = 0
    checkpoints: list[int] = field(default_factory=list)
    """Those that verify, newest first."""
    files: list[Checked] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.level == "damage" for finding in self.findings)

    @property
    def bytes(self) -> int:
        """How much was read."""
        return sum(file.bytes for file in self.files)


def verify(directory: str | os.PathLike[str] | Folder, progress: Progress = silent) -> Report:
    """Looks at a whole data directory. Raises what :class:`StoppedNode` raises, and ``OSError``."""
    with StoppedNode(directory) as node:
        report = Report(node.path)
        _Log(node, report, progress).look()
        _Checkpoints(node, report, progress).look()
        _beside(node, report)
    return report


def newest_checkpoint(node: StoppedNode) -> int | None:
    """The instance of the newest checkpoint whose manifest verifies; its data is not read."""
    try:
        files = node.folder.files()
    except FileNotFoundError:
        return None
    return next((manifest.instance for manifest in CheckpointStore(files).list()), None)


class _Log:
    """The segments, and what the records say together."""

    def __init__(self, node: StoppedNode, report: Report, progress: Progress) -> None:
        self.node = node
        self.report = report
        self.progress = progress

    def find(self, name: str, offset: int | None, level: str, what: str, meaning: str, way_out: str) -> None:
        self.report.findings.append(Finding(f"log/{name}", offset, level, what, meaning, way_out))

    def look(self) -> None:
        node, report = self.node, self.report
        try:
            log = node.read(self.progress)
        except DamagedLog as error:
            self._unreadable(error)
            return
        report.records = log.legible
        if log.outcome == "empty":
            self._empty()
            return
        system = node.system(self.progress)
        report.node, report.chosen, report.first_kept = log.node, system.chosen, system.first_kept
        report.members = len(system.members or system.first_members) or None
        if log.outcome == "unsupported":
            number, offset = log.where or (0, 0)
            self.find(node.name_of(number), offset, "damage", log.why, "The node refuses to start, and changes nothing.",
                      "Use the version of the library that wrote it, or a later one.")  # fmt: skip
        elif log.outcome == "damaged":
            number, offset = log.where or (0, 0)
            self._damage(node.name_of(number), offset, log.why)
            self._others(number)
        elif (record := system.contradiction) is not None:
            number, offset = node.place(record.position)
            what = f"the record here ({record.type}, instance {record.instance}) does not fit what came before it"
            self._damage(node.name_of(number), offset, what)
        elif log.outcome == "torn":
            self._torn(log.cut or (0, 0), log.drop)
        self._files()

    def _unreadable(self, error: DamagedLog) -> None:
        path, _, rest = str(error).partition(", offset ")
        offset, _, why = rest.partition(": ")
        self._damage(os.path.basename(path), int(offset), why.partition(". ")[0])
        for number in self.node.numbers():
            name = self.node.name_of(number)
            bad = name == os.path.basename(path)
            self.report.files.append(Checked(f"log/{name}", 0, "damage" if bad else "not looked at",
                                             "the disk cannot read it" if bad else "the log is judged as a whole"))  # fmt: skip

    def _empty(self) -> None:
        """Without a segment the node is a new one: is that right?"""
        rest = [name for name in self.node.folder.names() if parse_name(name) is not None]
        if not rest and not self._has_checkpoints():
            return
        self.find("", None, "damage", "there is no segment, though there are checkpoints: the log has been lost",
                  "The node starts as a new incarnation: without a vote until the others have taken it in, and it knows "
                  "everything. Where it is alone it refuses to start.",
                  "Start it while a majority of the other nodes runs. Where it is alone: restore a backup.")  # fmt: skip

    def _has_checkpoints(self) -> bool:
        try:
            return bool(found(self.node.folder.files()))
        except FileNotFoundError:
            return False

    def _damage(self, name: str, offset: int, what: str) -> None:
        heals = (
            "At the next start the whole log is set aside in quarantine/, and the node gets well from the others, as a new "
            "incarnation that has no vote until it knows everything (with quarantine=False it refuses to start)."
        )
        refuses = "The node refuses to start, and changes nothing: no other node has the data."
        members = self.report.members
        if members is None:
            meaning = f"In a cluster of several nodes: {heals} Alone: {refuses}"
            way_out = (
                "Look at the disk. Start it while a majority of the others runs; where it is alone, restore a backup."
            )
        elif members == 1:
            meaning, way_out = refuses, "Restore a backup, or repair the disk. What verifies is shown by paxos log."
        else:
            meaning, way_out = heals, "Look at the disk, then start the node while a majority of the others runs."
        self.find(name, offset, "damage", what, meaning, way_out)

    def _others(self, known: int) -> None:
        """Recovery stops at the first place; each other segment is looked at by itself."""
        node = self.node
        for number in node.numbers():
            if number == known:
                continue
            alone = recover([(number, node.bytes_of(number))])
            if alone.outcome in ("damaged", "unsupported") and alone.row not in (ENDED, OLDEST_MISSING):
                self.find(node.name_of(number), (alone.where or (0, 0))[1], "damage", alone.why,
                          "As above: the log is taken or set aside as a whole.", "")  # fmt: skip

    def _torn(self, cut: tuple[int, int], drop: list[int]) -> None:
        number, offset = cut
        self.find(self.node.name_of(number), offset, "torn",
                  "what stands here is no whole write: it was under way, and not acknowledged, when the process ended",
                  "It is cut at the next start, and the bytes are overwritten with zeros.", "")  # fmt: skip
        for other in drop:
            self.find(self.node.name_of(other), 0, "torn", "this segment was begun, and nothing was written to it",
                      "It becomes a spare at the next start.", "")  # fmt: skip

    def _files(self) -> None:
        for segment in self.node.segments():
            path = f"log/{segment.name}"
            levels = {finding.level for finding in self.report.findings if finding.path == path}
            state = "damage" if "damage" in levels else "torn" if levels else "good"
            what = f"{segment.writes} writes, {segment.records} records, {segment.used} bytes in use"
            self.report.files.append(Checked(path, segment.size, state, what))


class _Checkpoints:
    """The checkpoints, and what is beside them."""

    def __init__(self, node: StoppedNode, report: Report, progress: Progress) -> None:
        self.node = node
        self.report = report
        self.progress = progress
        self.bad: dict[int, list[tuple[str, int | None, str]]] = {}

    def look(self) -> None:
        try:
            files = self.node.folder.files()
        except FileNotFoundError:
            self._missing()
            return
        store = CheckpointStore(files)
        there = store.list()
        self._foreign(there)
        total, done = sum(manifest.stored for manifest in there), 0
        for instance, text in store.damaged:
            self._note(instance, text)
            name = file_name(instance, MANIFEST)
            self.report.files.append(Checked(f"checkpoints/{name}", self._size(files, name), "damage", "a checkpoint"))
        for manifest in there:
            good = True
            name = file_name(manifest.instance, MANIFEST)
            self.report.files.append(
                Checked(
                    f"checkpoints/{name}", self._size(files, name), "good", f"a checkpoint of {manifest.stored} bytes"
                )
            )
            for index, entry in enumerate(manifest.entries):
                name = file_name(manifest.instance, DATA, index)
                whole = self._data(files, manifest, index, done, total)
                good = good and whole
                done += entry.stored
                what = f"{entry.path or 'the stream'} of state machine {entry.machine}"
                self.report.files.append(
                    Checked(f"checkpoints/{name}", self._size(files, name), "good" if whole else "damage", what)
                )
            if good:
                self.report.checkpoints.append(manifest.instance)
        self.progress("reading checkpoints", done, total)
        self._tell()
        self._missing()
        self._left_over(files, store, {manifest.instance for manifest in there})

    @staticmethod
    def _size(files: Files, name: str) -> int:
        try:
            with files.open(name) as file:
                return file.size
        except FileNotFoundError:
            return 0

    def _note(self, instance: int, text: str) -> None:
        match = _OFFSET.match(text)
        name, offset, why = match.groups() if match else (file_name(instance, MANIFEST), None, text)
        self.bad.setdefault(instance, []).append((name, None if offset is None else int(offset), why))

    def _data(self, files: Files, manifest: Manifest, index: int, done: int, total: int) -> bool:
        """Reads a data file, all of it."""
        entry = manifest.entries[index]
        name = file_name(manifest.instance, DATA, index)
        try:
            with closing(PieceFile(files, name, entry)) as file:
                for piece in file.pieces():
                    done += len(piece)
                    self.progress("reading checkpoints", done, total)
        except DamagedCheckpoint as error:
            self._note(manifest.instance, str(error))
            return False
        return True

    def _foreign(self, there: list[Manifest]) -> None:
        log = self.node
        signature = log.system().signature if self.report.node is not None else None
        for manifest in there:
            if signature is not None and manifest.signature.hex() != signature:
                self.report.findings.append(Finding(
                    f"checkpoints/{file_name(manifest.instance, MANIFEST)}", 40, "damage",
                    f"the checkpoint is of another cluster ({manifest.signature.hex()}) than the log ({signature})",
                    "The node refuses to start.", "Move this checkpoint to the directory that it belongs to.",
                ))  # fmt: skip

    def _tell(self) -> None:
        """What the damaged ones mean, now that it is known what there is beside them."""
        report = self.report
        reach = [instance for instance in report.checkpoints if instance >= report.first_kept]
        for instance, places in sorted(self.bad.items(), reverse=True):
            if reach and reach[0] > instance:
                meaning = f"Nothing: the checkpoint of instance {reach[0]}, which is newer, is used."
                way_out = "Its files may be deleted."
            elif reach:
                meaning = f"The checkpoint of instance {reach[0]} is used, and the log from there on."
                way_out = "Look at the disk. Its files may be deleted."
            elif report.node is not None and report.first_kept == 0:
                meaning, way_out = "The log still has everything, and is replayed from instance 0.", "Look at the disk."
            elif report.members == 1:
                meaning = "The node refuses to start: no other node has the data."
                way_out = "Restore a backup, or repair the disk."
            else:
                meaning = "A checkpoint is fetched from the other nodes."
                way_out = "Look at the disk, then start the node while a majority of the others runs."
            for name, offset, why in places:
                report.findings.append(Finding(f"checkpoints/{name}", offset, "damage", why, meaning, way_out))

    def _missing(self) -> None:
        """A log that begins above instance 0 stands on a checkpoint."""
        report = self.report
        if report.node is None or report.first_kept == 0 or self.bad:
            return
        if not any(instance >= report.first_kept for instance in report.checkpoints):
            alone = report.members == 1
            report.findings.append(Finding(
                "checkpoints", None, "damage",
                f"the log begins at instance {report.first_kept}, and there is no checkpoint of what was before it",
                "The node refuses to start, unless its state machines keep their own state: no other node has the data." if alone
                else "A checkpoint is fetched from the other nodes, unless the state machines keep their own state.",
                "Restore a backup." if alone else "Start the node while a majority of the others runs.",
            ))  # fmt: skip

    def _left_over(self, files: Files, store: CheckpointStore, good: set[int]) -> None:
        transfers = {manifest.instance for manifest in store.resumable()}
        for instance, names in sorted(found(files).items()):
            for name, text in sorted(names.items(), key=lambda item: item[1]):
                path, size = f"checkpoints/{text}", self._size(files, text)
                if instance in transfers:
                    self.report.files.append(
                        Checked(path, size, "good", "of a transfer that was interrupted, and goes on")
                    )
                elif name.kind not in (MANIFEST, DATA) or (instance not in good and instance not in self.bad):
                    self.report.findings.append(Finding(path, None, "left over", f"{size} bytes that belong to no checkpoint",
                                                        "Removed at the next start.", ""))  # fmt: skip


def _beside(node: StoppedNode, report: Report) -> None:
    """What lies in the directory beside log and checkpoints."""
    for name in sorted(node.folder.names()):
        if segment_number(name) is not None or parse_name(name) is not None:
            continue
        size = node.folder.size(name)
        if name.startswith("spare-") and name.endswith(".tmp"):
            report.files.append(Checked(f"log/{name}", size, "good", "a spare: not part of the log, whatever is in it"))
        elif name.endswith(".tmp"):
            report.findings.append(Finding(f"log/{name}", None, "left over", f"{size} bytes that belong to nothing",
                                           "Removed at the next start.", ""))  # fmt: skip
        else:
            report.findings.append(Finding(f"log/{name}", None, "left over", f"{size} bytes that are no part of the log",
                                           "Nothing: it is not looked at.", ""))  # fmt: skip
    _quarantine(Path(node.path, "quarantine"), report)


def _quarantine(top: Path, report: Report) -> None:
    if not top.is_dir():
        return
    for place in sorted(top.iterdir()):
        note = place / "why.txt"
        why = (
            note.read_text(encoding="utf-8", errors="replace").strip()
            if note.is_file()
            else "there is no note that says why"
        )
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        report.findings.append(Finding(
            f"quarantine/{place.name}", None, "left over", f"a log that was set aside ({size} bytes): {why}",
            "Nothing: it is not looked at.", "Delete it when nobody wants to look into it any more.",
        ))  # fmt: skip
