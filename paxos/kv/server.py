"""The server: connections, and the calls into the node that they share.

A connection keeps its commands in order and has one batch under way at a time; what arrives meanwhile is its next
batch. So pipelined commands of one connection take effect in the order sent, and a busy connection batches by itself.
The batches of all connections that became ready in one turn of the event loop are handed to the node together
(:class:`_Proposer`, :class:`_Reader`): one call into the node a turn, not one a command.

A batch that only reads is read, and costs no log write. Where a pipeline has both, what it reads goes into the log between
its writes: they cost their log write in any case, and a pipeline that was cut at every change from one to the other would pay
a round trip for each piece.

Everything belongs to one event loop; nothing here is thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, cast

from paxos import Consistency, OutcomeUnknown, PartialOutcome, PaxosError, Refused, ValueTooLarge

from .commands import Local, Session, Work, dispatch
from .info import StatusView, info_text
from .members import MembersNode
from .replies import ErrorReply, Reply, encode
from .requests import ProtocolError, RequestReader
from .values import READ_ONLY

logger = logging.getLogger("paxos.kv")

#: Default bound of one command's encoded size, bytes; the node's own ``max_value`` must not be smaller.
MAX_VALUE: Final = 10 * 1024 * 1024

#: A connection with more unanswered commands, or bytes of them, is not read from until it is at half of it.
_PAUSE_COMMANDS: Final = 1024
_PAUSE_BYTES: Final = 4 * 1024 * 1024
#: One batch of a connection, and one call into the node.
_BATCH_VALUES: Final = 512
_BATCH_BYTES: Final = 256 * 1024
#: Replies are handed to the transport in pieces of about this size, while it takes them.
_WRITE_BYTES: Final = 256 * 1024


class ProposingNode(MembersNode, Protocol):
    """What the server needs of :class:`paxos.Node`."""

    def propose_many(self, values: Sequence[bytes], *, timeout: float = ...) -> Awaitable[Sequence[object]]: ...
    def read_many(
        self, queries: Sequence[bytes], *, consistency: Consistency = ..., timeout: float = ...
    ) -> Awaitable[Sequence[object]]: ...
    def status(self) -> StatusView: ...
    def checkpoint(self) -> Awaitable[int]: ...


def error_reply(error: BaseException) -> ErrorReply:
    """The reply for an error of the library: ``UNKNOWN`` where the command may have been executed."""
    text = str(error) or type(error).__name__
    if isinstance(error, ValueTooLarge):
        return ErrorReply(f"ERR {text}")
    if isinstance(error, Refused):
        return ErrorReply(f"UNAVAILABLE {text}")
    return ErrorReply(f"UNKNOWN {text}")


class KvServer:
    """A Redis-protocol server in front of one node.

    ``timeout``: seconds a command may take before it is answered with an error. ``max_value``: bytes of one command;
    larger ones end the connection that sends them. ``max_clients``: connections at once. ``reads``: what a command that only
    reads promises.
    """

    def __init__(
        self,
        node: ProposingNode,
        *,
        timeout: float = 5.0,
        max_value: int = MAX_VALUE,
        max_clients: int = 10_000,
        reads: Consistency = "linearizable",
    ) -> None:
        self.node = node
        self.timeout = timeout
        self.max_value = max_value
        self.max_clients = max_clients
        self.connections: set[_Connection] = set()
        self.commands = 0
        self.proposer = _Proposer(node, timeout)
        self.reader = _Reader(node, timeout, reads)
        self.working: set[asyncio.Task[None]] = set()
        self._started = time.monotonic()
        self._last_client = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "", port: int = 0, *, sock: socket.socket | None = None) -> None:
        """Listen on ``host:port``, or on a socket that is bound already. Raises ``OSError`` where that cannot be."""
        loop = asyncio.get_running_loop()
        if sock is not None:
            self._server = await loop.create_server(lambda: _Connection(self), sock=sock)
        else:
            self._server = await loop.create_server(lambda: _Connection(self), host, port)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens. Raises ``RuntimeError`` when it does not."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the server is not listening")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def close(self, grace: float = 2.0) -> None:
        """Stop listening, answer what is under way for up to ``grace`` seconds, end all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.finish()
        under_way: list[asyncio.Future[Any]] = [*self.proposer.under_way, *self.reader.under_way, *self.working]
        if under_way:
            await asyncio.wait(under_way, timeout=grace)
            # The replies are written by callbacks that run after this task was made ready.
            await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.end()
        for work in self.working:
            work.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)

    def next_client(self) -> int:
        """A number for a new connection."""
        self._last_client += 1
        return self._last_client

    def info(self, sections: list[str]) -> str:
        """The text of ``INFO``."""
        uptime = time.monotonic() - self._started
        return info_text(self.node.status(), sections, len(self.connections), uptime, self.commands)

    def sessions(self) -> list[Session]:
        """The sessions of all connections, oldest first."""
        return sorted((connection.session for connection in self.connections), key=lambda s: s.client_id)

    def work(self, connection: _Connection, work: Work) -> None:
        """Does it, and hands what comes of it to the connection."""
        task = asyncio.get_running_loop().create_task(self._work(connection, work))
        self.working.add(task)
        task.add_done_callback(self.working.discard)

    async def _work(self, connection: _Connection, work: Work) -> None:
        reply: Reply
        try:
            reply = await work.start()
        except PaxosError as error:
            reply = ErrorReply(f"ERR {error}")
        except Exception as error:  # of the state machine's snapshot(), say
            logger.exception("what a client has asked this node to do has failed")
            reply = ErrorReply(f"ERR {type(error).__name__}: {error}")
        connection.complete([reply])


class _Calls(ABC):
    """Gathers the batches of one turn of the event loop, hands them to the node together, and the outcomes back."""

    def __init__(self) -> None:
        self._waiting: list[tuple[_Connection, list[bytes]]] = []
        self.under_way: set[asyncio.Future[Sequence[object]]] = set()

    @abstractmethod
    def _start(self, values: list[bytes]) -> Awaitable[Sequence[object]]:
        """One outcome for each value, or a ``PaxosError``."""

    @abstractmethod
    def _doubt(self, words: str) -> object:
        """The outcome of a value where the node has not done what it should."""

    def submit(self, connection: _Connection, values: list[bytes]) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((connection, values))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        group: list[tuple[_Connection, int]] = []
        values: list[bytes] = []
        size = 0
        for connection, own in waiting:
            own_size = sum(map(len, own))
            # A small command does not wait for somebody else's large one.
            if group and (size + own_size > _BATCH_BYTES or len(values) + len(own) > _BATCH_VALUES):
                self._call(group, values)
                group, values, size = [], [], 0
            group.append((connection, len(own)))
            values += own
            size += own_size
        self._call(group, values)

    def _call(self, group: list[tuple[_Connection, int]], values: list[bytes]) -> None:
        try:
            call = asyncio.ensure_future(self._start(values))
        except PaxosError as error:
            # The node may refuse at once instead of in the future that it returns.
            self._deliver(group, [error] * len(values))
        except Exception as error:  # a bug, but no client shall wait for ever because of it
            logger.exception("the node failed in an unexpected way")
            self._deliver(group, [self._doubt(f"internal error: {type(error).__name__}")] * len(values))
        else:
            self.under_way.add(call)
            call.add_done_callback(lambda done: self._done(group, len(values), done))

    def _done(self, group: list[tuple[_Connection, int]], count: int, done: asyncio.Future[Sequence[object]]) -> None:
        self.under_way.discard(done)
        outcomes: Sequence[object]
        if done.cancelled():
            outcomes = [self._doubt("the call was cancelled")] * count
        elif (error := done.exception()) is None:
            outcomes = done.result()
        elif isinstance(error, PartialOutcome):
            outcomes = error.outcomes
        elif isinstance(error, PaxosError):
            outcomes = [error] * count
        else:
            logger.error("a call of the node failed in an unexpected way", exc_info=error)
            outcomes = [self._doubt(f"internal error: {type(error).__name__}")] * count
        if len(outcomes) != count:
            logger.error("the node returned %d outcomes for %d values", len(outcomes), count)
            outcomes = [self._doubt("the node lost count of the outcomes")] * count
        self._deliver(group, outcomes)

    @staticmethod
    def _deliver(group: list[tuple[_Connection, int]], outcomes: Sequence[object]) -> None:
        at = 0
        for connection, count in group:
            connection.complete(outcomes[at : at + count])
            at += count


class _Proposer(_Calls):
    """Puts values into the log."""

    def __init__(self, node: ProposingNode, timeout: float) -> None:
        super().__init__()
        self._node = node
        self._timeout = timeout

    def _start(self, values: list[bytes]) -> Awaitable[Sequence[object]]:
        return self._node.propose_many(values, timeout=self._timeout)

    def _doubt(self, words: str) -> object:
        return OutcomeUnknown(words)


class _Reader(_Calls):
    """Reads, which changes nothing, whatever goes wrong."""

    def __init__(self, node: ProposingNode, timeout: float, consistency: Consistency) -> None:
        super().__init__()
        self._node = node
        self._timeout = timeout
        self._consistency: Consistency = consistency

    def _start(self, values: list[bytes]) -> Awaitable[Sequence[object]]:
        return self._node.read_many(values, consistency=self._consistency, timeout=self._timeout)

    def _doubt(self, words: str) -> object:
        return ErrorReply(f"ERR {words}")


class _Connection(asyncio.Protocol):
    """One client.

    Commands wait in ``_queue``; a run of them is ``_batch`` while its values are proposed or read; replies wait in ``_ready``
    while the client does not read. An entry of queue and batch is the value to propose or read, or the :class:`Local` reply
    that has to keep its place. :class:`Work` is a batch of its own.
    """

    __slots__ = (
        "_batch",
        "_closing",
        "_protocol",
        "_queue",
        "_queue_bytes",
        "_reader",
        "_reading",
        "_ready",
        "_server",
        "_transport",
        "_writable",
        "session",
    )

    def __init__(self, server: KvServer) -> None:
        self._server = server
        self._reader = RequestReader(server.max_value)
        self._queue: deque[bytes | Local | Work] = deque()
        self._queue_bytes = 0
        self._batch: list[bytes | Local | Work] = []
        self._ready: deque[object] = deque()
        self._transport: asyncio.Transport | None = None
        self._protocol = 2  # of the next reply to be written; the session's is of the next command
        self._reading = True
        self._writable = True
        self._closing = False  # no more commands are taken; ends when all is answered

    def connection_made(self, base: asyncio.BaseTransport) -> None:
        # Not checked: the transports of uvloop are no subclasses of asyncio's.
        transport = cast("asyncio.Transport", base)
        server = self._server
        peer = transport.get_extra_info("peername")
        address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        self.session = Session(
            server.next_client(), address, server.info, server.sessions, server.node.checkpoint, server.node
        )
        if len(server.connections) >= server.max_clients:
            transport.write(b"-ERR max number of clients reached\r\n")
            transport.close()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._queue.clear()
        self._queue_bytes = 0
        self._ready.clear()
        self._server.connections.discard(self)

    def eof_received(self) -> bool:
        # The client has closed its half: what it asked is still answered.
        self.finish()
        return self._transport is not None

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            commands = self._reader.feed(data)
            failure: ProtocolError | None = None
        except ProtocolError as error:
            failure = error
            commands = error.args[1]
        server = self._server
        session = self.session
        max_value = server.max_value
        queue = self._queue
        for words in commands:
            server.commands += 1
            entry = dispatch(session, words)
            if type(entry) is bytes:
                size = len(entry)
                if size > max_value:
                    entry = Local(ErrorReply(f"ERR command of {size} bytes exceeds the maximum of {max_value}"))
                else:
                    self._queue_bytes += size
            elif type(entry) is Local and entry.close:
                queue.append(entry)
                self._closing = True
                break
            queue.append(entry)
        if failure is not None and not self._closing:
            queue.append(Local(ErrorReply(f"ERR {failure.args[0]}"), close=True))
            self._closing = True
        if not self._batch:
            self._start()

    def complete(self, outcomes: Sequence[object]) -> None:
        """The outcomes of the values in the batch, in order, or of the work that it is."""
        batch, self._batch = self._batch, []
        if self._transport is None:
            return
        at = 0
        ready = self._ready
        for entry in batch:
            if type(entry) is Local:
                ready.append(entry)
            else:
                ready.append(outcomes[at])
                at += 1
        self._start()

    def finish(self) -> None:
        """Take no more commands; end when all is answered."""
        self._closing = True
        self._pause(True)
        self._flush()

    def end(self) -> None:
        """End now; replies that the transport has taken are still sent."""
        if self._transport is not None:
            self._transport.close()

    def _start(self) -> None:
        """Make the next batch from the head of the queue, and answer what needs none."""
        queue = self._queue
        ready = self._ready
        while queue and type(queue[0]) is Local:
            ready.append(queue.popleft())
        if queue and type(work := queue[0]) is Work:
            self._batch.append(queue.popleft())
            self._server.work(self, work)
        elif queue:
            values: list[bytes] = []
            batch = self._batch
            size = 0
            reads = True
            while queue:
                entry = queue[0]
                if type(entry) is bytes:
                    if values and (len(values) >= _BATCH_VALUES or size + len(entry) > _BATCH_BYTES):
                        break
                    values.append(entry)
                    size += len(entry)
                    reads = reads and entry[1] in READ_ONLY
                elif type(entry) is Work:
                    break
                batch.append(queue.popleft())
            self._queue_bytes -= size
            server = self._server
            (server.reader if reads else server.proposer).submit(self, values)
        self._flush()

    def _flush(self) -> None:
        """Write the replies that are ready while the transport takes them; then see to reading and to closing."""
        transport = self._transport
        if transport is None:
            return
        ready = self._ready
        while ready and self._writable:
            pieces: list[bytes] = []
            size = 0
            while ready and size < _WRITE_BYTES:
                size += self._encode(ready.popleft(), pieces)
            transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        waiting = len(self._queue) + len(self._batch) + len(ready)
        if self._closing:
            if not waiting:
                transport.close()
        elif not self._reading:
            if waiting <= _PAUSE_COMMANDS // 2 and self._queue_bytes <= _PAUSE_BYTES // 2 and self._writable:
                self._pause(False)
        elif waiting > _PAUSE_COMMANDS or self._queue_bytes > _PAUSE_BYTES or not self._writable:
            self._pause(True)

    def _encode(self, reply: object, pieces: list[bytes]) -> int:
        if type(reply) is Local:
            self._protocol = reply.protocol or self._protocol
            reply = reply.reply
        try:
            return encode(reply, self._protocol, pieces)
        except TypeError:
            if isinstance(reply, PaxosError):
                return encode(error_reply(reply), self._protocol, pieces)
            logger.error("no reply for a result of type %s", type(reply).__name__)
            return encode(ErrorReply("UNKNOWN the command was executed, its result has no reply"), 2, pieces)

    def _pause(self, pause: bool) -> None:
        transport = self._transport
        if transport is not None and pause is self._reading and not transport.is_closing():
            self._reading = not pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()
