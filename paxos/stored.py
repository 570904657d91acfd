"""Checkpoints as files: their names, their manifests, their pieces; each byte is verified before anybody sees it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from errno import EBADMSG, EIO
from typing import Final, NamedTuple

import zstandard

from paxos._codec import checksum
from paxos._files import File, Files
from paxos.errors import DamagedCheckpoint
from paxos.manifest import MAX_MANIFEST, PIECE, PLAIN, Entry, Manifest

__all__ = [
    "DATA",
    "MANIFEST",
    "MANIFEST_NEW",
    "MANIFEST_PART",
    "PART",
    "SYNC_BYTES",
    "Name",
    "PieceFile",
    "StreamReader",
    "erase",
    "file_name",
    "found",
    "parse_name",
    "read_manifest",
    "write_manifest",
]

DATA: Final = "data"
PART: Final = "part"
MANIFEST: Final = "manifest"
MANIFEST_NEW: Final = "manifest.new"
MANIFEST_PART: Final = "manifest.part"
_NAME: Final = re.compile(r"([0-9a-f]{16})(?:-(0|[1-9][0-9]{0,9})\.(data|part)|\.(manifest(?:\.new|\.part)?))")

SYNC_BYTES: Final = 4 << 20
"""A data file is synced whenever so much was written to it: one large sync would hold up those of the log."""

_WINDOW: Final = 8 << 20  # no frame may ask for more memory; level 3 asks for a quarter of it


class Name(NamedTuple):
    """A file name, taken apart."""

    instance: int
    number: int | None  # of the entry
    kind: str


def parse_name(name: str) -> Name | None:
    """None for a file that is no part of a checkpoint."""
    if (match := _NAME.fullmatch(name)) is None:
        return None
    number = None if match[2] is None else int(match[2])
    return Name(int(match[1], 16), number, match[3] or match[4])


def file_name(instance: int, kind: str, number: int | None = None) -> str:
    """The name of a file of the checkpoint ``instance``."""
    return f"{instance:016x}.{kind}" if number is None else f"{instance:016x}-{number}.{kind}"


def found(files: Files) -> dict[int, dict[Name, str]]:
    """The files of all checkpoints, finished or not, by instance."""
    there: dict[int, dict[Name, str]] = {}
    for text in files.names():
        if (name := parse_name(text)) is not None:
            there.setdefault(name.instance, {})[name] = text
    return there


def erase(files: Files, instance: int) -> list[str]:
    """Removes all files of a checkpoint, or of what was to become one; what it removed.

    First, and durably, what makes it one: data without a manifest is nothing, a manifest without its data is damage.
    """
    mine = found(files).get(instance, {})
    removed = []
    for first in (True, False):
        for name, text in mine.items():
            if (name.number is None) == first:
                files.remove(text)
                removed.append(text)
        if first and removed:
            files.sync_directory()
    return removed


def read_manifest(files: Files, name: str) -> Manifest:
    """The manifest in a file, verified; that all its data files are there and whole is another question."""
    with files.open(name) as file:
        size = file.size
        if size > MAX_MANIFEST:
            raise DamagedCheckpoint(f"{name}: {size} bytes; a manifest has at most {MAX_MANIFEST}")
        try:
            data = file.read(0, size)
        except OSError as error:
            raise unreadable(name, 0, error) from error
    manifest = Manifest.decode(data, name)
    if (parsed := parse_name(name)) is None or parsed.instance != manifest.instance:
        raise DamagedCheckpoint(f"{name}: the manifest is that of checkpoint {manifest.instance}")
    return manifest


def write_manifest(files: Files, manifest: Manifest) -> None:
    """Makes a checkpoint of its data files, which are synced and have their names: durable when this returns."""
    data = manifest.encode()
    name = file_name(manifest.instance, MANIFEST_NEW)
    with files.create(name) as file:
        file.append(data)
        file.sync()
    # The names of the data files before that of the manifest, whatever order the file system would choose.
    files.sync_directory()
    files.rename(name, file_name(manifest.instance, MANIFEST))
    files.sync_directory()


def unreadable(name: str, offset: int, error: OSError) -> DamagedCheckpoint | OSError:
    """What it means that a file cannot be read: damage, if it is the file's fault."""
    if error.errno == EBADMSG:
        return DamagedCheckpoint(f"{name}, offset {offset}: the file ends before this piece does")
    if error.errno == EIO:
        return DamagedCheckpoint(f"{name}, offset {offset}: the disk cannot read it")
    return error


class PieceFile:
    """A data file, read piece by piece."""

    def __init__(self, files: Files, name: str, entry: Entry) -> None:
        self.name = name
        self.entry = entry
        try:
            self._file: File = files.open(name)
        except FileNotFoundError as error:
            raise DamagedCheckpoint(f"{name}, offset 0: the file is missing") from error
        size = self._file.size
        if size != entry.stored:
            self._file.close()
            raise DamagedCheckpoint(
                f"{name}, offset {min(size, entry.stored)}: the file has {size} bytes, and should have {entry.stored}"
            )

    def piece(self, index: int) -> bytes:
        """A piece, verified."""
        offset = index * PIECE
        try:
            data = self._file.read(offset, self.entry.piece_size(index))
        except OSError as error:
            raise unreadable(self.name, offset, error) from error
        if checksum(data) != self.entry.pieces[index]:
            raise DamagedCheckpoint(
                f"{self.name}, offset {offset}: the checksum of this piece of {len(data)} bytes is wrong"
            )
        return data

    def pieces(self) -> Iterator[bytes]:
        """All pieces, verified, and at the end the whole."""
        crc = 0
        for index in range(len(self.entry.pieces)):
            data = self.piece(index)
            crc = checksum(data, crc)
            yield data
        if crc != self.entry.crc:
            raise DamagedCheckpoint(f"{self.name}, offset 0: the checksum of the whole file is wrong")

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


class _Source:
    """What the decompressor reads from."""

    def __init__(self, file: PieceFile) -> None:
        self._pieces = file.pieces()
        self._rest = memoryview(b"")
        self.taken = 0

    def read(self, size: int = -1) -> memoryview:
        """At most ``size`` bytes of the next piece; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        data = self._rest[:size] if size >= 0 else self._rest
        self._rest = self._rest[len(data) :]
        self.taken += len(data)
        return data


class StreamReader(io.BufferedIOBase):
    """What a state machine gave, verified piece by piece as it is read: DamagedCheckpoint instead of a wrong byte.

    That all of it was there is certain when ``read`` has returned nothing.
    """

    def __init__(self, file: PieceFile) -> None:
        self._piece_file = file
        self._source = _Source(file)
        self._left = file.entry.plain
        self._ended = False
        self._frame: zstandard.ZstdDecompressionReader | None = None
        if file.entry.codec != PLAIN:
            codec = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            self._frame = codec.stream_reader(self._source, read_size=PIECE)  # type: ignore[arg-type]

    def readable(self) -> bool:
        """True."""
        return True

    def read1(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, and at most a piece; none at the end."""
        if self.closed:
            raise ValueError("the stream has been closed")
        if size < 0 or size > PIECE:
            size = PIECE
        if size == 0:
            return b""
        if self._left == 0:
            self._end()
            return b""
        data = self._plain(min(size, self._left))
        if not data:
            raise self._damaged("the data ends too early")
        self._left -= len(data)
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        """``size`` bytes, fewer only at the end; without a size, or with -1, all that is left."""
        if size is None or size < 0:
            return b"".join(iter(self.read1, b""))
        data = self.read1(size)
        if len(data) == size or not data:
            return data
        parts = [data]
        size -= len(data)
        while size and (data := self.read1(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Lets go of the file."""
        if not self.closed:
            self._piece_file.close()
        super().close()

    def _plain(self, size: int) -> bytes:
        if self._frame is None:
            return bytes(self._source.read(size))
        try:
            return self._frame.read(size)
        except zstandard.ZstdError as error:
            raise self._damaged(f"the data cannot be decompressed ({error})") from error

    def _end(self) -> None:
        """All is given out: nothing may be left, in the frame or behind it."""
        if self._ended:
            return
        if self._plain(1) or self._source.taken != self._piece_file.entry.stored or self._source.read():
            raise self._damaged(
                f"there is more than the {self._piece_file.entry.plain} bytes that the manifest tells of"
            )
        self._ended = True

    def _damaged(self, why: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(f"{self._piece_file.name}, offset {self._source.taken}: {why}")
