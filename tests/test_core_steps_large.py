"""Single steps with large values: how long the core waits before it sends or asks again."""

from __future__ import annotations

import pytest

from frames import (
    ACCEPT,
    FORWARD,
    FORWARD_REFUSED,
    HEARTBEAT,
    LEARNED,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE_VALUE,
    VALUE,
    ballot,
    chain,
    chunk,
    frame,
)
from paxos._stepping import Core
from steps import MS, Effects, T, candidate, follower, kinds, master, node

MIB = 1 << 20
RESEND = 100 * MS
# 20 MB/s: 3,276,800 ns for each 64 KiB.
PATIENCE = 16 * 3_276_800  # a value of 1 MiB
LARGE = chunk(2, 1, [bytes(MIB)])
SMALL = chunk(2, 1, [bytes(65_000)])


def accept(data: bytes, instance: int, sender: int = 2, inc: tuple[int, int] | None = None) -> bytes:
    return frame(ACCEPT, sender, ballot=ballot(1, sender), instance=instance, data=data, value=(1, 1), inc=inc)


def beat(core: Core, now: int) -> Effects:
    """What a master does when its heartbeat is due, with everybody heard of lately."""
    for peer in (2, 3):
        core.receive(now, frame(PREVOTE_REPLY, peer))
    return core.tick(now)


@pytest.mark.parametrize(("size", "patience"), [(65_000, 0), (MIB, PATIENCE)])
def test_a_large_accept_is_sent_again_later_than_a_small_one(size: int, patience: int) -> None:
    core = master()
    core.submit(T, 1, [bytes(size)], T + 10_000 * MS)
    core.pump(T)
    assert kinds(beat(core, T + RESEND + patience - 1)) == ["heartbeat"]
    assert kinds(beat(core, T + RESEND + patience + 60 * MS)) == ["accept", "heartbeat"]


def test_a_large_accept_is_sent_at_once_to_a_peer_that_is_back() -> None:
    core = master()
    core.submit(T, 1, [bytes(MIB)], T + 10_000 * MS)
    core.pump(T)
    assert kinds(core.peer(T + 1, 1, True)) == ["accept", "heartbeat"]


@pytest.mark.parametrize(("size", "patience"), [(65_000, 0), (MIB, PATIENCE)])
def test_a_large_chunk_is_forwarded_again_later_than_a_small_one(size: int, patience: int) -> None:
    core = follower()
    core.submit(T, 1, [bytes(size)], T + 10_000 * MS)
    assert kinds(core.pump(T)) == ["forward"]
    for again in (1, 2):
        due = T + again * (4 * RESEND + patience)
        core.receive(due - 2, frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1))
        assert kinds(core.tick(due - 1)) == []
        assert kinds(core.tick(due)) == ["forward"]


def notice(chosen: int, values: list[bytes]) -> bytes:
    return frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1, chosen=chosen, chain=chain([(1, v) for v in values]))


def test_news_that_overtake_a_large_accept_do_not_make_it_asked_for() -> None:
    core = follower()
    core.arriving(T, accept(LARGE, 0)[:200])
    assert kinds(core.receive(T + 1, notice(1, [LARGE]))) == []
    core.receive(T + 2, accept(LARGE, 0))
    # The own write takes its time, and is followed by a step before the next notice is read.
    assert kinds(core.durable(T + RESEND + PATIENCE - 1, 1)) == []
    assert kinds(core.receive(T + RESEND + PATIENCE, notice(1, [LARGE]))) == ["chosen"]


def test_a_large_accept_that_does_not_come_is_asked_for_after_all() -> None:
    core = follower()
    core.arriving(T, accept(LARGE, 0)[:200])
    assert kinds(core.receive(T + RESEND + PATIENCE - 1, notice(1, [LARGE]))) == []
    assert kinds(core.receive(T + RESEND + PATIENCE, notice(1, [LARGE]))) == ["learn"]


def test_a_later_accept_shows_that_one_before_it_is_lost() -> None:
    core = follower()
    core.arriving(T, accept(LARGE, 0)[:200])
    assert kinds(core.receive(T + 1, notice(1, [LARGE]))) == []
    # The connection broke, and what comes on the next one is this.
    core.arriving(T + 2, accept(LARGE, 1)[:200])
    assert kinds(core.receive(T + 3, notice(1, [LARGE]))) == ["learn"]


def test_a_later_accept_shows_nothing_while_the_one_before_it_waits_for_its_notice() -> None:
    core = follower()
    core.arriving(T, accept(LARGE, 0)[:200])
    core.receive(T + 1, notice(1, [LARGE]))
    core.receive(T + 2, accept(LARGE, 0))
    core.arriving(T + 3, accept(LARGE, 1)[:200])
    assert kinds(core.durable(T + 4, 1)) == []
    # The next one is on its way, too, when the news of both come.
    assert kinds(core.receive(T + 5, notice(2, [LARGE, LARGE]))) == ["chosen"]


def test_a_large_accept_is_not_waited_for_where_the_master_s_word_does_not_reach_down_to_the_next_instance() -> None:
    """It has fetched that one itself: however many come, none of them tells that the next one here is chosen. Where they come one
    after the other, nothing would ever be asked for."""
    core = follower()
    core.receive(T, accept(SMALL, 0))
    core.durable(T, 1)
    core.arriving(T + 1, accept(LARGE, 1)[:200])
    reaches = frame(ACCEPT, 2, ballot=ballot(1, 2), instance=70, own_from=1, data=LARGE, value=(1, 1))
    core.arriving(T + 2, reaches[:200])
    news = frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1, own_from=1, chosen=1, chain=1)
    assert kinds(core.receive(T + 3, news)) == ["learn"]


def test_only_the_present_master_is_waited_for() -> None:
    core = follower()
    core.arriving(T, accept(LARGE, 0, sender=3)[:200])
    assert kinds(core.receive(T + 1, notice(1, [LARGE]))) == ["learn"]
    core = follower()
    core.arriving(T, accept(LARGE, 0, inc=(8, 8))[:200])
    assert kinds(core.receive(T + 1, notice(1, [LARGE]))) == ["learn"], "another incarnation of it"
    core = follower()
    core.arriving(T, accept(LARGE, 0)[:200])
    other = frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1, chosen=1, chain=1)
    assert kinds(core.receive(T + 1, other)) == ["master", "learn"]


def test_a_large_answer_on_its_way_is_not_asked_for_again() -> None:
    core = node()
    core.receive(T, frame(PREVOTE_REPLY, 3, chosen=5, chain=99))
    learned = frame(LEARNED, 3, chosen=5, chain=99, count=1, data=VALUE.pack(len(LARGE), 1, 1, 0) + LARGE)
    core.arriving(T, learned[:200])
    asked = [effect for effect in kinds(core.tick(T + RESEND + PATIENCE - 1)) if effect == "learn"]
    assert asked == []
    assert "learn" in kinds(core.tick(T + RESEND + PATIENCE))
    # From somebody else it is no answer.
    core = node()
    core.receive(T, frame(PREVOTE_REPLY, 3, chosen=5, chain=99))
    core.arriving(T, frame(LEARNED, 2, chosen=5, chain=99, count=1, data=VALUE.pack(len(LARGE), 1, 1, 0) + LARGE)[:200])
    assert "learn" in kinds(core.tick(T + 126 * MS))


def test_a_candidate_waits_for_a_large_report_and_agrees_to_no_other_meanwhile() -> None:
    core = candidate()
    report = frame(PROMISE_VALUE, 2, ballot=ballot(1, 1), accepted=ballot(0, 2), attempt=1, instance=0,
                   data=LARGE, value=(1, 1))  # fmt: skip
    late = core.deadline() + 600 * MS  # its election would have ended by then
    core.arriving(late, report[:200])
    assert "prevote" not in kinds(core.tick(late + 1))
    (reply,) = core.receive(late + 2, frame(PREVOTE, 3, ballot=ballot(4, 3)))
    assert granted(reply) == 0
    (reply,) = core.receive(late + RESEND + PATIENCE, frame(PREVOTE, 3, ballot=ballot(4, 3)))
    assert granted(reply) == 1
    assert "prevote" in kinds(core.tick(late + RESEND + PATIENCE))


def granted(effect: tuple[object, ...]) -> int:
    raw = effect[3]
    assert isinstance(raw, bytes)
    return raw[64 + 64]


@pytest.mark.parametrize("kind", [ACCEPT, LEARNED, PROMISE_VALUE, FORWARD, FORWARD_REFUSED, HEARTBEAT, PREVOTE, 99])
def test_what_arrives_changes_nothing_that_is_promised_or_chosen(kind: int) -> None:
    core = follower()
    before = core.state()
    raw = bytearray(accept(LARGE, 0)[:200])
    raw[13] = kind
    core.arriving(T, bytes(raw))
    raw[20:24] = (9).to_bytes(4, "little")
    core.arriving(T, bytes(raw))
    assert core.state() == before
    with pytest.raises(ValueError, match="159 bytes"):
        core.arriving(T, bytes(raw[:159]))
