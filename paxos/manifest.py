"""What a checkpoint consists of, as bytes: ``docs/formats-checkpoint.md``. Nothing here touches a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from paxos._codec import checksum
from paxos.errors import DamagedCheckpoint, StorageError

__all__ = [
    "MAX_MANIFEST",
    "MAX_MEMBERSHIP",
    "PIECE",
    "PLAIN",
    "ZSTD",
    "Entry",
    "Manifest",
    "check_path",
    "crc_of",
    "pieces_of",
]

PIECE: Final = 1 << 20
PLAIN: Final = 0
ZSTD: Final = 1
MAX_MANIFEST: Final = 16 << 20
MAX_MEMBERSHIP: Final = 16384
MAX_PATH: Final = 1024
MAX_PARTS: Final = 32

_MAGIC: Final = b"PXCP"
_VERSION: Final = 1
# Of every version: magic, crc of what follows it, length of the whole, version, zeros.
_HEAD: Final = struct.Struct("<4sIIB3s")
_BODY: Final = struct.Struct("<QIIII16s")  # instance, chain, size of membership, entries, zero, signature
_ENTRY: Final = struct.Struct("<IHBBQQII")  # machine, size of path, codec, zero, stored, plain, crc, pieces
_COVERED: Final = 8  # the crc begins here


def pieces_of(stored: int) -> int:
    """How many pieces so many stored bytes are cut into."""
    return (stored + PIECE - 1) // PIECE


@dataclass(frozen=True, slots=True)
class Entry:
    """One data file of a checkpoint: a stream of a state machine (``path`` is empty), or a file of its directory."""

    machine: int
    path: str
    stored: int  # bytes in the data file
    plain: int  # bytes that the state machine gave
    codec: int
    crc: int  # crc32c of the stored bytes
    pieces: tuple[int, ...]  # crc32c of each PIECE of them; the last may be shorter

    def piece_size(self, index: int) -> int:
        """Bytes of a piece."""
        return min(PIECE, self.stored - index * PIECE)


def crc_of(encoded: bytes) -> int:
    """The checksum in the head of an encoded manifest: it tells two of them apart."""
    return int.from_bytes(encoded[4:8], "little")


def check_path(path: str) -> str | None:
    """What is wrong with the path of a file in a state machine's directory; None: nothing."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(raw) > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    if path.startswith("/"):
        return "is absolute"
    if "\0" in path or "\\" in path:
        return "has a NUL or a backslash in it"
    parts = path.split("/")
    if {"", ".", ".."} & set(parts):
        return "has an empty part, '.' or '..' in it"
    if len(parts) > MAX_PARTS:
        return f"has more than {MAX_PARTS} parts"
    return None


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of all state machines of a group behind the instances 0 … ``instance`` - 1, and what it is made of."""

    instance: int
    chain: int  # chain checksum at `instance`
    signature: bytes  # of the cluster, 16 bytes
    membership: bytes  # the core's; opaque here
    entries: tuple[Entry, ...]

    @property
    def stored(self) -> int:
        """Bytes in all data files."""
        return sum(entry.stored for entry in self.entries)

    def encode(self) -> bytes:
        """The bytes of the manifest file. StorageError where this is not a manifest that decode() would take."""
        if (wrong := self._wrong()) is not None:
            raise StorageError(f"the manifest of checkpoint {self.instance}: {wrong}")
        count, extra = len(self.entries), len(self.membership)
        parts = [_BODY.pack(self.instance, self.chain, extra, count, 0, self.signature), self.membership]
        for e in self.entries:
            path = e.path.encode()
            parts.append(_ENTRY.pack(e.machine, len(path), e.codec, 0, e.stored, e.plain, e.crc, len(e.pieces)))
            parts.append(path)
            parts.append(struct.pack(f"<{len(e.pieces)}I", *e.pieces))
        body = b"".join(parts)
        size = _HEAD.size + len(body)
        if size > MAX_MANIFEST:
            raise StorageError(
                f"the manifest of checkpoint {self.instance} would have {size} bytes for {count} files of "
                f"{self.stored} bytes; at most {MAX_MANIFEST} are read again. Fewer, larger files take less"
            )
        head = _HEAD.pack(_MAGIC, 0, size, _VERSION, bytes(3))
        data = head[_COVERED:] + body
        return _MAGIC + struct.pack("<I", checksum(data)) + data

    @classmethod
    def decode(cls, data: bytes, name: str = "a manifest") -> Manifest:
        """The manifest in the bytes of the file ``name``, all of them.

        Raises DamagedCheckpoint where they do not verify, and StorageError where a later version has written them.
        """
        _verify(data, name)
        reader = _Reader(data, name)
        instance, chain, extra, count, zero, signature = reader.take(_BODY)
        if zero or count > (len(data) - _HEAD.size - _BODY.size) // _ENTRY.size:
            raise DamagedCheckpoint(f"{name}, offset {_HEAD.size}: counts that cannot be")
        membership = reader.raw(extra)
        manifest = cls(instance, chain, signature, membership, tuple(reader.entry() for _ in range(count)))
        if reader.at != len(data):
            raise DamagedCheckpoint(f"{name}, offset {reader.at}: bytes that belong to nothing")
        if (wrong := manifest._wrong()) is not None:
            raise DamagedCheckpoint(f"{name}: {wrong}")
        return manifest

    def _wrong(self) -> str | None:
        """What cannot be in a manifest."""
        if not (0 <= self.instance < 1 << 64 and 0 <= self.chain < 1 << 32 and len(self.signature) == 16):
            return "instance, chain checksum or signature do not fit"
        if len(self.membership) > MAX_MEMBERSHIP:
            return f"a membership of {len(self.membership)} bytes; at most {MAX_MEMBERSHIP} fit"
        seen: set[tuple[int, str]] = set()
        for entry in self.entries:
            if (wrong := _entry_wrong(entry)) is not None:
                return f"{entry.path!r} of state machine {entry.machine} {wrong}"
            if (entry.machine, entry.path) in seen:
                return f"{entry.path!r} of state machine {entry.machine} is there twice"
            seen.add((entry.machine, entry.path))
        for machine, path in seen:
            above = path.rpartition("/")[0]
            while above:
                if (machine, above) in seen:
                    return f"{above!r} of state machine {machine} is a file, and a directory with {path!r} in it"
                above = above.rpartition("/")[0]
        return None


def _verify(data: bytes, name: str) -> None:
    """Magic, length, crc and version."""
    if len(data) < _HEAD.size:
        raise DamagedCheckpoint(f"{name}: {len(data)} bytes are no manifest")
    if len(data) > MAX_MANIFEST:
        raise DamagedCheckpoint(f"{name}: {len(data)} bytes; a manifest has at most {MAX_MANIFEST}")
    magic, crc, size, version, zeros = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise DamagedCheckpoint(f"{name}, offset 0: this is no manifest of a checkpoint")
    if size != len(data):
        raise DamagedCheckpoint(f"{name}, offset 8: the manifest has {len(data)} bytes, and says {size}")
    if checksum(memoryview(data)[_COVERED:]) != crc:
        raise DamagedCheckpoint(f"{name}, offset 4: the checksum of the manifest is wrong")
    if version != _VERSION:
        raise StorageError(
            f"{name}: format version {version}, known is {_VERSION}. Use what wrote it, or a later version"
        )
    if any(zeros):
        raise DamagedCheckpoint(f"{name}, offset 13: bytes that are to be zero are not")


def _entry_wrong(entry: Entry) -> str | None:
    if not (0 <= entry.machine < 1 << 32 and 0 <= entry.stored < 1 << 63 and 0 <= entry.plain < 1 << 63):
        return "has an id or a size that does not fit"
    if entry.path and (wrong := check_path(entry.path)) is not None:
        return wrong
    if entry.codec not in (PLAIN, ZSTD):
        return f"has the unknown codec {entry.codec}; a later version may know it"
    if entry.codec == PLAIN and entry.plain != entry.stored:
        return f"is stored as it is, in {entry.stored} bytes, and has {entry.plain}"
    if len(entry.pieces) != pieces_of(entry.stored):
        return f"has {len(entry.pieces)} pieces in {entry.stored} bytes"
    return None


class _Reader:
    """Takes the parts out of a manifest, each only where its bytes are there."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.at = _HEAD.size

    def need(self, size: int) -> int:
        """Where the next so many bytes begin."""
        at = self.at
        if size > len(self.data) - at:
            raise DamagedCheckpoint(f"{self.name}, offset {at}: {size} bytes are missing")
        self.at = at + size
        return at

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack_from(self.data, self.need(layout.size))

    def raw(self, size: int) -> bytes:
        at = self.need(size)
        return self.data[at : at + size]

    def entry(self) -> Entry:
        at = self.at
        machine, size, codec, zero, stored, plain, crc, count = _ENTRY.unpack_from(self.data, self.need(_ENTRY.size))
        if zero:
            raise DamagedCheckpoint(f"{self.name}, offset {at + 7}: a byte that is to be zero is not")
        try:
            path = self.raw(size).decode()
        except UnicodeDecodeError as error:
            raise DamagedCheckpoint(f"{self.name}, offset {at}: a path that is not UTF-8") from error
        pieces = struct.unpack_from(f"<{count}I", self.data, self.need(4 * count))
        return Entry(machine, path, stored, plain, codec, crc, pieces)
