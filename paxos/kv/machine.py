"""The replicated state of the service: a dictionary, changed only by :meth:`KvStateMachine.apply_batch`, read by
:meth:`KvStateMachine.read_batch`.

Deterministic: no clock, no randomness, no iteration over unordered sets; every check that depends on the state (type of
a key, a number that overflows) is made here, in the order of the log, and its error is a result like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from paxos import SnapshotReader, SnapshotWriter, StateMachine

from . import values as v
from .replies import OK, ErrorReply, Reply
from .snapshot import read_snapshot, write_snapshot

WRONGTYPE: Final = ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")
NOT_AN_INTEGER: Final = ErrorReply("ERR value is not an integer or out of range")
OVERFLOW: Final = ErrorReply("ERR increment or decrement would overflow")
TOO_LONG: Final = ErrorReply("ERR string exceeds maximum allowed size (512 MiB)")
MALFORMED: Final = ErrorReply("ERR malformed command in the log")


class UnsupportedValue(RuntimeError):
    """A value of a newer encoding is in the log: this release cannot know what it does, so it must not go on."""


def parse_int64(text: bytes | bytearray) -> int | None:
    """The number in ``text`` as Redis reads it (no sign ``+``, no blanks, no leading zeros), or None."""
    if not 0 < len(text) <= 20:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    # isdigit() of bytes is ASCII only, unlike that of str.
    if not digits.isdigit() or (digits[:1] == b"0" and len(text) > 1):
        return None
    number = int(text)
    return number if v.INT64_MIN <= number <= v.INT64_MAX else None


class KvStateMachine(StateMachine):
    """Strings and lists under byte-string keys.

    Kept in memory: after a restart it is read from a checkpoint, and the log is replayed from there. Not thread-safe; the node
    calls it from one thread.
    """

    def __init__(self) -> None:
        # A string that has been appended to is kept as a bytearray, so that n appends cost O(n) and not O(n^2).
        self._data: dict[bytes, bytes | bytearray | list[bytes]] = {}
        self._applied = -1
        table: list[Callable[[bytes], Reply] | None] = [None] * 256
        table[v.OP_GET] = self._get
        table[v.OP_SET] = self._set
        table[v.OP_DEL] = self._del
        table[v.OP_EXISTS] = self._exists
        table[v.OP_APPEND] = self._append
        table[v.OP_STRLEN] = self._strlen
        table[v.OP_INCRBY] = self._incrby
        table[v.OP_RPUSH] = self._rpush
        table[v.OP_LRANGE] = self._lrange
        table[v.OP_LLEN] = self._llen
        table[v.OP_MGET] = self._mget
        table[v.OP_DBSIZE] = self._dbsize
        table[v.OP_FLUSHDB] = self._flushdb
        self._table = table

    def __len__(self) -> int:
        return len(self._data)

    def last_applied(self) -> int:
        """The last instance applied, -1 for none."""
        return self._applied

    def snapshot(self, writer: SnapshotWriter) -> None:
        """Writes keys and values; see :mod:`paxos.kv.snapshot`."""
        write_snapshot(writer, self._applied, self._data)

    def restore(self, reader: SnapshotReader) -> None:
        """Replaces everything by what :meth:`snapshot` wrote, or raises and changes nothing."""
        self._applied, self._data = read_snapshot(reader)

    def apply(self, instance: int, value: bytes) -> object:
        """Apply one command; see :meth:`apply_batch`."""
        return self.apply_batch(instance, (value,))[0]

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        """Apply all commands of one instance, in order; one reply each.

        Raises :class:`UnsupportedValue` for a value that a newer release has written. Bytes that are no command of this
        version are answered with an error on every node alike.
        """
        table = self._table
        results: list[object] = []
        for value in values:
            if len(value) < 2:
                results.append(MALFORMED)
                continue
            if value[0] != v.VERSION:
                raise UnsupportedValue(
                    f"instance {instance} holds a key-value command of encoding {value[0]}, this release knows "
                    f"{v.VERSION}: install the release that wrote it on this node"
                )
            operation = table[value[1]]
            if operation is None:
                results.append(MALFORMED)
                continue
            try:
                results.append(operation(value))
            except v.MalformedValue:
                results.append(MALFORMED)
        self._applied = instance
        return results

    def read(self, query: bytes) -> object:
        """Answer one command that only reads; see :meth:`read_batch`."""
        return self.read_batch((query,))[0]

    def read_batch(self, queries: Sequence[bytes]) -> Sequence[object]:
        """Answer commands that only read (``values.READ_ONLY``), in the form that they have in the log; one reply each.

        Raises ``ValueError`` for anything else.
        """
        table = self._table
        results: list[object] = []
        for query in queries:
            operation = table[query[1]] if len(query) > 1 and query[1] in v.READ_ONLY else None
            if operation is None or query[0] != v.VERSION:
                raise ValueError(f"{query[:40]!r} is no command that only reads")
            results.append(operation(query))
        return results

    # One method for each operation. The value has been checked to hold version and operation.

    def _get(self, value: bytes) -> Reply:
        found = self._data.get(value[2:])
        if found is None or type(found) is bytes:
            return found
        return WRONGTYPE if isinstance(found, list) else bytes(found)

    def _set(self, value: bytes) -> Reply:
        flags, key, new = v.decode_set(value)
        if not flags:
            self._data[key] = new
            return OK
        old = self._data.get(key)
        if flags & v.SET_GET and type(old) is list:
            return WRONGTYPE
        done = not (flags & v.SET_NX and old is not None) and not (flags & v.SET_XX and old is None)
        if done:
            self._data[key] = new
        if flags & v.SET_GET:
            # A copy: `old` may be a bytearray that a later APPEND would change under the reply.
            return None if old is None else bytes(old)  # type: ignore[arg-type]  # not a list: returned above
        return OK if done else None

    def _del(self, value: bytes) -> Reply:
        data = self._data
        return sum([data.pop(key, None) is not None for key in v.decode_many(value)])

    def _exists(self, value: bytes) -> Reply:
        data = self._data
        return sum([key in data for key in v.decode_many(value)])

    def _append(self, value: bytes) -> Reply:
        key, tail = v.decode_append(value)
        old = self._data.get(key)
        if type(old) is list:
            return WRONGTYPE
        if old is None:
            self._data[key] = tail
            return len(tail)
        if len(old) + len(tail) > v.MAX_STRING:
            return TOO_LONG
        if type(old) is not bytearray:
            old = self._data[key] = bytearray(old)  # type: ignore[arg-type]
        old += tail
        return len(old)

    def _strlen(self, value: bytes) -> Reply:
        found = self._data.get(value[2:], b"")
        return WRONGTYPE if type(found) is list else len(found)

    def _incrby(self, value: bytes) -> Reply:
        key, delta = v.decode_incrby(value)
        old = self._data.get(key, b"0")
        if type(old) is list:
            return WRONGTYPE
        number = parse_int64(old)  # type: ignore[arg-type]
        if number is None:
            return NOT_AN_INTEGER
        number += delta
        if not v.INT64_MIN <= number <= v.INT64_MAX:
            return OVERFLOW
        self._data[key] = b"%d" % number
        return number

    def _rpush(self, value: bytes) -> Reply:
        items = v.decode_many(value)
        if len(items) < 2:
            return MALFORMED
        found = self._data.get(items[0])
        if found is None:
            self._data[items[0]] = items[1:]
            return len(items) - 1
        if type(found) is not list:
            return WRONGTYPE
        found.extend(items[1:])
        return len(found)

    def _lrange(self, value: bytes) -> Reply:
        key, start, stop = v.decode_lrange(value)
        found = self._data.get(key)
        if found is None:
            return []
        if type(found) is not list:
            return WRONGTYPE
        size = len(found)
        start = max(start + size, 0) if start < 0 else start
        stop = stop + size if stop < 0 else stop
        # A copy of the list: the reply is encoded later, and the list may have grown by then.
        return [] if stop < start else list(found[start : stop + 1])

    def _llen(self, value: bytes) -> Reply:
        found = self._data.get(value[2:])
        if found is None:
            return 0
        return len(found) if type(found) is list else WRONGTYPE

    def _mget(self, value: bytes) -> Reply:
        out: list[Reply] = []
        for key in v.decode_many(value):
            found = self._data.get(key)
            out.append(None if found is None or type(found) is list else bytes(found))  # type: ignore[arg-type]
        return out

    def _dbsize(self, value: bytes) -> Reply:
        return len(self._data)

    def _flushdb(self, value: bytes) -> Reply:
        self._data.clear()
        return OK
