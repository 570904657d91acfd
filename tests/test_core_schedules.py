"""Schedules that broke the core, or would break it without a rule of design section 5, each under its name."""

from __future__ import annotations

from frames import (
    ACCEPT,
    ACCEPTED,
    HEARTBEAT,
    LEARNED,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE,
    VALUE,
    ballot,
    chain,
    chunk,
    frame,
    members,
    parse,
    takeover,
)
from paxos._stepping import Core

MS = 1_000_000
T = 1000 * MS
Effects = list[tuple[object, ...]]


def sent_to(peer: int, effects: Effects) -> list[bytes]:
    return [
        e[3]
        for e in effects
        if e[0] == "send" and isinstance(e[1], int) and e[1] >> (peer - 1) & 1 and isinstance(e[3], bytes)
    ]


def test_a_deposed_master_that_fetches_a_value_gives_no_notice_of_it() -> None:
    """Rule 5. 1 is master of (1, 1) and has proposed a no-op at 0, which 2 has accepted. 3, 4 and 5 know nothing of it, elect
    5 and choose W at 0. 1 has not heard of that ballot but fetches W from 4: its notice must not make 2 apply the no-op."""
    w = chunk(5, 1, [b"w"])
    one, two = Core(1, members(5)), Core(2, members(5))
    one.start(T)
    two.start(T)
    one.tick(one.deadline())
    for peer in (2, 3):
        one.receive(T, frame(PREVOTE_REPLY, peer, ballot=ballot(1, 1), granted=1))
    one.durable(T, 1)
    for peer in (2, 3):
        one.receive(T, frame(PROMISE, peer, ballot=ballot(1, 1), attempt=1))
    for raw in sent_to(2, one.pump(T)):
        two.receive(T, raw)
    two.durable(T, 1)
    assert two.state()["accepted"] == [(0, ballot(1, 1), takeover(1))]

    one.receive(T, frame(PREVOTE, 4, chosen=1, chain=chain([(1, w)]), ballot=ballot(3, 4)))
    learned = frame(LEARNED, 4, chosen=1, chain=chain([(1, w)]), count=1, data=VALUE.pack(len(w), 1, 1, 0) + w)
    effects = one.receive(T, learned)
    assert ("chosen", 0, 1, 1, w) in effects
    effects += one.pump(T + 10 * MS) + one.tick(T + 50 * MS)
    assert not [e for e in effects if e[0] == "master" and e[3]], "nothing of its own ballot is chosen"
    notices = [raw for raw in sent_to(2, effects) if parse(raw).kind in (ACCEPT, HEARTBEAT)]
    assert notices, "it does not know yet that it is deposed"
    for raw in notices:
        assert not [e for e in two.receive(T + 60 * MS, raw) if e[0] == "chosen"], "an older accepted value was applied"


def test_a_vote_before_a_crash_is_kept_and_the_ballot_not_used_again() -> None:
    """Rule 1: what was promised and accepted binds the next life, and a ballot belongs to one life."""
    core = Core(1, members(3))
    core.start(T)
    disk = [
        e for e in core.receive(T, frame(ACCEPT, 2, ballot=ballot(4, 2), data=chunk(2, 1, [b"x"]))) if e[0] == "log"
    ]
    disk += [e for e in core.receive(T, frame(PREPARE, 3, ballot=ballot(6, 3))) if e[0] == "log"]
    again = Core(1, members(3), boot=2)
    for _, _, kind, instance, body in disk:
        assert again.restore(kind, instance, body)
    again.start(T)
    assert again.state()["promised"] == ballot(6, 3)
    kinds = [parse(raw).kind for raw in sent_to(2, again.receive(T, frame(ACCEPT, 2, ballot=ballot(4, 2), data=b"")))]
    assert ACCEPTED not in kinds
    again.tick(again.deadline())
    again.receive(T, frame(PREVOTE_REPLY, 2, ballot=ballot(7, 1), granted=1))
    assert again.state()["ballot"] == ballot(7, 1)
