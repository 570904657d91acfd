"""One test per transition, proposer: votes, notices, forwarded chunks, deadlines, window and batches."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from frames import (
    ACCEPT,
    ACCEPTED,
    FORWARD,
    FORWARD_REFUSED,
    HEARTBEAT,
    LEARNED,
    MASTER,
    NOT_AVAILABLE,
    OVERLOADED,
    PREPARE,
    PREVOTE_REPLY,
    PROMISE,
    PROMISE_VALUE,
    REJECT,
    RELIEVE,
    UNKNOWN,
    VALUE,
    ballot,
    chain,
    chunk,
    frame,
    short,
    takeover,
)
from steps import ALPHA, MS, T, X, Y, Z, candidate, follower, kinds, master, node

TAKEN_OVER = ["chosen", "mastership", "master", "heartbeat"]

# ---- master: acceptances ----


def test_accept_leaves_before_the_own_write_and_the_own_vote_counts_when_durable() -> None:
    core = master(takeover=False)
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1))) == []  # 2 alone; the own record is not durable
    assert core.state()["chosen"] == 0
    assert short(core.durable(T, 2)) == [
        ("chosen", 0, MASTER, 0, takeover(1)),
        ("mastership", 1, 1, 0),
        ("master", 1, 1, True),
        ("send", "heartbeat", [2, 3], 1, {"ballot": (1, 1), "settled": 1, "sent_at": T, "n": 1}, b""),
    ]


def test_the_own_write_first_then_one_more_vote() -> None:
    core = master(takeover=False)
    assert core.durable(T, 2) == []
    assert kinds(core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1)))) == TAKEN_OVER


def test_the_others_are_a_quorum_without_the_own_write() -> None:
    core = master(takeover=False)
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1))) == []
    assert kinds(core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1)))) == TAKEN_OVER
    assert core.state()["durable"] == 1


def test_a_vote_twice_is_one_vote() -> None:
    core = master(takeover=False)
    for _ in range(3):
        assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1))) == []


def test_a_vote_under_another_ballot_is_none() -> None:
    core = master(takeover=False)
    core.durable(T, 2)
    for other in (ballot(2, 1), ballot(0, 1), (1, 1, 99, 99)):
        assert core.receive(T, frame(ACCEPTED, 2, ballot=other)) == []
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=5)) == []
    assert core.state()["chosen"] == 0


def test_chosen_out_of_order_is_delivered_in_order() -> None:
    core = master()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.submit(T, 2, [b"b"], T + 2000 * MS)
    core.pump(T)
    core.durable(T, 4)
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=2, last=2)) == []
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1)) == [
        ("chosen", 1, 1, 1, chunk(1, 1, [b"a"])),
        ("chosen", 2, 1, 1, chunk(1, 2, [b"b"])),
    ]


def test_an_unanswered_accept_is_sent_again_to_those_who_have_not_answered() -> None:
    core = master(5)
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1), first=1, last=1))
    for peer in (2, 3, 4, 5):
        core.receive(T + 150 * MS, frame(PREVOTE_REPLY, peer))
    found = short(core.tick(T + 200 * MS))
    assert found[0] == ("send", "accept", [2, 4, 5], 1,
                        {"ballot": (1, 1), "instance": 1, "value": (1, 1), "n": 1}, chunk(1, 1, [b"a"]))  # fmt: skip
    assert [effect[1] for effect in found] == ["accept", "heartbeat"]


def test_a_reject_of_the_own_ballot_ends_mastership_and_of_another_does_not() -> None:
    core = master()
    assert core.receive(T, frame(REJECT, 2, ballot=ballot(0, 1), promised=ballot(5, 2))) == []
    assert core.receive(T, frame(REJECT, 2, ballot=ballot(1, 1), promised=ballot(5, 2))) == [("master", 0, 0, False)]
    assert core.state()["role"] == "follower"
    effects = short(core.tick(core.deadline() + 600 * MS))
    assert effects[0] == ("send", "prevote", [2, 3], 0, {"ballot": (6, 1), "n": 1}, b"")


def test_a_higher_prepare_ends_mastership() -> None:
    core = master()
    assert short(core.receive(T, frame(PREPARE, 2, ballot=ballot(2, 2), first=1))) == [
        ("master", 0, 0, False),
        ("log", 3, "promise", 0, {"ballot": (2, 2)}, b""),
        ("send", "promise", [2], 3, {"ballot": (2, 2), "n": 1}, b""),
    ]


def test_a_master_that_hears_no_quorum_steps_down() -> None:
    core = master()
    assert core.state()["role"] == "master"
    effects = short(core.tick(T + 600 * MS))
    assert effects[0] == ("send", "relieve", [2, 3], 0, {"ballot": (1, 1), "n": 1}, b""), "it says so"
    assert effects[1] == ("master", 0, 0, False)
    assert core.state()["role"] == "follower"


def test_who_hears_that_his_master_gives_up_looks_for_another_at_once() -> None:
    later = T + 50 * MS
    core = node()
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1))
    core.receive(later, frame(RELIEVE, 3, ballot=ballot(1, 2), heard=7))
    core.receive(later, frame(RELIEVE, 2, ballot=ballot(0, 2)))
    assert core.deadline() > T + 250 * MS, "not his master, or not for this ballot"
    core.receive(later, frame(RELIEVE, 2, ballot=ballot(1, 2)))
    assert core.deadline() <= later + 50 * MS
    assert kinds(core.tick(core.deadline()))[-1] == "prevote"


def test_resigning_hands_mastership_over_and_keeps_from_standing() -> None:
    core = master()
    assert core.resign(T, False) == [("master", 0, 0, False)]
    assert core.tick(core.deadline()) == []
    assert core.state()["role"] == "follower"
    core.resign(T + 5000 * MS, True)
    assert kinds(core.tick(core.deadline())) == ["prevote"]


# ---- heartbeats and notices ----


def test_a_heartbeat_names_the_master_and_is_answered() -> None:
    core = node()
    assert short(core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1, sent_at=77))) == [
        ("master", 2, 1, True),
        ("send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "sent_at": 77, "priority": 1}, b""),
    ]


def test_a_heartbeat_of_an_old_ballot_is_rejected() -> None:
    core = node()
    core.receive(T, frame(PREPARE, 3, ballot=ballot(2, 3)))
    assert short(core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2), sent_at=77))) == [
        ("send", "reject", [2], 1, {"ballot": (1, 2), "promised": (2, 3)}, b""),
    ]
    assert core.state()["master"] == 0


def test_a_notice_applies_what_was_accepted_under_its_ballot() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=0, data=X))
    assert core.receive(T, frame(HEARTBEAT, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 2)))[0] == (
        "chosen", 0, 1, 1, X)  # fmt: skip
    assert core.state()["chain"] == chain([(1, X)])


def test_a_notice_rides_on_the_next_accept() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=0, data=X))
    found = core.receive(T, frame(ACCEPT, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 2), instance=1, data=Y))
    assert kinds(found) == ["log", "accepted", "chosen"]


def test_rule_5_trap_an_older_accepted_value_is_not_applied_under_a_newer_notice() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=0, data=X))
    found = short(core.receive(T, frame(HEARTBEAT, 3, chosen=1, chain=chain([(1, Z)]), ballot=ballot(2, 3))))
    assert found == [
        ("master", 3, 2, False),
        ("send", "learn", [3], 0, {"end": 1, "max_bytes": 1 << 20}, b""),
    ]
    assert core.state()["chosen"] == 0


def test_a_notice_says_nothing_of_instances_below_own_from() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=0, data=X))
    found = core.receive(T, frame(HEARTBEAT, 2, chosen=1, chain=chain([(1, Z)]), ballot=ballot(1, 2), own_from=1))
    assert kinds(found) == ["master", "learn"] or kinds(found) == ["learn"]
    assert core.state()["chosen"] == 0


def test_news_of_chosen_instances_go_out_after_a_moment_without_an_accept() -> None:
    core = master()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.durable(T, 3)
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1))
    assert core.pump(T) == []
    assert core.deadline() == T + MS
    core.tick(T + MS)
    assert short(core.pump(T + MS)) == [
        ("send", "heartbeat", [2, 3], 1, {"ballot": (1, 1), "settled": 1, "n": 2}, b"")]  # fmt: skip


# ---- forwarding ----


def test_a_proposal_goes_to_the_master_under_its_ballot() -> None:
    core = follower()
    assert core.submit(T, 1, [b"a", b"b"], T + 2000 * MS) == []
    core.submit(T, 2, [b"c"], T + 2000 * MS)
    data = chunk(1, 1, [b"a", b"b"]) + chunk(1, 2, [b"c"])
    assert short(core.pump(T)) == [("send", "forward", [2], 0, {"ballot": (1, 2), "boot": 1, "count": 2}, data)]
    assert core.pump(T) == []


def test_nothing_is_forwarded_to_a_master_that_cannot_be_reached() -> None:
    """It stays QUEUED: at its deadline it is certainly not executed, and the next master can have it."""
    core = follower()
    core.peer(T, 1, False)
    core.submit(T, 1, [b"a"], T + 20 * MS)
    assert core.pump(T) == []
    core.submit(T, 2, [b"b"], T + 2000 * MS)
    assert ("settled", 1, NOT_AVAILABLE) in core.tick(T + 30 * MS)
    core.peer(T + 31 * MS, 1, True)
    core.receive(T + 31 * MS, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))  # meanwhile it had asked for an election
    sent = short(core.pump(T + 31 * MS))
    assert sent == [("send", "forward", [2], 0, {"ballot": (1, 2), "boot": 1, "count": 1}, chunk(1, 2, [b"b"]))]


def test_who_is_heard_can_be_reached() -> None:
    core = follower()
    core.peer(T, 1, False)
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    assert [kinds for _, kinds, *_ in short(core.pump(T))] == ["forward"]


def test_a_forwarded_chunk_is_taken_once_under_the_right_ballot() -> None:
    core = master()
    forward = frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=2, data=X + Y)
    assert core.receive(T, forward) == []
    assert core.receive(T, forward) == []
    assert short(core.pump(T))[0] == (
        "send", "accept", [2, 3], 1, {"ballot": (1, 1), "instance": 1, "value": (2, 1), "n": 1}, X + Y)  # fmt: skip
    assert core.receive(T, forward) == []
    assert core.pump(T) == []


def test_a_forward_under_another_ballot_is_not_taken() -> None:
    core = master()
    for other in (ballot(2, 1), (1, 1, 0, 0)):
        assert core.receive(T, frame(FORWARD, 2, ballot=other, boot=1, count=1, data=X)) == []
    assert core.state()["queued"] == 0
    assert core.receive(T, frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=Z)) == []
    assert core.state()["queued"] == 0, "a chunk of another origin than the sender"
    assert core.state()["refused"] == 1


def test_a_chunk_of_an_older_boot_is_not_taken() -> None:
    core = master()
    core.receive(T, frame(FORWARD, 2, ballot=ballot(1, 1), boot=2, count=1, data=chunk(2, 1, [b"new"], boot=2)))
    assert core.state()["queued"] == 1
    core.receive(T, frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=Y))
    assert core.state()["queued"] == 1


def test_a_full_queue_refuses_and_does_not_take_a_late_copy() -> None:
    core = master(queue_bytes=200)
    big = chunk(2, 1, [b"x" * 300])
    forward = frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=2, data=big + Y)
    assert short(core.receive(T, forward)) == [
        (
            "send",
            "forward_refused",
            [2],
            0,
            {"ballot": (1, 1), "boot": 1, "reason": OVERLOADED, "count": 1, "life": 22, "n": 1},
            struct.pack("<Q", 1),
        ),
    ]
    core.pump(T)
    small = frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=X)  # the same seq as the refused one
    assert core.receive(T, small) == []
    assert core.pump(T) == []


def test_after_it_stepped_down_a_master_refuses_and_remembers() -> None:
    core = master()
    core.receive(T, frame(REJECT, 2, ballot=ballot(1, 1), promised=ballot(1, 1)))
    forward = frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=X)
    assert short(core.receive(T, forward)) == [
        (
            "send",
            "forward_refused",
            [2],
            0,
            {"ballot": (1, 1), "boot": 1, "reason": NOT_AVAILABLE, "count": 1, "life": 22, "n": 1},
            struct.pack("<Q", 1),
        ),
    ]
    assert core.receive(T, forward) == []


def test_stepping_down_hands_the_chunks_of_others_back() -> None:
    core = master(window=1)
    core.submit(T, 1, [b"mine"], T + 2000 * MS)
    core.pump(T)  # fills the window
    core.submit(T, 2, [b"mine too"], T + 2000 * MS)
    core.receive(T, frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=X))
    core.receive(T, frame(FORWARD, 3, ballot=ballot(1, 1), boot=1, count=1, data=Z))
    refused = {"ballot": (1, 1), "boot": 1, "reason": NOT_AVAILABLE, "count": 1, "life": 22, "n": 1}
    assert short(core.receive(T, frame(REJECT, 2, ballot=ballot(1, 1), promised=ballot(2, 2)))) == [
        ("send", "forward_refused", [2], 0, refused, struct.pack("<Q", 1)),
        ("send", "forward_refused", [3], 0, {**refused, "life": 33}, struct.pack("<Q", 1)),
        ("master", 0, 0, False),
    ]
    # What had not left goes to the next master; what was proposed does not.
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(2, 2)))
    assert short(core.pump(T)) == [
        ("send", "forward", [2], 0, {"ballot": (2, 2), "boot": 1, "count": 1, "n": 1}, chunk(1, 2, [b"mine too"]))]  # fmt: skip


def test_a_refusal_sends_the_chunk_to_the_next_master_only() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    refusal = frame(
        FORWARD_REFUSED,
        2,
        ballot=ballot(1, 2),
        boot=1,
        reason=NOT_AVAILABLE,
        count=1,
        life=11,
        data=struct.pack("<Q", 1),
    )
    assert core.receive(T, refusal) == []
    assert core.pump(T) == [], "this master would take a second copy for a duplicate"
    core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3)))
    assert short(core.pump(T)) == [
        ("send", "forward", [3], 0, {"ballot": (2, 3), "boot": 1, "count": 1}, chunk(1, 1, [b"a"]))]  # fmt: skip
    # A late copy of the old refusal says nothing of the new master.
    assert core.receive(T, refusal) == []
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(3, 2)))
    assert core.pump(T) == []


def test_overloaded_settles_the_chunk() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    for boot, life in ((2, 11), (1, 99), (1, 11)):  # of another start; of the incarnation before; this one
        found = core.receive(T, frame(FORWARD_REFUSED, 2, ballot=ballot(1, 2), boot=boot, life=life, reason=OVERLOADED,
                                      count=1, data=struct.pack("<Q", 1)))  # fmt: skip
        assert found == ([("settled", 1, OVERLOADED)] if (boot, life) == (1, 11) else [])


def test_what_was_forwarded_under_an_older_ballot_is_unknown_once_the_new_master_has_settled() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    assert core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3))) == [("master", 3, 2, False)]
    assert core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1))[0] == ("master", 3, 2, True)
    # Its take-over ends below instance 1, which is not applied here yet.
    assert core.state()["chosen"] == 0
    learned = frame(LEARNED, 3, chosen=1, chain=chain([(0, b"")]), count=1, data=VALUE.pack(0, 0, 0, 0))
    # The old one is there still, and perhaps says that it has not taken it.
    assert "settled" not in kinds(core.receive(T, learned))
    assert ("settled", 1, UNKNOWN) not in core.tick(T + 299 * MS)
    assert core.deadline() <= T + 300 * MS
    assert ("settled", 1, UNKNOWN) in core.tick(T + 300 * MS)


def test_what_was_forwarded_to_a_master_that_is_gone_is_unknown_at_once() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1))
    learned = frame(LEARNED, 3, chosen=1, chain=chain([(0, b"")]), count=1, data=VALUE.pack(0, 0, 0, 0))
    core.receive(T, learned)
    assert ("settled", 1, UNKNOWN) in core.peer(T + MS, 1, False)
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.peer(T, 1, False)
    core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1))
    assert core.receive(T, learned)[-1] == ("settled", 1, UNKNOWN)


def test_a_refusal_of_the_old_master_counts_when_the_new_one_has_settled_already() -> None:
    """Who hands over refuses what comes too late; the news that another leads may be faster."""
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1))
    core.receive(T, frame(LEARNED, 3, chosen=1, chain=chain([(0, b"")]), count=1, data=VALUE.pack(0, 0, 0, 0)))
    refusal = frame(
        FORWARD_REFUSED,
        2,
        ballot=ballot(1, 2),
        boot=1,
        reason=NOT_AVAILABLE,
        count=1,
        life=11,
        data=struct.pack("<Q", 1),
    )
    assert core.receive(T + MS, refusal) == []
    assert short(core.pump(T + MS)) == [
        ("send", "forward", [3], 0, {"ballot": (2, 3), "boot": 1, "count": 1, "n": 1}, chunk(1, 1, [b"a"])),
    ]
    assert "settled" not in kinds(core.tick(T + 400 * MS))


# ---- deadlines of proposals ----


def test_a_proposal_that_never_left_is_not_available_at_its_deadline_and_never_proposed() -> None:
    core = node()
    core.submit(T, 1, [b"a"], T + 10 * MS)
    core.submit(T, 2, [b"b"], T + 2000 * MS)
    assert ("settled", 1, NOT_AVAILABLE) in core.tick(T + 20 * MS)
    core.receive(T + 20 * MS, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    assert short(core.pump(T + 20 * MS))[0][5] == chunk(1, 2, [b"b"])


def test_a_chunk_in_a_masters_own_queue_that_expired_is_not_proposed() -> None:
    core = master(window=1)
    core.submit(T, 1, [b"fills the window"], T + 2000 * MS)
    core.pump(T)
    core.submit(T, 2, [b"late"], T + 10 * MS)
    core.pump(T)
    assert ("settled", 2, NOT_AVAILABLE) in core.tick(T + 20 * MS)
    core.durable(T + 20 * MS, 3)
    core.receive(T + 20 * MS, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1))
    assert "accept" not in kinds(core.pump(T + 20 * MS))


@pytest.mark.parametrize("where", ["proposed", "forwarded"])
def test_a_proposal_under_way_is_unknown_at_its_deadline(where: str) -> None:
    core = master() if where == "proposed" else follower()
    core.submit(T, 1, [b"a"], T + 10 * MS)
    assert len(core.pump(T)) > 0
    assert ("settled", 1, UNKNOWN) in core.tick(T + 20 * MS)


def test_a_chosen_proposal_is_not_settled_any_more() -> None:
    core = master()
    core.submit(T, 1, [b"a"], T + 10 * MS)
    core.pump(T)
    core.durable(T, 3)
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1))
    assert [e for e in core.tick(T + 20 * MS) if e[0] == "settled"] == []


# ---- window, batches, alpha ----


def test_the_window_bounds_instances_in_flight_and_what_waits_is_packed() -> None:
    core = master(window=2)
    for seq in range(1, 6):
        core.submit(T, seq, [b"%d" % seq], T + 2000 * MS)
        core.pump(T)
    assert core.state()["next"] == 3
    core.durable(T, 99)
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1))
    found = short(core.pump(T))
    assert kinds(core.pump(T)) == []
    assert [(e[0], e[5]) for e in found if e[0] == "log"] == [
        ("log", chunk(1, 3, [b"3"]) + chunk(1, 4, [b"4"]) + chunk(1, 5, [b"5"]))]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "batches"),
    [({"batch_values": 3}, [[1], [2, 3]]), ({"batch_bytes": 80}, [[1], [2, 3]]), ({"batch_values": 1}, [[1], [2]])],
)
def test_batch_limits(limits: dict[str, Any], batches: list[list[int]]) -> None:
    """Chunks of 1, 1 and 2 values wait behind a full window; a chunk above the limit goes by itself."""
    core = master(window=1, **limits)
    core.submit(T, 1, [b"a", b"b", b"c", b"d"], T + 2000 * MS)
    for seq in (2, 3, 4):
        core.submit(T, seq, [b"e"] if seq < 4 else [b"f", b"g"], T + 2000 * MS)
    found = []
    for instance in (1, 2):
        logs = [e for e in short(core.pump(T)) if e[0] == "log"]
        assert len(logs) == 1
        assert isinstance(logs[0][5], bytes)
        at, seqs = 0, []
        while at < len(logs[0][5]):
            seqs.append(int.from_bytes(logs[0][5][at + 16 : at + 24], "little"))
            at += 32 + int.from_bytes(logs[0][5][at : at + 4], "little")
        found.append(seqs)
        core.durable(T, 99)
        core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=instance, last=instance))
    assert found == batches


def test_nothing_is_proposed_alpha_instances_above_what_is_chosen() -> None:
    core = candidate()
    core.receive(
        T, frame(PROMISE_VALUE, 2, ballot=ballot(1, 1), accepted=(1, 0, 0, 0), instance=200, attempt=1, data=X)
    )
    core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1, count=1))
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    logs = [e for e in core.pump(T) if e[0] == "log"]
    assert [e[3] for e in logs] == list(range(ALPHA))
    core.durable(T, 999)
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=9))
    assert [e[3] for e in core.pump(T) if e[0] == "log"] == list(range(ALPHA, ALPHA + 10))
