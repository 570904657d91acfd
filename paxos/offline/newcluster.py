"""The directories of a new cluster, made of what a Recovery keeps: each a log that is formed, and a checkpoint below it.

Everything is written beside the place where it is wanted (``<to>.unfinished``), read again, and renamed as a whole at the
end. A log gets its formation last: one that is not finished is refused by every start, wherever somebody may have carried it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from paxos._segments import LogStore
from paxos.checkpoint import CheckpointStore
from paxos.config import MAX_ID
from paxos.errors import ConfigError, DirectoryInUse, RecoveryRefused, StorageError
from paxos.manifest import Manifest
from paxos.offline.log import Progress, StoppedNode, silent
from paxos.offline.records import (
    ballot_bytes,
    base_bytes,
    formation_bytes,
    incarnation_text,
    learn_bytes,
    membership_bytes,
    watermark_bytes,
)
from paxos.offline.recover import Recovery
from paxos.offline.survivors import chain_next
from paxos.offline.verify import verify

__all__ = ["NewCluster", "check_place", "make_cluster"]

#: Says that a directory is one of ours, and is locked while somebody writes there.
MARKER: Final = "paxos-recover"
REPORT: Final = "recovered.json"
FLUSH: Final = 1 << 20
ALPHA: Final = 64
MAX_MEMBERS: Final = 31
FORMATION, FORMED, PROMISE, LEARN, WATERMARK, BASE = 3, 4, 5, 7, 8, 9

Incarnations = dict[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What was made."""

    signature: str
    directories: dict[int, str]
    """By node id."""
    chosen: int
    chain: int


def check_place(recovery: Recovery, to: str | os.PathLike[str], nodes: Sequence[int]) -> Path:
    """Where the new directories are to be. ConfigError where that cannot be, or these nodes cannot."""
    if not 1 <= len(nodes) <= MAX_MEMBERS or len(set(nodes)) != len(nodes):
        raise ConfigError(
            f"a cluster has 1 to {MAX_MEMBERS} nodes with different ids, not {', '.join(map(str, nodes)) or 'none'}"
        )
    if wrong := [node for node in nodes if not 1 <= node <= MAX_ID]:
        raise ConfigError(f"node id {wrong[0]}: ids are from 1 to {MAX_ID}")
    place = Path(os.path.realpath(to))
    for directory in recovery.places:
        if place == directory or directory in place.parents or place in directory.parents:
            raise ConfigError(
                f"{place} and {directory} lie in one another: name a place for the new directories beside "
                "those that are left"
            )
    if not place.parent.is_dir():
        raise ConfigError(f"{place.parent} is no directory: make it, or name a place in one that is there")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(
            f"{place} is there already, and not empty: name a new directory. Nothing is ever written over"
        )
    return place


def make_cluster(
    recovery: Recovery,
    to: str | os.PathLike[str],
    nodes: Sequence[int],
    *,
    accept_loss: bool = False,
    progress: Progress = silent,
) -> NewCluster:
    """Makes ``to``/<id> for every id: the new cluster is there when this returns, and not before.

    :raises ConfigError: the place or the ids cannot be. :raises DirectoryInUse: another process writes there just now.
    :raises RecoveryRefused: what is known to be chosen would be lost, and ``accept_loss`` was not given.
    :raises StorageError: the disk has no room, or failed. What was written is removed then, and by an interrupt, too.
    """
    place = check_place(recovery, to, nodes)
    if recovery.report.kept == 0:
        raise RecoveryRefused(
            "nothing would be kept: a new cluster of that is an empty one. Start nodes with empty directories, or find "
            "more of the old ones"
        )
    if (lost := recovery.report.certainly_lost) is not None and not accept_loss:
        raise RecoveryRefused(
            f"instances {lost[0]} to {lost[1] - 1} were chosen, and their values are in none of these directories: a "
            "checkpoint, or the log between, is missing. Name the directory or backup that has them; if there is none, "
            "say that this loss is accepted (--accept-loss)"
        )
    try:
        with _aside(place) as folder:
            made = _Maker(recovery, folder, sorted(nodes), progress).make()
            _report(recovery, made, folder, place)
            _sync(folder)
            os.rename(folder, place)
        _sync(place.parent)
        (place / MARKER).unlink()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        room = f". It takes about {recovery.report.bytes} bytes a node, and a segment of the log more" if full else ""
        raise StorageError(
            f"{error.filename or place}: {error.strerror or error}{room}. No new cluster was made; if {place} is there, remove it"
        ) from error
    return replace(made, directories={node: str(place / str(node)) for node in made.directories})


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """The directory in which it is made. It is gone afterwards, unless it has got its name; what a crash left of one is
    removed first."""
    folder = place.with_name(place.name + ".unfinished")
    if folder.exists():
        marker = folder / MARKER
        if marker.is_file():
            with marker.open("rb") as old:
                _hold(old.fileno(), folder)
                _remove(folder)
        elif any(folder.iterdir()):
            raise ConfigError(f"{folder} is in the way, and nothing that this command has left: move it")
        else:
            folder.rmdir()
    folder.mkdir()
    try:
        with (folder / MARKER).open("xb") as mark:
            _hold(mark.fileno(), folder)
            yield folder
    except BaseException:
        # What cannot be removed now the next run removes: it is no cluster that starts.
        with suppress(OSError):
            _remove(folder)
        raise


def _remove(folder: Path) -> None:
    """The marker last: what is left of this by a crash must be known again."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    (folder / MARKER).unlink(missing_ok=True)
    folder.rmdir()


def _hold(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DirectoryInUse(
            f"another process makes a new cluster in {folder} just now: wait for it, or name another place"
        ) from None


def _report(recovery: Recovery, made: NewCluster, folder: Path, place: Path) -> None:
    """Beside the directories, for whoever asks later what became of an instance."""
    told = {
        "new_signature": made.signature,
        "nodes": sorted(made.directories),
        "made": str(place),
        **asdict(recovery.report),
    }
    with (folder / REPORT).open("x", encoding="utf-8") as file:
        json.dump(told, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


class _Maker:
    def __init__(self, recovery: Recovery, folder: Path, nodes: Sequence[int], progress: Progress) -> None:
        self.recovery = recovery
        self.report = recovery.report
        self.folder = folder
        self.nodes = nodes
        self.progress = progress
        self.signature = secrets.token_bytes(16)
        self.chain = 0

    def make(self) -> NewCluster:
        """Writes all of it, and reads it again."""
        with ExitStack() as stack:
            logs: dict[int, LogStore] = {}
            for node in self.nodes:
                log = LogStore(self.folder / str(node), node, segment_size=self.recovery.segment_size)
                stack.callback(log.close)
                logs[node] = log
                # A ballot of nobody: the first election goes above it. And with it this is no empty log, which could form a
                # cluster of nothing if it were started as it is.
                log.append(PROMISE, 0, 0, ballot_bytes(self.report.round))
                log.flush()
            incarnations = {node: (log.incarnation_hi, log.incarnation_lo) for node, log in logs.items()}
            self._checkpoint(logs, incarnations)
            self._values(logs, incarnations)
            self._form(logs, incarnations)
        for node in self.nodes:
            self._tidy(self.folder / str(node))
            self._prove(node, incarnations)
        return NewCluster(
            self.signature.hex(),
            {node: str(self.folder / str(node)) for node in self.nodes},
            self.report.kept,
            self.chain,
        )

    def _membership(self, incarnations: Incarnations) -> bytes:
        """Of the new cluster, with what else the system state has in that place.

        Its version is above all that the old one had, and it stands for all instances that are kept: a change among them is void
        when it is replayed, here or on a node that comes later and is told this membership. (It would put the old members back.)

        The mastership version is carried on from the highest one found. It stands for all that is kept, too, so the takeovers in
        there are not counted again.
        """
        return membership_bytes(
            self.report.membership, incarnations, mastership=self.report.mastership, mastered=self.report.kept,
            lease=self.recovery.lease, settled=self.report.kept,
        )  # fmt: skip

    def _checkpoint(self, logs: dict[int, LogStore], incarnations: Incarnations) -> None:
        """The checkpoint under the new signature, its pieces as they are."""
        if (source := self.recovery.source) is None:
            return
        old = source.manifest
        self.chain = old.chain
        manifest = Manifest(old.instance, old.chain, self.signature, self._membership(incarnations), old.entries)
        read = CheckpointStore(source.files)
        done, total = 0, old.stored * len(logs)
        for log in logs.values():
            store = CheckpointStore(log.files())
            with store.incoming(manifest) as incoming:
                for entry, piece in incoming.missing():
                    data = read.piece(old, entry, piece)
                    incoming.put(entry, piece, data)
                    done += len(data)
                    self.progress("copying the checkpoint", done, total)
                incoming.finish()

    def _values(self, logs: dict[int, LogStore], incarnations: Incarnations) -> None:
        first, end = self.report.checkpoint, self.report.kept
        # At instance 0, too: it is what the system state of the new cluster begins with.
        base = base_bytes(ballot_bytes(self.report.round), self.chain, self._membership(incarnations))
        for log in logs.values():
            log.append(BASE, 0, first, base)
        size = 0
        for instance, data in self.recovery.values():
            record = learn_bytes(instance, self.chain, *data)
            for log in logs.values():
                log.append(LEARN, 0, instance, record)
            self.chain = chain_next(self.chain, instance, data)
            size += len(record)
            if size >= FLUSH:
                size = 0
                for log in logs.values():
                    log.flush()
                self.progress("writing the logs", instance - first, end - first)
        self.progress("writing the logs", end - first, end - first)

    def _form(self, logs: dict[int, LogStore], incarnations: Incarnations) -> None:
        """Makes logs of a cluster of them."""
        form = formation_bytes(self.signature, ALPHA, incarnations)
        for log in logs.values():
            log.append(FORMATION, 0, 0, form)
            log.append(FORMED, 0, 0, b"")
            log.flush()
        for log in logs.values():
            # Of the last write of a log nobody can tell whether it was there: so that is one that nobody would miss.
            log.append(WATERMARK, 0, 0, watermark_bytes(self.report.kept, self.chain))
            log.flush()

    @staticmethod
    def _tidy(directory: Path) -> None:
        """Spares are made again where they are wanted; carried to another machine they would only take time."""
        log = directory / "log"
        for file in log.glob("*.tmp"):
            file.unlink()
        _sync(log)
        _sync(directory)

    def _prove(self, node: int, incarnations: Incarnations) -> None:
        """What was written is what was wanted, read as every other tool and start reads it."""
        directory = self.folder / str(node)
        checked = verify(directory, self.progress)
        with StoppedNode(directory) as stopped:
            system = stopped.system()
        found = {
            "good": checked.good and system.contradiction is None, "formed": system.formed, "signature": system.signature,
            "chosen": system.chosen, "chain": system.chain, "first": system.first_kept, "checkpoints": checked.checkpoints,
            "members": [(member["node"], member["incarnation"]) for member in system.members],
        }  # fmt: skip
        first = self.report.checkpoint
        wanted = {
            "good": True, "formed": True, "signature": self.signature.hex(),
            "chosen": self.report.kept, "chain": self.chain, "first": first, "checkpoints": [first] if first else [],
            "members": [(id_, incarnation_text(*incarnations[id_])) for id_ in self.nodes],
        }  # fmt: skip
        if found != wanted:
            raise StorageError(
                f"{directory}: what was written reads back as something else ({found}, not {wanted}): look at the disk"
            )
