"""Commands: from a client's words to a value for the log, a query in the same form, or an answer that needs neither.

A handler is called with the session (the connection's own settings) and the words, and returns ``bytes``, the value to
propose (or to read, where its operation is one of ``values.READ_ONLY``), a :class:`Local` reply, or :class:`Work` of this
node whose outcome is the reply. What can be refused without looking at the data is refused here, before it costs a log write.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from . import members
from . import values as v
from .machine import NOT_AN_INTEGER, parse_int64
from .replies import OK, PONG, ErrorReply, Map, Reply, Status

#: What clients are told; they switch features on by it.
REDIS_VERSION: Final = "7.0.0"

Words: TypeAlias = list[bytes]


class Local:
    """A reply that is known at once.

    ``close``: the connection ends after it. ``protocol``: the RESP version from this reply on, 0 to leave it: replies
    in front of it, which may still wait for the log, are in the version that the client had asked for by then.
    """

    __slots__ = ("close", "protocol", "reply")

    def __init__(self, reply: Reply, close: bool = False, protocol: int = 0) -> None:
        self.reply = reply
        self.close = close
        self.protocol = protocol


class Work:
    """What this node does by itself, in its turn among the commands of the connection; what comes of it is the reply."""

    __slots__ = ("start",)

    def __init__(self, start: Callable[[], Awaitable[Reply]]) -> None:
        self.start = start


class Session:
    """What one connection has set for itself, and what it may ask of the server."""

    __slots__ = ("address", "checkpoint", "client_id", "info", "list_clients", "name", "node", "protocol")

    def __init__(
        self,
        client_id: int,
        address: str,
        info: Callable[[list[str]], str],
        list_clients: Callable[[], list[Session]],
        checkpoint: Callable[[], Awaitable[int]],
        node: members.MembersNode,
    ) -> None:
        self.client_id = client_id
        self.address = address
        self.info = info
        self.list_clients = list_clients
        self.checkpoint = checkpoint
        self.node = node
        self.name = b""
        self.protocol = 2

    def line(self) -> bytes:
        """The line of ``CLIENT LIST``."""
        return b"id=%d addr=%b name=%b db=0 resp=%d" % (
            self.client_id,
            self.address.encode(),
            self.name,
            self.protocol,
        )


Handler: TypeAlias = Callable[[Session, Words], "bytes | Local | Work"]

SYNTAX_ERROR: Final = Local(ErrorReply("ERR syntax error"))
BAD_INTEGER: Final = Local(NOT_AN_INTEGER)
LOCAL_OK: Final = Local(OK)

_CONFIG: Final = {
    "appendonly": "yes",
    "appendfsync": "always",
    "databases": "1",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "save": "",
    "timeout": "0",
}


def dispatch(session: Session, words: Words) -> bytes | Local | Work:
    """The value to propose or read for a command, its local reply, or what this node has to do for it. ``words`` is not empty."""
    entry = _COMMANDS.get(words[0])
    if entry is None:
        entry = _COMMANDS.get(words[0].upper())
        if entry is None:
            return _unknown(words)
    least, most, handler = entry
    if not least <= len(words) <= most:
        return _wrong_arity(words[0])
    return handler(session, words)


def _unknown(words: Words) -> Local:
    # As Redis does, the words are quoted back, but no more of them than a person wants to read.
    name = words[0][:128].decode("utf-8", "backslashreplace")
    shown = " ".join(f"'{word[:64].decode('utf-8', 'backslashreplace')}'" for word in words[1:5])
    return Local(ErrorReply(f"ERR unknown command '{name}', with args beginning with: {shown}"))


def _unknown_subcommand(words: Words) -> Local:
    sub = words[1][:128].decode("utf-8", "backslashreplace")
    return Local(ErrorReply(f"ERR unknown subcommand '{sub}'. Try {words[0].decode().upper()} HELP."))


def _wrong_arity(name: bytes) -> Local:
    return Local(ErrorReply(f"ERR wrong number of arguments for '{name.decode('latin-1').lower()}' command"))


def _one_key(operation: int) -> Handler:
    prefix = v.encode_key(operation, b"")

    def handler(session: Session, words: Words) -> bytes:
        return prefix + words[1]

    return handler


def _bare(operation: int) -> Handler:
    value = v.encode_bare(operation)

    def handler(session: Session, words: Words) -> bytes:
        return value

    return handler


def _many(operation: int) -> Handler:
    def handler(session: Session, words: Words) -> bytes:
        return v.encode_many(operation, words[1:])

    return handler


def _set(session: Session, words: Words) -> bytes | Local:
    flags = 0
    for word in words[3:]:
        option = _SET_OPTIONS.get(word.upper())
        if option is None:
            return SYNTAX_ERROR
        flags |= option
    if flags & v.SET_NX and flags & v.SET_XX:
        return SYNTAX_ERROR
    return v.encode_set(words[1], words[2], flags)


_SET_OPTIONS: Final = {b"NX": v.SET_NX, b"XX": v.SET_XX, b"GET": v.SET_GET}


def _append(session: Session, words: Words) -> bytes:
    return v.encode_append(words[1], words[2])


def _incr(session: Session, words: Words) -> bytes:
    return v.encode_incrby(words[1], 1)


def _decr(session: Session, words: Words) -> bytes:
    return v.encode_incrby(words[1], -1)


def _incrby(session: Session, words: Words) -> bytes | Local:
    delta = parse_int64(words[2])
    return BAD_INTEGER if delta is None else v.encode_incrby(words[1], delta)


def _decrby(session: Session, words: Words) -> bytes | Local:
    delta = parse_int64(words[2])
    if delta is None:
        return BAD_INTEGER
    if delta == v.INT64_MIN:
        return Local(ErrorReply("ERR decrement would overflow"))
    return v.encode_incrby(words[1], -delta)


def _lrange(session: Session, words: Words) -> bytes | Local:
    start = parse_int64(words[2])
    stop = parse_int64(words[3])
    return BAD_INTEGER if start is None or stop is None else v.encode_lrange(words[1], start, stop)


def _flush(session: Session, words: Words) -> bytes | Local:
    if len(words) == 2 and words[1].upper() not in (b"ASYNC", b"SYNC"):
        return SYNTAX_ERROR
    return v.encode_bare(v.OP_FLUSHDB)


def _ping(session: Session, words: Words) -> Local:
    return Local(PONG if len(words) == 1 else words[1])


def _echo(session: Session, words: Words) -> Local:
    return Local(words[1])


def _info(session: Session, words: Words) -> Local:
    text = session.info([word.decode("latin-1").lower() for word in words[1:]])
    return Local(text.encode())


def _checkpoint(session: Session, words: Words) -> Work:
    return Work(session.checkpoint)


def _members(session: Session, words: Words) -> Local:
    return Local(members.members_reply(session.node.members()))


def _member(session: Session, words: Words) -> Local | Work:
    start = members.change(session.node, words[1:])
    if isinstance(start, ErrorReply):
        return Local(start)

    async def work() -> Reply:
        return members.members_reply(await start())

    return Work(work)


def _select(session: Session, words: Words) -> Local:
    if parse_int64(words[1]) is None:
        return BAD_INTEGER
    return LOCAL_OK if words[1] == b"0" else Local(ErrorReply("ERR DB index is out of range"))


def _quit(session: Session, words: Words) -> Local:
    return Local(OK, close=True)


def _reset(session: Session, words: Words) -> Local:
    session.name = b""
    session.protocol = 2
    return Local(Status(b"RESET"), protocol=2)


def _valid_name(name: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in name)


_BAD_NAME: Final = Local(ErrorReply("ERR Client names cannot contain spaces, newlines or special characters."))


def _hello(session: Session, words: Words) -> Local:
    protocol = session.protocol
    name: bytes | None = None
    if len(words) > 1:
        wanted = parse_int64(words[1])
        if wanted is None:
            return Local(ErrorReply("ERR Protocol version is not an integer or out of range"))
        if wanted not in (2, 3):
            return Local(ErrorReply("NOPROTO unsupported protocol version"))
        protocol = wanted
    at = 2
    while at < len(words):
        option = words[at].upper()
        if option == b"SETNAME" and at + 1 < len(words):
            name = words[at + 1]
            if not _valid_name(name):
                return _BAD_NAME
            at += 2
        elif option == b"AUTH" and at + 2 < len(words):
            return Local(ErrorReply("ERR AUTH called without any password configured: this service has no users"))
        else:
            return Local(ErrorReply(f"ERR Syntax error in HELLO option '{words[at][:64].decode('latin-1')}'"))
    session.protocol = protocol
    if name is not None:
        session.name = name
    pairs: list[tuple[Reply, Reply]] = [
        (b"server", b"redis"),
        (b"version", REDIS_VERSION.encode()),
        (b"proto", protocol),
        (b"id", session.client_id),
        (b"mode", b"standalone"),
        (b"role", b"master"),
        (b"modules", []),
    ]
    return Local(Map(pairs), protocol=protocol)


def _command(session: Session, words: Words) -> Local:
    if len(words) == 1:
        return Local([])
    sub = words[1].upper()
    if sub == b"COUNT":
        return Local(len(_COMMANDS))
    if sub == b"DOCS":
        return Local(Map([]))
    if sub == b"LIST":
        return Local([name.lower() for name in _COMMANDS])
    if sub == b"INFO":
        return Local([None for _ in words[2:]])
    return _unknown_subcommand(words)


def _config(session: Session, words: Words) -> Local:
    if words[1].upper() != b"GET":
        return _unknown_subcommand(words)
    if len(words) < 3:
        return _wrong_arity(b"config|get")
    patterns = [word.decode("latin-1").lower() for word in words[2:]]
    pairs: list[tuple[Reply, Reply]] = [
        (name.encode(), value.encode())
        for name, value in _CONFIG.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    return Local(Map(pairs))


def _client(session: Session, words: Words) -> Local:
    sub = words[1].upper()
    count = len(words)
    if sub == b"SETNAME" and count == 3:
        if not _valid_name(words[2]):
            return _BAD_NAME
        session.name = words[2]
        return LOCAL_OK
    if sub == b"GETNAME" and count == 2:
        return Local(session.name or None)
    if sub == b"ID" and count == 2:
        return Local(session.client_id)
    if sub == b"INFO" and count == 2:
        return Local(session.line() + b"\n")
    if sub == b"LIST":
        return Local(b"".join([other.line() + b"\n" for other in session.list_clients()]))
    if sub == b"SETINFO" and count == 4:
        if words[2].upper() not in (b"LIB-NAME", b"LIB-VER"):
            return Local(ErrorReply("ERR Unrecognized option for CLIENT SETINFO"))
        return LOCAL_OK
    if sub in (b"NO-EVICT", b"NO-TOUCH") and count == 3:
        return LOCAL_OK if words[2].upper() in (b"ON", b"OFF") else SYNTAX_ERROR
    return _unknown_subcommand(words)


_ANY: Final = 1 << 30

#: Name → words at least and at most (the name counts), handler.
_COMMANDS: Final[dict[bytes, tuple[int, int, Handler]]] = {
    b"APPEND": (3, 3, _append),
    b"CLIENT": (2, _ANY, _client),
    b"COMMAND": (1, _ANY, _command),
    b"CONFIG": (2, _ANY, _config),
    b"DBSIZE": (1, 1, _bare(v.OP_DBSIZE)),
    b"DECR": (2, 2, _decr),
    b"DECRBY": (3, 3, _decrby),
    b"DEL": (2, _ANY, _many(v.OP_DEL)),
    b"ECHO": (2, 2, _echo),
    b"EXISTS": (2, _ANY, _many(v.OP_EXISTS)),
    b"FLUSHALL": (1, 2, _flush),
    b"FLUSHDB": (1, 2, _flush),
    b"GET": (2, 2, _one_key(v.OP_GET)),
    b"HELLO": (1, _ANY, _hello),
    b"INCR": (2, 2, _incr),
    b"INCRBY": (3, 3, _incrby),
    b"INFO": (1, _ANY, _info),
    b"LLEN": (2, 2, _one_key(v.OP_LLEN)),
    b"LRANGE": (4, 4, _lrange),
    b"MGET": (2, _ANY, _many(v.OP_MGET)),
    b"PAXOS.CHECKPOINT": (1, 1, _checkpoint),
    b"PAXOS.MEMBER": (2, _ANY, _member),
    b"PAXOS.MEMBERS": (1, 1, _members),
    b"PING": (1, 2, _ping),
    b"QUIT": (1, _ANY, _quit),
    b"RESET": (1, 1, _reset),
    b"RPUSH": (3, _ANY, _many(v.OP_RPUSH)),
    b"SELECT": (2, 2, _select),
    b"SET": (3, _ANY, _set),
    b"STRLEN": (2, 2, _one_key(v.OP_STRLEN)),
}
