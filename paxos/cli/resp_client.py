"""A small Redis-protocol client for the demonstration: one connection, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis


class ReplyError(Exception):
    """The server answered with an error. ``code`` is its first word."""

    @property
    def code(self) -> str:
        return str(self).partition(" ")[0]


class RespClient:
    """One connection. Not for several tasks at once: a second call must wait for the reply to the first."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        make_error: Callable[[str], Exception] = ReplyError
        self._parser: Any = hiredis.Reader(replyError=make_error)

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> RespClient:
        """Connect. Raises ``OSError``."""
        return cls(*await asyncio.open_connection(host, port))

    async def call(self, *words: str | bytes, timeout: float = 10.0) -> Any:
        """The reply to a command.

        Raises :class:`ReplyError` for an error reply, ``ConnectionError`` when the connection ends, ``TimeoutError``
        after ``timeout`` seconds; after the last two the connection cannot be used any more.
        """
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says a tuple of one
        self._writer.write(packed)
        async with asyncio.timeout(timeout):
            while (reply := self._parser.gets()) is False:
                data = await self._reader.read(65536)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._parser.feed(data)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    async def info(self, timeout: float = 10.0) -> dict[str, str]:
        """The fields of ``INFO paxos``."""
        text: bytes = await self.call("INFO", "paxos", timeout=timeout)
        pairs = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
        return {name: value for name, _, value in pairs}

    def close(self) -> None:
        """End the connection; at once, without waiting for what is under way."""
        self._writer.transport.abort()
