"""The state of the service as bytes, for checkpoints.

Numbers are little-endian and without padding::

    "PXKV"  version u32  last instance i64  number of keys u64
    then, in the order of their keys:
        kind u8   1: a string, 2: a list
        key length u32, key
        a string: length u32, bytes
        a list:   number of elements u64 (1 at least), and for each: length u32, bytes

Nothing stands behind the last key. Equal states are equal bytes. A later form takes a new version number.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, TypeAlias

from paxos import SnapshotReader, SnapshotWriter

from .values import MAX_STRING

MAGIC: Final = b"PXKV"
VERSION: Final = 1

_HEAD: Final = struct.Struct("<4sIqQ")
_KEY: Final = struct.Struct("<BI")
_LENGTH: Final = struct.Struct("<I")
_COUNT: Final = struct.Struct("<Q")
_STRING: Final = 1
_LIST: Final = 2
#: Bytes that are collected before they are written, and asked for at a time.
_PIECE: Final = 1 << 18

Value: TypeAlias = bytes | bytearray | list[bytes]


class MalformedSnapshot(ValueError):
    """These bytes are no state of the service. The message says where they stop making sense."""


class UnsupportedSnapshot(RuntimeError):
    """A newer release has written this state: this one cannot read it."""


def write_snapshot(writer: SnapshotWriter, applied: int, data: Mapping[bytes, Value]) -> None:
    """Writes a state in pieces, and never has all of it in memory a second time."""
    out = bytearray(_HEAD.pack(MAGIC, VERSION, applied, len(data)))

    def put(item: bytes | bytearray) -> None:
        nonlocal out
        out += _LENGTH.pack(len(item))
        if len(item) >= _PIECE:
            writer.write(bytes(out))
            out = bytearray()
            writer.write(bytes(item))
            return
        out += item
        if len(out) >= _PIECE:
            writer.write(bytes(out))
            out = bytearray()

    for key in sorted(data):
        value = data[key]
        if isinstance(value, list):
            out += _KEY.pack(_LIST, len(key)) + key + _COUNT.pack(len(value))
            for item in value:
                put(item)
        else:
            out += _KEY.pack(_STRING, len(key)) + key
            put(value)
    writer.write(bytes(out))


class _Source:
    """Takes what it is asked for out of larger pieces, and says where the bytes end too early."""

    def __init__(self, reader: SnapshotReader) -> None:
        self._reader = reader
        self._piece = b""
        self._at = 0
        self.offset = 0

    def take(self, size: int, what: str) -> bytes:
        end = self._at + size
        if end <= len(self._piece):
            found = self._piece[self._at : end]
            self._at = end
            self.offset += size
            return found
        # In pieces: memory is taken for bytes that are there, and not for what a length says.
        parts = [self._piece[self._at :]]
        missing = size - len(parts[0])
        while missing:
            self._piece = self._reader.read(_PIECE)
            self._at = 0
            if not self._piece:
                raise MalformedSnapshot(f"the state ends at byte {self.offset}, in {what} of {size} bytes")
            self._at = min(missing, len(self._piece))
            parts.append(self._piece[: self._at])
            missing -= self._at
        self.offset += size
        return b"".join(parts)

    def ended(self) -> bool:
        return self._at == len(self._piece) and not self._reader.read(1)


def read_snapshot(reader: SnapshotReader) -> tuple[int, dict[bytes, Value]]:
    """The last instance, and the keys with their values.

    :raises MalformedSnapshot: not what :func:`write_snapshot` writes. :raises UnsupportedSnapshot: a later version.
    """
    source = _Source(reader)
    magic, version, applied, count = _HEAD.unpack(source.take(_HEAD.size, "the head"))
    if magic != MAGIC:
        raise MalformedSnapshot(
            f"the state begins with {magic!r} and not with {MAGIC!r}: it is of another state machine"
        )
    if version != VERSION:
        raise UnsupportedSnapshot(
            f"the state has version {version}, this release knows {VERSION}: install the release that wrote it, or a later one"
        )
    if applied < -1:
        raise MalformedSnapshot(f"the last instance is {applied}")

    def item(what: str) -> bytes:
        (length,) = _LENGTH.unpack(source.take(_LENGTH.size, "a length"))
        if length > MAX_STRING:
            raise MalformedSnapshot(
                f"{what} of {length} bytes at byte {source.offset} is above the limit of {MAX_STRING}"
            )
        return source.take(length, what)

    data: dict[bytes, Value] = {}
    before: bytes | None = None
    for _ in range(count):
        at = source.offset
        kind, length = _KEY.unpack(source.take(_KEY.size, "the head of a key"))
        if length > MAX_STRING:
            raise MalformedSnapshot(f"a key of {length} bytes at byte {at} is above the limit of {MAX_STRING}")
        key = source.take(length, "a key")
        if before is not None and key <= before:
            raise MalformedSnapshot(f"the keys are not in order at byte {at}")
        before = key
        if kind == _STRING:
            data[key] = item("a string")
        elif kind == _LIST:
            (elements,) = _COUNT.unpack(source.take(_COUNT.size, "the length of a list"))
            if elements == 0:
                raise MalformedSnapshot(f"the list at byte {at} is empty, and there are no empty lists")
            data[key] = [item("an element") for _ in range(elements)]
        else:
            raise MalformedSnapshot(f"the key at byte {at} is of the unknown kind {kind}")
    if not source.ended():
        raise MalformedSnapshot(f"something stands behind the last key, at byte {source.offset}")
    return applied, data
