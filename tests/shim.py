"""Power loss and traces for real processes: builds the library of ``tests/shim``, and reads what it wrote.

A process under the shim runs as ever; every change below its directory that is not yet durable can be undone.
``power_loss`` is called when the process is dead (``kill -9``) and leaves the directory as a disk would have it:
what was synced, and of the rest nothing (``seed=None``) or a random part, write by write and sector by sector, which
is what real disks do. ``tests/shim/shim.h`` says what counts as durable.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "shim"
SECTOR = 512
MAGIC = 0x4F444E55
HEADER = struct.Struct("<II9Q4I")
DATA, CREATE, REMOVE, RENAME, MKDIR, RMDIR, DONE, CANCELLED, SYNCED = range(1, 10)


def build(folder: Path) -> Path:
    """Compiles the library into ``folder`` and returns its path. Raises AssertionError with the compiler's words."""
    library = folder / "libpaxosshim.so"
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    command = ["cc", "-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", str(library), *sources]
    run = subprocess.run([*command, "-ldl", "-lpthread"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"the shim does not compile:\n{run.stderr}"
    return library


def environment(
    library: Path,
    directory: Path,
    *,
    state: Path | None = None,
    trace: Path | None = None,
    lie: bool = False,
    direct: bool = True,
    full: Path | None = None,
    hang: Path | None = None,
) -> dict[str, str]:
    """What to add to the environment of a process so that ``directory`` (which exists) is watched.

    ``state``: an existing directory on the same file system, outside of ``directory``, for the undo records; it is
    wanted for ``power_loss``. ``trace``: prefix of the trace files. ``lie``: syncs succeed and keep nothing.
    ``direct=False``: O_DIRECT is refused. ``full``, ``hang``: while there is a file of that name, the disk is full, or hangs.
    """
    added = {"LD_PRELOAD": str(library), "SHIM_DIR": str(directory)}
    if state is not None:
        added["SHIM_STATE"] = str(state)
    if trace is not None:
        added["SHIM_TRACE"] = str(trace)
    if lie:
        added["SHIM_LIE"] = "1"
    if not direct:
        added["SHIM_NO_DIRECT"] = "1"
    if full is not None:
        added["SHIM_FULL"] = str(full)
    if hang is not None:
        added["SHIM_HANG"] = str(hang)
    return added


@dataclass
class _Undo:
    kind: int
    ino: int
    dir: int
    dir2: int
    replaced: int
    offset: int
    length: int
    old_size: int
    data: bytes
    name: str
    name2: str
    where: int  # byte of the undo file
    durable: bool = False
    durable_length: int = 0
    cancelled: bool = False
    synced_dirs: set[int] = field(default_factory=set)

    def dirs(self) -> set[int]:
        return {self.dir, self.dir2} if self.kind == RENAME else {self.dir}


@dataclass
class Loss:
    """What a power loss took: for messages, and so that a test can see that there was something to lose."""

    records: int = 0
    undone: int = 0
    bytes_lost: int = 0


def _read(path: Path) -> list[_Undo]:
    raw = path.read_bytes()
    records: list[_Undo] = []
    open_ids: dict[tuple[int, int], _Undo] = {}
    at = 0
    while at + HEADER.size <= len(raw):
        (magic, kind, ident, mark, ino, dir1, dir2, replaced, offset, length, old_size, size, name, name2, pid) = (
            HEADER.unpack_from(raw, at)
        )
        assert magic == MAGIC, f"{path}: no undo record at byte {at}"
        body = at + HEADER.size
        end = body + size + name + name2
        if end > len(raw):
            break  # killed while it was appended: the call it announces was not begun
        if kind == DONE:
            done = open_ids[(pid, mark)]
            done.durable, done.durable_length = True, length
        elif kind == CANCELLED:
            open_ids[(pid, mark)].cancelled = True
        elif kind == SYNCED:
            for record in records:
                if record.where >= mark or record.cancelled:
                    continue
                if record.kind == DATA:
                    if record.ino == ino and not record.durable:
                        record.durable, record.durable_length = True, record.length
                elif ino in record.dirs():
                    record.synced_dirs.add(ino)
                    record.durable = record.synced_dirs >= record.dirs()
        else:
            record = _Undo(
                kind, ino, dir1, dir2, replaced, offset, length, old_size,
                raw[body : body + size],
                raw[body + size : body + size + name].decode(),
                raw[body + size + name : end].decode(),
                at,
            )  # fmt: skip
            records.append(record)
            open_ids[(pid, ident)] = record
        at = end
    return records


class _Disk:
    """The watched directory by inode, as it changes under the undoing."""

    def __init__(self, directory: Path, state: Path) -> None:
        self.graves = state / "graves"
        self.dirs: dict[int, Path] = {}
        self.files: dict[int, Path] = {}
        for folder, _, names in os.walk(directory):
            self.dirs[os.stat(folder).st_ino] = Path(folder)
            for name in names:
                path = Path(folder, name)
                self.files[path.lstat().st_ino] = path
        if self.graves.exists():
            for grave in self.graves.iterdir():
                # Undoing goes through the grave's link where the name is gone.
                self.files.setdefault(int(grave.name), grave)

    def entry(self, directory: int, name: str) -> Path:
        return self.dirs[directory] / name

    @staticmethod
    def ino(path: Path) -> int:
        try:
            return path.lstat().st_ino
        except FileNotFoundError:
            return 0


def power_loss(directory: Path, state: Path, seed: int | None = None) -> Loss:
    """Leaves ``directory`` as the disk would have it, and empties ``state``. The processes that used it are dead.

    ``seed``: how much of what was not durable is kept: None, nothing; else a part, drawn from the seed.
    """
    undo = state / "undo"
    loss = Loss()
    if not undo.exists():
        return loss
    choose = random.Random(seed)
    disk = _Disk(directory, state)
    keep_names = seed is not None and choose.random() < 0.3
    kept: dict[int, list[tuple[int, int]]] = defaultdict(list)  # byte ranges newer than what is undone
    for record in reversed(_read(undo)):
        if record.cancelled:
            continue
        loss.records += 1
        if record.kind == DATA:
            if record.durable:
                kept[record.ino].append((record.offset, record.offset + record.durable_length))
            else:
                loss.undone += 1
                loss.bytes_lost += record.length
                _undo_data(disk, record, kept[record.ino], choose if seed is not None else None)
        elif not record.durable and not keep_names:
            loss.undone += 1
            _undo_name(disk, record)
    undo.unlink()
    shutil.rmtree(state / "graves")
    return loss


def _undo_data(disk: _Disk, record: _Undo, kept: list[tuple[int, int]], choose: random.Random | None) -> None:
    path = disk.files.get(record.ino)
    if path is None:
        return  # its creation is undone by an earlier record, or it was removed for good
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        end = max(record.offset + record.length, record.offset + len(record.data))
        keep: list[tuple[int, int]] = []
        if choose is not None and record.length and record.offset + record.length <= size:
            share = choose.choice((0.0, 0.5, 1.0))
            first, last = record.offset // SECTOR, (record.offset + record.length - 1) // SECTOR
            keep = [
                (max(s * SECTOR, record.offset), min((s + 1) * SECTOR, record.offset + record.length))
                for s in range(first, last + 1)
                if choose.random() < share
            ]
        protected = sorted(kept + keep)
        old = record.data + b"\0" * (end - record.offset - len(record.data))
        at = record.offset
        for start, stop in [*protected, (end, end)]:
            if at < min(start, end):
                file.seek(at)
                file.write(old[at - record.offset : min(start, end) - record.offset])
            at = max(at, stop)
        file.flush()
        wanted = max([record.old_size, *(stop for _, stop in protected)])
        if choose is None or not keep:
            os.ftruncate(file.fileno(), wanted)
        kept.extend(keep)


def _undo_name(disk: _Disk, record: _Undo) -> None:
    if not record.dirs() <= disk.dirs.keys():
        return  # in a directory that was removed for good
    here = disk.entry(record.dir, record.name)
    if record.kind == CREATE:
        if disk.ino(here):
            disk.files.pop(disk.ino(here), None)
            here.unlink()
    elif record.kind == REMOVE:
        if disk.ino(here) == 0:
            os.link(disk.graves / str(record.ino), here, follow_symlinks=False)
            disk.files[record.ino] = here
    elif record.kind == RENAME:
        there = disk.entry(record.dir2, record.name2)
        if disk.ino(there) == record.ino and disk.ino(here) == 0:
            there.rename(here)
            for known in (disk.files, disk.dirs):
                if record.ino in known:
                    known[record.ino] = here
            if record.replaced:
                os.link(disk.graves / str(record.replaced), there, follow_symlinks=False)
                disk.files[record.replaced] = there
    elif record.kind == MKDIR:
        if disk.ino(here):
            # All that was made inside hangs on this entry, durable or not.
            disk.dirs.pop(disk.ino(here), None)
            shutil.rmtree(here)
    elif record.kind == RMDIR and disk.ino(here) == 0:
        here.mkdir()
        disk.dirs[record.ino] = here  # what was removed from it before is named by its old inode


@dataclass(frozen=True)
class Event:
    """A line of a trace. ``kind``: wb we sb se tb te; ``size``: bytes asked for (b) or the call's result (e)."""

    time: int
    sequence: int
    thread: int
    kind: str
    ino: int
    offset: int
    size: int
    durable: bool
    data: bytes
    process: int


def read_trace(prefix: Path, process: int) -> list[Event]:
    """The events of one process in the order in which they began or ended."""
    events = []
    for line in Path(f"{prefix}.{process}").read_text().splitlines():
        time, sequence, thread, kind, ino, offset, size, durable, data = line.split(" ")
        raw = b"" if data == "-" else bytes.fromhex(data)
        events.append(
            Event(
                int(time),
                int(sequence),
                int(thread),
                kind,
                int(ino),
                int(offset),
                int(size),
                durable == "1",
                raw,
                process,
            )
        )
    return sorted(events, key=lambda event: event.sequence)
