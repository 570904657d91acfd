"""Requests: the bytes of a connection into commands, by :mod:`hiredis`, within bounds.

hiredis keeps what it has not finished, and takes the length in an array's header at its word: a header that announces a
thousand million items takes the memory for them at once. So bytes are looked over before they are fed. A header of
six digits or more is rare in real traffic, but may also be part of somebody's payload: only then are the bytes since
the last known start of a command walked through, to see whether it is a header, and refused if it is.

Between commands a line that does not start with ``*`` is an inline command (``PING`` typed into telnet).
"""

from __future__ import annotations

import re
import shlex
from typing import Final

import hiredis

#: Items in one command.
MAX_ITEMS: Final = 99_999
#: Bytes of a command beyond its largest value: other arguments, headers, and what was read along with it.
_SLACK: Final = 512 * 1024
_MAX_INLINE: Final = 64 * 1024
#: Every RESP type whose header announces items, with six digits or more.
_SUSPECT: Final = re.compile(rb"[*%~>|][0-9]{6}")
#: No header is longer, line end included.
_MAX_HEADER: Final = 24
#: The bytes kept for the walk are trimmed to the last known start of a command above this.
_TRIM: Final = 256 * 1024


class ProtocolError(Exception):
    """The peer does not speak the protocol, or is beyond a bound: the connection cannot go on."""


class RequestReader:
    """Incremental parser of one connection. ``max_value`` bounds one command: its largest value, bytes."""

    __slots__ = ("_inline", "_kept", "_kept_done", "_limit", "_partial", "_reader", "_unfinished")

    def __init__(self, max_value: int) -> None:
        self._limit = max_value + _SLACK
        self._reader = hiredis.Reader()
        self._partial = False  # hiredis is inside a command
        self._kept = bytearray()  # raw bytes since a known start of a command
        self._kept_done = 0  # commands in _kept that have been returned
        self._unfinished = 0  # bytes fed since the last command ended, at least
        self._inline = b""  # an inline command without its line end

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that ``data`` completes. Raises :class:`ProtocolError`; after that the reader is spent.

        Commands in front of the error are lost to the caller only together with it: see ``ProtocolError.args[1]``.
        """
        commands: list[list[bytes]] = []
        try:
            while data:
                if not self._partial and (self._inline or data[:1] != b"*"):
                    data = self._feed_inline(data, commands)
                else:
                    self._feed_arrays(data, commands)
                    break
        except ProtocolError as error:
            raise ProtocolError(error.args[0], commands) from None
        return commands

    def _feed_inline(self, data: bytes, commands: list[list[bytes]]) -> bytes:
        """Take one line; what follows it. Empty when the line is not complete."""
        data = self._inline + data
        end = data.find(b"\n")
        if end > _MAX_INLINE or (end < 0 and len(data) > _MAX_INLINE):
            raise ProtocolError("Protocol error: too big inline request")
        if end < 0:
            self._inline = data
            return b""
        self._inline = b""
        try:
            words = shlex.split(data[:end].decode("latin-1"))
        except ValueError:
            raise ProtocolError("Protocol error: unbalanced quotes in request") from None
        if words:
            commands.append([word.encode("latin-1") for word in words])
        return data[end + 1 :]

    def _feed_arrays(self, data: bytes, commands: list[list[bytes]]) -> None:
        kept = self._kept
        seam = bytes(kept[-_MAX_HEADER:])  # a header may be split over two reads
        before = len(kept)
        kept += data
        failure: ProtocolError | None = None
        if _SUSPECT.search(seam + data if seam else data):
            try:
                self._walk(None)
            except ProtocolError as error:
                # The commands in front of it are as good as ever.
                failure = error
                data = data[: max(error.args[1] - before, 0)]
        reader = self._reader
        try:
            reader.feed(data)
            while True:
                command = reader.gets()
                if command is False:
                    break
                self._kept_done += 1
                self._unfinished = -1
                if type(command) is list:
                    for item in command:
                        if type(item) is not bytes:
                            raise ProtocolError("Protocol error: expected '$'")
                    if command:
                        commands.append(command)
                elif command is not None:
                    raise ProtocolError("Protocol error: expected '*'")
                if failure is None and not reader.has_data():
                    # Nothing is left over: what comes next starts a command.
                    kept.clear()
                    self._kept_done = 0
                    self._partial = False
                    self._unfinished = 0
                    return
            if failure is not None:
                raise failure
        except (hiredis.ProtocolError, TypeError) as error:
            # TypeError: hiredis builds a dict from a RESP3 map and its key is a list.
            raise ProtocolError(f"Protocol error: {error}") from None
        self._partial = True
        if self._kept_done and len(kept) > _TRIM:
            self._walk(self._kept_done)
        # After a command in this read at most this read is unfinished; before one, all that was fed.
        self._unfinished = len(data) if self._unfinished < 0 else self._unfinished + len(data)
        if self._unfinished > self._limit:
            raise ProtocolError(f"Protocol error: invalid bulk length (a command is at most {self._limit} bytes)")

    def _walk(self, skip: int | None) -> None:
        """Walk through the kept bytes by their headers, and refuse one with too many items.

        ``args[1]`` of the error is where the command begins that is refused.
        With ``skip`` the bytes of that many commands are dropped from the front.
        """
        kept = self._kept
        start = 0
        size = len(kept)
        at = 0
        walked = 0
        while at < size and walked != skip:
            start = at
            end = kept.find(b"\r\n", at, at + _MAX_HEADER)
            if end < 0:
                if size - at >= _MAX_HEADER:
                    raise ProtocolError("Protocol error: invalid multibulk length", start)
                break
            items = self._number(bytes(kept[at:end]), b"*", start)
            if items > MAX_ITEMS:
                raise ProtocolError("Protocol error: invalid multibulk length", start)
            at = end + 2
            whole = True
            for _ in range(items):
                end = kept.find(b"\r\n", at, at + _MAX_HEADER)
                if end < 0:
                    if size - at >= _MAX_HEADER:
                        raise ProtocolError("Protocol error: invalid bulk length", start)
                    whole = False
                    break
                length = self._number(bytes(kept[at:end]), b"$", start)
                if length < 0:
                    raise ProtocolError("Protocol error: invalid bulk length", start)
                at = end + 4 + length
                if at > size:
                    whole = False
                    break
            if not whole:
                break
            walked += 1
        if skip is not None:
            if walked != skip:
                raise ProtocolError("Protocol error: commands and their bytes do not agree", 0)
            del kept[:at]
            self._kept_done = 0

    @staticmethod
    def _number(header: bytes, kind: bytes, start: int) -> int:
        digits = header[1:]
        if header[:1] != kind or not (digits.isdigit() or digits == b"-1"):
            raise ProtocolError(f"Protocol error: expected '{kind.decode()}'", start)
        return int(digits)
