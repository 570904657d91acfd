"""The form in which a command travels through the log: a value of the replicated state machine.

Byte 0 is the version of this encoding, byte 1 the operation, then the operation's fields, little-endian, without
padding. The last field takes the rest, so the commonest commands carry no length at all::

    GET STRLEN LLEN      key
    SET                  flags u8, key length u32, key, value
    APPEND               key length u32, key, value
    INCRBY               delta i64, key
    LRANGE               start i64, stop i64, key
    DEL EXISTS MGET      n u32, n lengths u32, the n keys
    RPUSH                n u32, n lengths u32, the key and n-1 elements
    DBSIZE FLUSHDB       nothing

A command that only reads need not travel: it is asked of the state machine in the same form.

What is in the log is read again by every later release, so a change of a form takes a new version number.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

VERSION: Final = 1

OP_GET: Final = 1
OP_SET: Final = 2
OP_DEL: Final = 3
OP_EXISTS: Final = 4
OP_APPEND: Final = 5
OP_STRLEN: Final = 6
OP_INCRBY: Final = 7
OP_RPUSH: Final = 8
OP_LRANGE: Final = 9
OP_LLEN: Final = 10
OP_MGET: Final = 11
OP_DBSIZE: Final = 12
OP_FLUSHDB: Final = 13

#: Operations that change nothing.
READ_ONLY: Final = frozenset({OP_GET, OP_EXISTS, OP_STRLEN, OP_LRANGE, OP_LLEN, OP_MGET, OP_DBSIZE})

SET_NX: Final = 1
SET_XX: Final = 2
SET_GET: Final = 4

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

#: Part of the replicated behaviour: all nodes must agree on it, so it is no option.
MAX_STRING: Final = 512 * 1024 * 1024

_SET_HEAD: Final = struct.Struct("<BBBI")
_APPEND_HEAD: Final = struct.Struct("<BBI")
_INCRBY_HEAD: Final = struct.Struct("<BBq")
_LRANGE_HEAD: Final = struct.Struct("<BBqq")


class MalformedValue(ValueError):
    """The bytes are of this version, but no command."""


def encode_key(op: int, key: bytes) -> bytes:
    """A command with one key and nothing else."""
    return b"%c%c%b" % (VERSION, op, key)


def encode_bare(op: int) -> bytes:
    """A command without arguments."""
    return b"%c%c" % (VERSION, op)


def encode_set(key: bytes, value: bytes, flags: int) -> bytes:
    """``SET``, with the bits ``SET_NX``, ``SET_XX``, ``SET_GET``."""
    return b"%b%b%b" % (_SET_HEAD.pack(VERSION, OP_SET, flags, len(key)), key, value)


def encode_append(key: bytes, value: bytes) -> bytes:
    """``APPEND``."""
    return b"%b%b%b" % (_APPEND_HEAD.pack(VERSION, OP_APPEND, len(key)), key, value)


def encode_incrby(key: bytes, delta: int) -> bytes:
    """``INCR``, ``INCRBY``, ``DECR``, ``DECRBY``; ``delta`` fits into a signed 64-bit number."""
    return _INCRBY_HEAD.pack(VERSION, OP_INCRBY, delta) + key


def encode_lrange(key: bytes, start: int, stop: int) -> bytes:
    """``LRANGE``; both ends fit into signed 64-bit numbers."""
    return _LRANGE_HEAD.pack(VERSION, OP_LRANGE, start, stop) + key


def encode_many(op: int, items: Sequence[bytes]) -> bytes:
    """A command with a list of byte strings."""
    count = len(items)
    head = struct.pack(f"<BBI{count}I", VERSION, op, count, *map(len, items))
    return b"%b%b" % (head, b"".join(items))


def decode_set(value: bytes) -> tuple[int, bytes, bytes]:
    """Flags, key and value of a ``SET``."""
    if len(value) < 7:
        raise MalformedValue("SET shorter than its header")
    _, _, flags, size = _SET_HEAD.unpack_from(value)
    if size > len(value) - 7:
        raise MalformedValue("SET with a key longer than the value")
    return flags, value[7 : 7 + size], value[7 + size :]


def decode_append(value: bytes) -> tuple[bytes, bytes]:
    """Key and value of an ``APPEND``."""
    if len(value) < 6:
        raise MalformedValue("APPEND shorter than its header")
    size = _APPEND_HEAD.unpack_from(value)[2]
    if size > len(value) - 6:
        raise MalformedValue("APPEND with a key longer than the value")
    return value[6 : 6 + size], value[6 + size :]


def decode_incrby(value: bytes) -> tuple[bytes, int]:
    """Key and delta of an ``INCRBY``."""
    if len(value) < 10:
        raise MalformedValue("INCRBY shorter than its header")
    return value[10:], _INCRBY_HEAD.unpack_from(value)[2]


def decode_lrange(value: bytes) -> tuple[bytes, int, int]:
    """Key, start and stop of an ``LRANGE``."""
    if len(value) < 18:
        raise MalformedValue("LRANGE shorter than its header")
    _, _, start, stop = _LRANGE_HEAD.unpack_from(value)
    return value[18:], start, stop


def decode_many(value: bytes) -> list[bytes]:
    """The byte strings of a command made by :func:`encode_many`."""
    size = len(value)
    if size < 6:
        raise MalformedValue("list shorter than its header")
    count = int.from_bytes(value[2:6], "little")
    # Checked against the bytes at hand before anything of that size is made.
    if count > (size - 6) // 4:
        raise MalformedValue("list with more items than bytes")
    at = 6 + 4 * count
    items = []
    for length in struct.unpack_from(f"<{count}I", value, 6):
        end = at + length
        if end > size:
            raise MalformedValue("list item longer than the value")
        items.append(value[at:end])
        at = end
    if at != size:
        raise MalformedValue("list followed by stray bytes")
    return items
