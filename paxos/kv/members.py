"""Members of the cluster, for clients: ``PAXOS.MEMBERS`` and ``PAXOS.MEMBER``.

    PAXOS.MEMBERS
    PAXOS.MEMBER ADD id HOST:PORT [FOLLOWER] [TIMEOUT seconds]
    PAXOS.MEMBER REMOVE id [FORCE] [TIMEOUT seconds]
    PAXOS.MEMBER REPLACE old new HOST:PORT [TIMEOUT seconds]
    PAXOS.MEMBER PROMOTE id [TIMEOUT seconds]
    PAXOS.MEMBER MOVE id HOST:PORT [TIMEOUT seconds]

Each is answered with the members, as a map; a change when :class:`paxos.Node` returns from the method of its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from paxos import Members

from .replies import ErrorReply, Map, Reply

__all__ = ["MembersNode", "change", "members_reply"]

TIMEOUT: Final = 10.0
LONGEST: Final = 86400.0


class MembersNode(Protocol):
    """What is asked of :class:`paxos.Node`."""

    def members(self) -> Members: ...
    def add(self, node_id: int, address: str, *, follower: bool = ..., timeout: float = ...) -> Awaitable[Members]: ...
    def remove(self, node_id: int, *, force: bool = ..., timeout: float = ...) -> Awaitable[Members]: ...
    def replace(self, old: int, new: int, address: str, *, timeout: float = ...) -> Awaitable[Members]: ...
    def promote(self, node_id: int, *, timeout: float = ...) -> Awaitable[Members]: ...
    def move(self, node_id: int, address: str, *, timeout: float = ...) -> Awaitable[Members]: ...


def members_reply(members: Members) -> Map:
    """The members as a reply."""
    rows: list[Reply] = [
        Map(
            [
                (b"node_id", member.node_id),
                (b"role", member.role.encode()),
                (b"address", member.address.encode()),
                (b"incarnation", member.incarnation.encode()),
                (b"replaces", member.replaces),
            ]
        )
        for member in members.members
    ]
    return Map([(b"version", members.version), (b"pending", int(members.pending)), (b"members", rows)])


class _Words:
    """What is left of a command."""

    def __init__(self, words: list[bytes]) -> None:
        self._words = words

    def id(self) -> int:
        word = self._words.pop(0)
        if not word.isdigit():
            raise ValueError(f"'{_shown(word)}' is no node id: those are numbers from 1 on")
        return int(word)

    def text(self) -> str:
        return _shown(self._words.pop(0))

    def flag(self, name: bytes) -> bool:
        found = bool(self._words) and self._words[0].upper() == name
        if found:
            del self._words[0]
        return found

    def timeout(self) -> float:
        """... which is the last."""
        seconds = TIMEOUT
        if self.flag(b"TIMEOUT"):
            word = self._words.pop(0)
            try:
                seconds = float(word)
            except ValueError:
                seconds = 0.0
            if not 0 < seconds <= LONGEST:
                raise ValueError(f"TIMEOUT '{_shown(word)}': give seconds, up to {LONGEST:g}")
        if self._words:
            raise IndexError
        return seconds


def _shown(word: bytes) -> str:
    return word[:300].decode("utf-8", "backslashreplace")


def change(node: MembersNode, words: list[bytes]) -> Callable[[], Awaitable[Members]] | ErrorReply:
    """What ``PAXOS.MEMBER`` followed by ``words`` asks for."""
    verb, left = words[0].upper(), _Words(words[1:])
    try:
        if verb == b"ADD":
            id_, address = left.id(), left.text()
            follower, timeout = left.flag(b"FOLLOWER"), left.timeout()
            return lambda: node.add(id_, address, follower=follower, timeout=timeout)
        if verb == b"REMOVE":
            id_, force, timeout = left.id(), left.flag(b"FORCE"), left.timeout()
            return lambda: node.remove(id_, force=force, timeout=timeout)
        if verb == b"REPLACE":
            id_, new, address, timeout = left.id(), left.id(), left.text(), left.timeout()
            return lambda: node.replace(id_, new, address, timeout=timeout)
        if verb == b"PROMOTE":
            id_, timeout = left.id(), left.timeout()
            return lambda: node.promote(id_, timeout=timeout)
        if verb == b"MOVE":
            id_, address, timeout = left.id(), left.text(), left.timeout()
            return lambda: node.move(id_, address, timeout=timeout)
    except IndexError:
        return ErrorReply(f"ERR wrong number of arguments for 'paxos.member|{_shown(verb).lower()}' command")
    except ValueError as error:
        return ErrorReply(f"ERR {error}")
    return ErrorReply(f"ERR unknown subcommand '{_shown(words[0])}'. There are ADD, REMOVE, REPLACE, PROMOTE and MOVE")
