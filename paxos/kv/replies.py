"""Replies: what the state machine and the server answer with, and their bytes in RESP2 and RESP3.

A reply is a plain Python object: ``int``, ``bytes`` (bulk string), ``None``, ``list`` (array), or one of the small
classes here. Everything is immutable by convention: one object may wait in several connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias


class Status:
    """A simple string, such as ``+OK``."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Status) and other.text == self.text

    def __hash__(self) -> int:
        return hash((Status, self.text))

    def __repr__(self) -> str:
        return f"Status({self.text!r})"


class ErrorReply:
    """An error as a Redis client sees it: a code word, a space, a text. It is a result, never raised."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErrorReply) and other.text == self.text

    def __hash__(self) -> int:
        return hash((ErrorReply, self.text))

    def __repr__(self) -> str:
        return f"ErrorReply({self.text!r})"


class Map:
    """Keys and values in order: a map in RESP3, a flat array in RESP2."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[Reply, Reply]]) -> None:
        self.pairs = pairs

    def __repr__(self) -> str:
        return f"Map({self.pairs!r})"


Reply: TypeAlias = "int | bytes | list[Reply] | Status | ErrorReply | Map | None"

OK: Final = Status(b"OK")
PONG: Final = Status(b"PONG")

#: Above this a bulk string is appended as a piece of its own, so that it is copied once (by the join), not twice.
_LARGE: Final = 16 * 1024


def encode(reply: object, protocol: int, out: list[bytes]) -> int:
    """Append the bytes of ``reply`` in RESP version ``protocol`` to ``out``; the number of bytes appended.

    Raises ``TypeError`` for an object that is no reply.
    """
    kind = type(reply)
    if kind is bytes:
        return _bulk(reply, out)  # type: ignore[arg-type]  # type() is exact here, isinstance costs twice as much
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        raise TypeError(f"no RESP form for {kind.__name__}")
    return encoder(reply, protocol, out)


def _bulk(value: bytes, out: list[bytes]) -> int:
    size = len(value)
    if size < _LARGE:
        piece = b"$%d\r\n%b\r\n" % (size, value)
        out.append(piece)
        return len(piece)
    head = b"$%d\r\n" % size
    out += (head, value, b"\r\n")
    return len(head) + size + 2


def _int(reply: object, protocol: int, out: list[bytes]) -> int:
    assert isinstance(reply, int)
    piece = b":%d\r\n" % reply
    out.append(piece)
    return len(piece)


def _none(reply: object, protocol: int, out: list[bytes]) -> int:
    piece = b"_\r\n" if protocol == 3 else b"$-1\r\n"
    out.append(piece)
    return len(piece)


def _status(reply: object, protocol: int, out: list[bytes]) -> int:
    assert isinstance(reply, Status)
    piece = b"+%b\r\n" % reply.text
    out.append(piece)
    return len(piece)


def _error(reply: object, protocol: int, out: list[bytes]) -> int:
    assert isinstance(reply, ErrorReply)
    # A line break inside would end the error early and leave the rest to be read as the next reply.
    text = reply.text.replace("\r", " ").replace("\n", " ").encode("utf-8", "backslashreplace")
    piece = b"-%b\r\n" % text
    out.append(piece)
    return len(piece)


def _list(reply: object, protocol: int, out: list[bytes]) -> int:
    assert isinstance(reply, list)
    head = b"*%d\r\n" % len(reply)
    out.append(head)
    return len(head) + sum(encode(item, protocol, out) for item in reply)


def _map(reply: object, protocol: int, out: list[bytes]) -> int:
    assert isinstance(reply, Map)
    head = b"%%%d\r\n" % len(reply.pairs) if protocol == 3 else b"*%d\r\n" % (2 * len(reply.pairs))
    out.append(head)
    return len(head) + sum(encode(key, protocol, out) + encode(value, protocol, out) for key, value in reply.pairs)


_ENCODERS: Final[dict[type, Callable[[object, int, list[bytes]], int]]] = {
    int: _int,
    type(None): _none,
    Status: _status,
    ErrorReply: _error,
    list: _list,
    Map: _map,
}
