"""A checkpoint on its way into this directory, piece by piece; what is there outlives the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from paxos._codec import checksum
from paxos._files import File, Files
from paxos.errors import DamagedCheckpoint, StorageError
from paxos.manifest import PIECE, Manifest
from paxos.stored import (
    DATA,
    MANIFEST_NEW,
    MANIFEST_PART,
    PART,
    SYNC_BYTES,
    Name,
    erase,
    file_name,
    found,
    read_manifest,
    unreadable,
    write_manifest,
)

__all__ = ["Incoming"]


class Incoming:
    """A transfer that was begun, or is taken up again; made by :meth:`paxos.checkpoint.CheckpointStore.incoming`.

    Its manifest is durable before its first piece. Which pieces are there is seen from them alone. A piece that an earlier
    process has written is written again when it is found right: after a sync that failed a page cache shows what the disk does
    not have.

    After a sync that failed, everything but ``close()`` raises StorageError. Take the transfer up again.
    """

    def __init__(self, files: Files, manifest: Manifest, ended: Callable[[], None]) -> None:
        self.manifest = manifest
        self._files = files
        self._ended = ended
        self._have = [bytearray(len(entry.pieces)) for entry in manifest.entries]
        self._seen = [False] * len(manifest.entries)  # what was in the file has been looked at
        self._file: File | None = None
        self._index = -1  # of the entry whose file is open
        self._unsynced = 0
        self._failed = False
        self._finished = False
        self._begin()

    def missing(self) -> Iterator[tuple[int, int]]:
        """(entry, piece) of everything that is still to be had, in order; may be asked for again at any time.

        Reads what an earlier process has left, file by file, as the iteration comes to it.
        """
        for index, have in enumerate(self._have):
            self._usable()
            self._look(index)
            for piece in range(len(have)):
                if not have[piece]:
                    yield index, piece

    def put(self, entry: int, piece: int, data: bytes) -> None:
        """Takes a piece; DamagedCheckpoint, and nothing taken, where it is not the one that the manifest tells of."""
        self._usable()
        name = file_name(self.manifest.instance, PART, entry)
        if not 0 <= entry < len(self._have) or not 0 <= piece < len(self._have[entry]):
            raise DamagedCheckpoint(f"{name}: the checkpoint has no piece {piece} of entry {entry}")
        wanted = self.manifest.entries[entry]
        if len(data) != wanted.piece_size(piece) or checksum(data) != wanted.pieces[piece]:
            raise DamagedCheckpoint(
                f"{name}, offset {piece * PIECE}: what was sent for this piece, {len(data)} bytes, is not it"
            )
        if not self._have[entry][piece]:
            self._write(entry, piece, data)

    def finish(self) -> Manifest:
        """Makes a checkpoint of it, durably. StorageError where pieces are missing."""
        self._usable()
        if (first := next(self.missing(), None)) is not None:
            count = sum(have.count(0) for have in self._have)
            raise StorageError(
                f"checkpoint {self.manifest.instance}: {count} or more pieces are missing, the first is piece "
                f"{first[1]} of entry {first[0]}: put() what missing() names"
            )
        self._failed = True  # unless the end is reached
        self._leave_file()
        files, instance = self._files, self.manifest.instance
        there = found(files).get(instance, {})
        for index in range(len(self._have)):
            files.rename(file_name(instance, PART, index), file_name(instance, DATA, index))
        if (name := there.get(Name(instance, None, MANIFEST_NEW))) is not None:
            files.remove(name)
        write_manifest(files, self.manifest)
        files.remove(file_name(instance, MANIFEST_PART))
        self._failed = False
        self._finished = True
        self._ended()
        return self.manifest

    def close(self) -> None:
        """Lets go of its files; unless it is finished it can be taken up again. May be called again."""
        file, self._file = self._file, None
        self._failed = True
        self._ended()
        if file is not None:
            file.close()

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        files, instance = self._files, self.manifest.instance
        if self._begun() is None:
            erase(files, instance)
            with files.create(file_name(instance, MANIFEST_PART)) as file:
                file.append(self.manifest.encode())
                file.sync()
            files.sync_directory()
            self._seen = [True] * len(self._seen)
            for index in range(len(self._have)):
                files.create(file_name(instance, PART, index)).close()
            return
        there = found(files)[instance]
        for index in range(len(self._have)):
            part, data = file_name(instance, PART, index), file_name(instance, DATA, index)
            if Name(instance, index, PART) in there:
                continue
            if Name(instance, index, DATA) in there:
                files.rename(data, part)  # it ended in the midst of finish()
            else:
                files.create(part).close()

    def _begun(self) -> Manifest | None:
        """The manifest of a transfer of this very checkpoint that was begun before."""
        name = file_name(self.manifest.instance, MANIFEST_PART)
        if name not in self._files.names():
            return None
        try:
            before = read_manifest(self._files, name)
        except StorageError:
            return None  # torn, or of another version: begun anew
        return before if before == self.manifest else None

    def _usable(self) -> None:
        if self._finished or self._failed:
            raise StorageError(
                f"checkpoint {self.manifest.instance}: this transfer is finished, closed, or failed in a sync: "
                "begin it again with incoming(), which keeps what is there"
            )

    def _open(self, index: int) -> File:
        if self._file is not None and self._index == index:
            return self._file
        self._leave_file()
        self._file = self._files.open(file_name(self.manifest.instance, PART, index), write=True)
        self._index = index
        return self._file

    def _leave_file(self) -> None:
        """Syncs and closes the file that is open."""
        if self._file is not None:
            self._sync(self._file)
            self._file.close()
            self._file = None

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError:
            self._failed = True  # nothing tells which of its pieces are on the disk
            raise
        self._unsynced = 0

    def _write(self, index: int, piece: int, data: bytes) -> None:
        file = self._open(index)
        file.write(piece * PIECE, data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._sync(file)
        self._have[index][piece] = 1

    def _look(self, index: int) -> None:
        """Finds out which pieces an earlier process has written."""
        if self._seen[index]:
            return
        entry = self.manifest.entries[index]
        file = self._open(index)
        if file.size > entry.stored:  # nothing here has written that
            self._leave_file()
            self._files.remove(file.name)
            self._files.create(file.name).close()
            self._have[index] = bytearray(len(entry.pieces))
            file = self._open(index)
        for piece in range(len(entry.pieces)):
            if self._have[index][piece]:
                continue
            try:
                data = file.read(piece * PIECE, entry.piece_size(piece))
            except OSError as error:
                if isinstance(unreadable(file.name, piece * PIECE, error), OSError):
                    raise
                continue  # the file ends before it, or the disk cannot read it: missing
            if checksum(data) == entry.pieces[piece]:
                self._write(index, piece, data)
        self._seen[index] = True
