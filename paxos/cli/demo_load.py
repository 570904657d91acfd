"""The load of the demonstration: writers that note every acknowledged write, and go on through failures."""

from __future__ import annotations

import asyncio
import itertools
import time

from .resp_client import ReplyError, RespClient


class Load:
    """Writers on connections of their own, spread over the nodes.

    A write that ended in an error is sent again, with the same key and value, until it is acknowledged: so one whose
    outcome was unknown does no harm when it took place after all.
    """

    def __init__(self, ports: dict[int, int], writers: int) -> None:
        self.acknowledged: dict[bytes, bytes] = {}
        self.unavailable = 0
        self.unknown = 0
        self._ports = list(ports.values())
        self._writers = writers
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._mark: float | None = None
        self._first: float | None = None

    def start(self) -> None:
        """Start writing."""
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(self._writers)]

    async def stop(self) -> None:
        """Let every writer finish its write; raises what one of them failed with."""
        self._stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=12.0)
            for task in late:
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def first_after(self, mark: float) -> float | None:
        """When the first write sent after ``mark`` was acknowledged (both on the monotonic clock)."""
        if mark != self._mark:
            self._mark, self._first = mark, None
        return self._first

    async def _write(self, writer: int) -> None:
        client: RespClient | None = None
        turn = itertools.count(writer)
        try:
            for number in itertools.count():
                key, value = b"demo:%d:%d" % (writer, number), b"value-%d-%d" % (number, writer)
                while True:
                    if self._stopping:
                        return
                    sent = time.monotonic()
                    try:
                        if client is None:
                            client = await RespClient.connect(self._ports[next(turn) % len(self._ports)])
                        await client.call("SET", key, value)
                        break
                    except ReplyError as error:
                        if error.code == "UNAVAILABLE":
                            self.unavailable += 1
                        elif error.code == "UNKNOWN":
                            self.unknown += 1
                        else:
                            raise
                        # The node knows no master; the next one may. Not at once: the answer came at once, too.
                        await asyncio.sleep(0.01)
                    except (OSError, TimeoutError):
                        await asyncio.sleep(0.01)
                    if client is not None:
                        client.close()
                        client = None
                self.acknowledged[key] = value
                if self._first is None and self._mark is not None and sent >= self._mark:
                    self._first = time.monotonic()
        finally:
            if client is not None:
                client.close()
