"""The checkpoints of a group on disk: made, listed, verified, read, removed. Which are kept, and when, is decided elsewhere.

A checkpoint is the state of all state machines of the group behind the instances 0 … n - 1. It is there if and only if its
manifest is: see ``docs/formats-checkpoint.md``.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import zstandard
from typing_extensions import Buffer

from paxos._codec import checksum
from paxos._files import File, Files
from paxos.errors import ConfigError, DamagedCheckpoint, StorageError
from paxos.incoming import Incoming
from paxos.manifest import PIECE, PLAIN, ZSTD, Entry, Manifest, check_path
from paxos.stored import (
    DATA,
    MANIFEST,
    MANIFEST_PART,
    SYNC_BYTES,
    Name,
    PieceFile,
    StreamReader,
    erase,
    file_name,
    found,
    read_manifest,
    write_manifest,
)

__all__ = ["CheckpointStore", "CheckpointWriter", "Incoming", "Manifest", "StreamWriter"]

LEVEL: Final = 3
WORTH: Final = 0.9  # compressed, if the first piece shrinks to this or less

Source = str | os.PathLike[str] | BinaryIO


class CheckpointStore:
    """The checkpoints in ``files``, which come from ``Folder.files()``.

    ``rate`` bounds the bytes per second that a writer puts on the disk; ``pause(seconds)`` is what it then waits with.

    Several threads may use it, each its own writer, reader or transfer. Errors of the disk are ``OSError``; what does not verify
    is :class:`~paxos.errors.DamagedCheckpoint`, which names file and offset; what cannot be done now is a StorageError.
    """

    def __init__(
        self, files: Files, *, rate: float | None = None, pause: Callable[[float], object] | None = None
    ) -> None:
        if (rate is None) != (pause is None) or (rate is not None and not rate > 0):
            raise ConfigError(
                f"rate={rate}, pause={pause}: a rate above 0 and what to wait with are given together, or neither"
            )
        self.files = files
        #: (instance, what is wrong) of the manifests that the last ``list()`` found and left out.
        self.damaged: list[tuple[int, str]] = []
        self._rate = rate
        self._pause = pause
        self._busy: set[int] = set()  # being written, received or removed

    # -- what is there

    def list(self) -> builtins.list[Manifest]:
        """The checkpoints that are there, newest first. What is damaged, or of a later version, is told in ``damaged``."""
        good: list[Manifest] = []
        damaged: list[tuple[int, str]] = []
        for instance, there in sorted(found(self.files).items(), reverse=True):
            name = file_name(instance, MANIFEST)
            if instance in self._busy or name not in there.values():
                continue
            try:
                manifest = read_manifest(self.files, name)
                for index in range(len(manifest.entries)):
                    if Name(instance, index, DATA) not in there:
                        raise DamagedCheckpoint(f"{file_name(instance, DATA, index)}, offset 0: the file is missing")
            except FileNotFoundError:
                continue  # removed meanwhile
            except StorageError as error:
                damaged.append((instance, str(error)))
            else:
                good.append(manifest)
        self.damaged = damaged
        return good

    def resumable(self) -> builtins.list[Manifest]:
        """The transfers that were begun, not finished, and are not under way: newest first."""
        transfers = []
        for instance, there in sorted(found(self.files).items(), reverse=True):
            if instance not in self._busy and (manifest := self._transfer(instance, there)) is not None:
                transfers.append(manifest)
        return transfers

    def verify(self, manifest: Manifest, progress: Callable[[int, int], object] | None = None) -> None:
        """Reads every byte; DamagedCheckpoint where one is wrong. ``progress(read, of)`` is called behind each piece."""
        name = file_name(manifest.instance, MANIFEST)
        try:
            same = read_manifest(self.files, name) == manifest
        except FileNotFoundError as error:
            raise DamagedCheckpoint(f"{name}, offset 0: the file is missing") from error
        if not same:
            raise DamagedCheckpoint(f"{name}, offset 0: the manifest is another one than that which is to be verified")
        done, total = 0, manifest.stored
        for index in range(len(manifest.entries)):
            with closing(self._piece_file(manifest, index)) as file:
                for piece in file.pieces():
                    done += len(piece)
                    if progress is not None:
                        progress(done, total)

    # -- reading

    def open_stream(self, manifest: Manifest, machine: int, path: str = "") -> StreamReader:
        """What a state machine gave to its stream, or to the file ``path`` of its directory. Close it."""
        for index, entry in enumerate(manifest.entries):
            if (entry.machine, entry.path) == (machine, path):
                return StreamReader(self._piece_file(manifest, index))
        raise StorageError(f"checkpoint {manifest.instance} has no {path or 'stream'} of state machine {machine}")

    def files_of(self, manifest: Manifest, machine: int) -> builtins.list[str]:
        """The paths of the files in a state machine's directory."""
        return [entry.path for entry in manifest.entries if entry.machine == machine and entry.path]

    def extract(self, manifest: Manifest, machine: int, directory: str | os.PathLike[str]) -> None:
        """Puts the files of a state machine into a directory, which is empty, durably."""
        top = Path(directory)
        if next(top.iterdir(), None) is not None:
            raise StorageError(
                f"{top} is not empty: what is in it would be taken for a part of checkpoint {manifest.instance}"
            )
        folders = {top}
        for path in self.files_of(manifest, machine):
            target = top / path
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.update(folder for folder in target.parents if top in folder.parents)
            with self.open_stream(manifest, machine, path) as source, target.open("xb", buffering=0) as out:
                while data := source.read1():
                    rest = memoryview(data)
                    while rest:
                        rest = rest[out.write(rest) :]
                os.fsync(out.fileno())
        for folder in folders:
            _sync_folder(folder)

    def piece(self, manifest: Manifest, entry: int, index: int) -> bytes:
        """A piece of the stored bytes, verified: what ``Incoming.put`` takes elsewhere."""
        if not 0 <= entry < len(manifest.entries) or not 0 <= index < len(manifest.entries[entry].pieces):
            raise StorageError(f"checkpoint {manifest.instance} has no piece {index} of entry {entry}")
        with closing(self._piece_file(manifest, entry)) as file:
            return file.piece(index)

    # -- writing

    def begin(self, instance: int, chain: int, signature: bytes, membership: bytes) -> CheckpointWriter:
        """A new checkpoint. What there is of an unfinished one of this instance is removed; StorageError where it is there."""
        Manifest(instance, chain, signature, membership, ()).encode()  # refuses now what commit() would
        self._claim(instance)
        try:
            erase(self.files, instance)
        except BaseException:
            self._busy.discard(instance)
            raise
        return CheckpointWriter(self, Manifest(instance, chain, signature, membership, ()))

    def incoming(self, manifest: Manifest) -> Incoming:
        """Begins to receive a checkpoint, or goes on with it. One of the same instance that is not the same is begun anew."""
        manifest.encode()
        self._claim(manifest.instance)
        try:
            return Incoming(self.files, manifest, lambda: self._busy.discard(manifest.instance))
        except BaseException:
            self._busy.discard(manifest.instance)
            raise

    def prove(self, manifest: Manifest) -> Manifest:
        """Reads a checkpoint that has just been written; where that fails it is removed. The manifest."""
        try:
            self.verify(manifest)
        except (DamagedCheckpoint, OSError):
            self.remove(manifest.instance)
            raise
        return manifest

    # -- removing

    def remove(self, instance: int) -> None:
        """Removes a checkpoint, whole or damaged: first, and durably, its manifest."""
        self._idle(instance)
        self._busy.add(instance)  # so that nobody begins another while the files of this one go
        try:
            if not erase(self.files, instance):
                raise StorageError(f"there is no checkpoint {instance}")
        finally:
            self._busy.discard(instance)

    def discard(self, instance: int) -> None:
        """Removes what there is of a transfer. Close it first."""
        self._idle(instance)
        if file_name(instance, MANIFEST) in self.files.names():
            raise StorageError(f"checkpoint {instance} is finished: remove() it")
        erase(self.files, instance)

    def clean(self) -> builtins.list[str]:
        """Removes what crashes have left and nobody can use; which files. Only this store may be writing here."""
        removed: list[str] = []
        for instance, there in found(self.files).items():
            if instance in self._busy:
                continue
            if Name(instance, None, MANIFEST) in there:
                removed += self._clean_beside(instance, there)
            elif self._transfer(instance, there) is None:
                removed += erase(self.files, instance)
        if removed:
            self.files.sync_directory()
        return removed

    # -- what these share

    def _clean_beside(self, instance: int, there: dict[Name, str]) -> builtins.list[str]:
        """What is left beside a checkpoint that is finished, of the transfer that it came with."""
        removed: list[str] = []
        for name, text in there.items():
            if name.kind not in (MANIFEST, DATA):
                self.files.remove(text)
                removed.append(text)
        return removed

    def _transfer(self, instance: int, there: dict[Name, str]) -> Manifest | None:
        """The manifest of a transfer that can be taken up again."""
        if Name(instance, None, MANIFEST) in there or Name(instance, None, MANIFEST_PART) not in there:
            return None
        try:
            return read_manifest(self.files, file_name(instance, MANIFEST_PART))
        except (FileNotFoundError, StorageError):
            return None  # removed meanwhile; torn when the transfer was begun, so that there is nothing of it; of a later version

    def _idle(self, instance: int) -> None:
        if instance in self._busy:
            raise StorageError(f"checkpoint {instance} is being written, received or removed: end that first")

    def _claim(self, instance: int) -> None:
        self._idle(instance)
        if file_name(instance, MANIFEST) in self.files.names():
            raise StorageError(f"checkpoint {instance} is there already: remove() it first, if it is damaged")
        self._busy.add(instance)

    def _piece_file(self, manifest: Manifest, index: int) -> PieceFile:
        return PieceFile(self.files, file_name(manifest.instance, DATA, index), manifest.entries[index])

    def _paced(self, size: int) -> None:
        if self._rate is not None and self._pause is not None:
            self._pause(size / self._rate)


class CheckpointWriter:
    """A checkpoint in the making. Until ``commit()`` it is not there; leaving the ``with`` without that removes what there is."""

    def __init__(self, store: CheckpointStore, head: Manifest) -> None:
        self._store = store
        self._head = head
        self._streams: list[StreamWriter] = []
        self._taken: set[tuple[int, str]] = set()
        self._ended = False

    def stream(self, machine: int) -> StreamWriter:
        """The stream of a state machine. Close it when all is written."""
        return self._add(machine, "")

    def add_file(self, machine: int, path: str, source: Source) -> None:
        """Copies a file of a state machine's directory. ``path`` is its place in there; ``source``: a path, or an open file."""
        wrong = check_path(path) if path else "is empty"
        if wrong is not None:
            raise StorageError(f"the path {path!r} of a file of state machine {machine} {wrong}")
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                self.add_file(machine, path, file)
            return
        with self._add(machine, path) as out:
            while data := source.read(PIECE):
                out.write(data)

    def commit(self) -> Manifest:
        """Makes the checkpoint: durable when this returns. After an ``OSError`` only ``abort()`` is left."""
        self._usable()
        open_ = [stream for stream in self._streams if stream.entry is None]
        if open_:
            raise StorageError(
                f"checkpoint {self._head.instance}: {open_[0].what} is not closed, or has failed: close() "
                "every stream, or abort()"
            )
        head = self._head
        entries = tuple(stream.entry for stream in self._streams if stream.entry is not None)
        manifest = Manifest(head.instance, head.chain, head.signature, head.membership, entries)
        write_manifest(self._store.files, manifest)
        self._ended = True
        self._store._busy.discard(head.instance)
        return manifest

    def abort(self) -> None:
        """Removes all that was written. Does nothing after ``commit()``, and may be called again."""
        if self._ended:
            return
        for stream in self._streams:
            stream.give_up()
        erase(self._store.files, self._head.instance)
        self._ended = True
        self._store._busy.discard(self._head.instance)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _usable(self) -> None:
        if self._ended:
            raise StorageError(f"checkpoint {self._head.instance} was committed or aborted: begin() another")

    def _add(self, machine: int, path: str) -> StreamWriter:
        self._usable()
        if (machine, path) in self._taken:
            raise StorageError(
                f"checkpoint {self._head.instance} has {path or 'the stream'} of state machine {machine} already"
            )
        name = file_name(self._head.instance, DATA, len(self._streams))
        stream = StreamWriter(self._store, self._store.files.create(name), machine, path)
        self._streams.append(stream)
        self._taken.add((machine, path))
        return stream


class StreamWriter:
    """Takes the bytes of one state machine. Leaving the ``with`` closes it; leaving it with an error gives it up."""

    def __init__(self, store: CheckpointStore, file: File, machine: int, path: str) -> None:
        self.machine = machine
        self.path = path
        self.entry: Entry | None = None  # when all of it is on the disk
        self._store = store
        self._file = file
        self._open = True
        self._first: bytearray | None = bytearray()  # until it is decided how the stream is stored
        self._codec = PLAIN
        self._frame: zstandard.ZstdCompressionObj | None = None
        self._pending = bytearray()  # less than a piece
        self._pieces: list[int] = []
        self._plain = self._stored = self._crc = self._unsynced = 0

    @property
    def what(self) -> str:
        """In words."""
        return f"{self.path or 'the stream'} of state machine {self.machine}"

    def write(self, data: Buffer, /) -> int:
        """Takes all of it."""
        if not self._open:
            raise StorageError(f"{self.what} is closed, or has failed")
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), PIECE):
                self._take(view[start : start + PIECE])
        except BaseException:
            self.give_up()
            raise
        return len(view)

    def close(self) -> None:
        """All is written: synced when this returns. May be called again."""
        if not self._open:
            return
        try:
            self._decide()
            if self._frame is not None:
                self._store_bytes(self._frame.flush())
            if self._pending:
                self._piece(self._pending)
            self._file.sync()
        finally:
            self.give_up()
        self.entry = Entry(
            self.machine, self.path, self._stored, self._plain, self._codec, self._crc, tuple(self._pieces)
        )

    def give_up(self) -> None:
        """Lets go of the file; the stream can no longer be part of a checkpoint."""
        self._open = False
        self._file.close()

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.give_up()

    def _take(self, data: memoryview) -> None:
        self._plain += len(data)
        if self._first is None:
            self._feed(data)
            return
        self._first += data
        if len(self._first) >= PIECE:
            self._decide()

    def _decide(self) -> None:
        """Whether it is worth while to compress is seen from the first piece."""
        first, self._first = self._first, None
        if first is None:
            return
        codec = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        trial = first[:PIECE]
        if trial and len(codec.compress(trial)) <= WORTH * len(trial):
            self._codec = ZSTD
            self._frame = codec.compressobj()
        self._feed(first)

    def _feed(self, data: bytearray | memoryview) -> None:
        self._store_bytes(data if self._frame is None else self._frame.compress(data))

    def _store_bytes(self, data: Buffer) -> None:
        view = memoryview(data)
        if self._pending:
            room = PIECE - len(self._pending)
            self._pending += view[:room]
            view = view[room:]
            if len(self._pending) == PIECE:
                self._piece(self._pending)
                self._pending = bytearray()
        while len(view) >= PIECE:
            self._piece(view[:PIECE])
            view = view[PIECE:]
        self._pending += view

    def _piece(self, data: bytearray | memoryview) -> None:
        self._pieces.append(checksum(data))
        self._crc = checksum(data, self._crc)
        self._file.append(data)
        self._stored += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0
        self._store._paced(len(data))


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
