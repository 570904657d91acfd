"""What the tests of single steps share: a replica brought into a role by the messages that bring it there."""

from __future__ import annotations

from typing import Any

from frames import ACCEPTED, HEARTBEAT, PREVOTE_REPLY, PROMISE, ballot, chunk, frame, members, short
from paxos._stepping import Core

MS = 1_000_000
T = 1000 * MS
ALPHA, RING = 64, 1024

Effects = list[tuple[object, ...]]


def node(number: int = 1, count: int = 3, **options: Any) -> Core:
    core = Core(number, members(count), **options)
    assert core.start(T) == []
    return core


def candidate(count: int = 3, core: Core | None = None) -> Core:
    """Node 1 with ballot (1, 1) durable and Prepare out."""
    core = core or node(count=count)
    core.tick(core.deadline())
    for peer in range(2, count // 2 + 2):
        core.receive(T, frame(PREVOTE_REPLY, peer, ballot=ballot(1, 1), granted=1))
    assert core.state()["role"] == "preparing"
    core.durable(T, core.state()["logged"])
    return core


def master(count: int = 3, takeover: bool = True, **options: Any) -> Core:
    """Node 1 as master under ballot (1, 1); with ``takeover`` its first no-op is chosen."""
    core = candidate(count, node(count=count, **options))
    for peer in range(2, count // 2 + 2):
        core.receive(T, frame(PROMISE, peer, ballot=ballot(1, 1), attempt=1))
    assert core.state()["role"] == "master"
    core.pump(T)
    if takeover:
        core.durable(T, core.state()["logged"])
        for peer in range(2, count // 2 + 2):
            core.receive(T, frame(ACCEPTED, peer, ballot=ballot(1, 1), first=0, last=0))
        assert core.state()["settled"]
        assert core.state()["chosen"] == 1
        core.pump(T)
        core.tick(core.deadline())
    return core


def follower(number: int = 1, of: int = 2, settled: int = 1, **options: Any) -> Core:
    """A follower of the master of ballot (1, of)."""
    core = node(number, **options)
    core.receive(T, frame(HEARTBEAT, of, ballot=ballot(1, of), settled=settled))
    return core


X, Y, Z = chunk(2, 1, [b"x"]), chunk(2, 2, [b"y"]), chunk(3, 1, [b"z"])


def kinds(effects: Effects) -> list[object]:
    return [effect[1] if effect[0] in ("send",) else effect[0] for effect in short(effects)]
