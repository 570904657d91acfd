"""One test per transition of the core: the complete list of effects, with what each waits for (design, section 6)."""

from __future__ import annotations

import struct

import pytest
from frames import (
    ACCEPT,
    ACCEPTED,
    FORWARD,
    FORWARD_REFUSED,
    HEARTBEAT,
    LEARN,
    LEARNED,
    NOT_AVAILABLE,
    OVERLOADED,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE,
    PROMISE_VALUE,
    RECORD_ACCEPT,
    RECORD_LEARN,
    RECORD_PROMISE,
    RECORD_WATERMARK,
    REJECT,
    UNKNOWN,
    VALUE,
    ballot,
    chain,
    chunk,
    frame,
    members,
    record,
    short,
)

from paxos._core import Core

MS = 1_000_000
T = 1000 * MS
ALPHA, RING = 64, 1024

Effects = list[tuple[object, ...]]


def node(number: int = 1, count: int = 3, **options: int) -> Core:
    core = Core(number, members(count), **options)
    assert core.start(T) == []
    return core


def candidate(count: int = 3, core: Core | None = None, attempt: int = 1) -> Core:
    """Node 1 with ballot (1, 1) durable and Prepare out."""
    core = core or node(count=count)
    core.tick(core.deadline())
    for peer in range(2, count // 2 + 2):
        core.receive(T, frame(PREVOTE_REPLY, peer, ballot=ballot(1, 1), granted=1))
    assert core.state()["role"] == "preparing"
    core.durable(T, core.state()["logged"])
    return core


def master(count: int = 3, takeover: bool = True, **options: int) -> Core:
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


def follower(number: int = 1, of: int = 2, settled: int = 1, **options: int) -> Core:
    """A follower of the master of ballot (1, of)."""
    core = node(number, **options)
    core.receive(T, frame(HEARTBEAT, of, ballot=ballot(1, of), settled=settled))
    return core


X, Y, Z = chunk(2, 1, [b"x"]), chunk(2, 2, [b"y"]), chunk(3, 1, [b"z"])


def kinds(effects: Effects) -> list[object]:
    return [effect[1] if effect[0] in ("send",) else effect[0] for effect in short(effects)]


# ---- acceptor: prepare ----


def test_prepare_of_a_higher_ballot_is_promised_once_durable() -> None:
    core = node()
    assert short(core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2), attempt=7))) == [
        ("log", 1, "promise", 0, {"ballot": (3, 2)}, b""),
        ("send", "promise", [2], 1, {"ballot": (3, 2), "attempt": 7}, b""),
    ]
    assert core.state()["promised"] == ballot(3, 2)


def test_prepare_of_the_same_ballot_is_answered_again_without_a_record() -> None:
    core = node()
    core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2), attempt=7))
    assert short(core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2), attempt=8))) == [
        ("send", "promise", [2], 1, {"ballot": (3, 2), "attempt": 8}, b""),
    ]


@pytest.mark.parametrize("lower", [ballot(2, 3), ballot(3, 1)])
def test_prepare_of_a_lower_ballot_is_rejected(lower: tuple[int, int, int, int]) -> None:
    core = node(3) if lower[1] == 1 else node(1)
    core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2)))
    assert short(core.receive(T, frame(PREPARE, lower[1], ballot=lower))) == [
        ("send", "reject", [lower[1]], 1, {"ballot": lower[:2], "promised": (3, 2)}, b""),
    ]
    assert core.state()["promised"] == ballot(3, 2)


def test_promise_reports_what_was_accepted_after_it_is_durable() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=1, data=X))
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=4, data=Y))
    assert short(core.receive(T, frame(PREPARE, 3, ballot=ballot(2, 3), attempt=1))) == [
        ("log", 3, "promise", 0, {"ballot": (2, 3)}, b""),
        ("send", "promise_value", [3], 3,
         {"ballot": (2, 3), "accepted": (1, 2), "instance": 1, "attempt": 1, "value": (1, 1)}, X),
        ("send", "promise_value", [3], 3,
         {"ballot": (2, 3), "accepted": (1, 2), "instance": 4, "attempt": 1, "value": (1, 1)}, Y),
        ("send", "promise", [3], 3, {"ballot": (2, 3), "attempt": 1, "count": 2}, b""),
    ]  # fmt: skip
    # From an instance on: only what stands there is reported.
    assert short(core.receive(T, frame(PREPARE, 3, ballot=ballot(2, 3), attempt=2, first=2)))[-1] == (
        "send", "promise", [3], 3, {"ballot": (2, 3), "attempt": 2, "count": 1}, b"")  # fmt: skip


def test_promise_says_how_far_the_acceptor_knows_chosen() -> None:
    core = follower()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=0, data=X))
    core.receive(T, frame(HEARTBEAT, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 2)))
    assert short(core.receive(T, frame(PREPARE, 3, ballot=ballot(2, 3)))) == [
        ("log", 2, "promise", 0, {"ballot": (2, 3)}, b""),
        ("send", "promise", [3], 2, {"ballot": (2, 3), "n": 1}, b""),
    ]


def test_a_proposer_speaks_for_itself_only() -> None:
    core = node()
    for kind in (PREPARE, ACCEPT, HEARTBEAT):
        assert core.receive(T, frame(kind, 3, ballot=ballot(3, 2))) == []
    assert core.receive(T, frame(PREPARE, 9, ballot=ballot(3, 9))) == []
    assert core.receive(T, frame(PREPARE, 1, ballot=ballot(3, 1))) == []
    assert core.state()["refused"] == 5
    assert core.state()["promised"] == (0, 0, 0, 0)


# ---- acceptor: accept ----


def test_accept_of_a_higher_ballot_is_one_record_and_implies_the_promise() -> None:
    core = node()
    assert short(core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=3, data=X))) == [
        ("log", 1, "accept", 3, {"ballot": (1, 2), "value": (1, 1)}, X),
        ("send", "accepted", [2], 1, {"ballot": (1, 2), "first": 3, "last": 3}, b""),
        ("master", 2, 1, False),
    ]
    assert core.state()["promised"] == ballot(1, 2)


def test_accept_of_the_promised_ballot() -> None:
    core = node()
    core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2)))
    assert short(core.receive(T, frame(ACCEPT, 2, ballot=ballot(3, 2), data=X))) == [
        ("log", 2, "accept", 0, {"ballot": (3, 2), "value": (1, 1)}, X),
        ("send", "accepted", [2], 2, {"ballot": (3, 2)}, b""),
        ("master", 2, 3, False),
    ]


def test_accept_of_a_lower_ballot_is_rejected() -> None:
    core = node()
    core.receive(T, frame(PREPARE, 2, ballot=ballot(3, 2)))
    assert short(core.receive(T, frame(ACCEPT, 3, ballot=ballot(2, 3), data=X))) == [
        ("send", "reject", [3], 1, {"ballot": (2, 3), "promised": (3, 2)}, b""),
    ]
    assert core.state()["accepted"] == []


def test_accept_once_more_waits_for_the_same_record() -> None:
    core = node()
    again = frame(ACCEPT, 2, ballot=ballot(1, 2), data=X)
    core.receive(T, again)
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=1, data=Y))
    assert short(core.receive(T, again)) == [("send", "accepted", [2], 1, {"ballot": (1, 2)}, b"")]


def test_a_second_value_under_one_ballot_gets_no_vote() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), data=X))
    assert core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), data=Y)) == []


def test_a_higher_ballot_replaces_what_was_accepted() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), data=X))
    core.receive(T, frame(ACCEPT, 3, ballot=ballot(2, 3), data=Z))
    assert core.state()["accepted"] == [(0, ballot(2, 3), Z)]


def test_accept_at_a_chosen_instance_is_answered_with_the_value() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), data=X))
    core.receive(T, frame(HEARTBEAT, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 2)))
    assert core.state()["chosen"] == 1
    assert short(core.receive(T, frame(ACCEPT, 3, ballot=ballot(2, 3), data=Z))) == [
        ("read", 0b100, 0, 1, 0),
        ("master", 3, 2, False),
    ]


def test_accept_out_of_the_ring_gets_no_vote() -> None:
    core = node()
    assert kinds(core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=RING - 1, data=X))) == [
        "log", "accepted", "master"]  # fmt: skip
    assert core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=RING, data=X)) == []
    assert [a[0] for a in core.state()["accepted"]] == [RING - 1]


# ---- election ----


def test_a_follower_asks_before_it_raises_a_ballot() -> None:
    core = node()
    assert short(core.tick(core.deadline())) == [("send", "prevote", [2, 3], 0, {"ballot": (1, 1)}, b"")]
    assert core.state()["role"] == "asking"
    assert core.state()["promised"] == (0, 0, 0, 0)
    assert core.receive(T, frame(PREVOTE_REPLY, 2, ballot=ballot(1, 1), granted=0)) == []
    # An answer to another question, or given twice, is not one more.
    assert core.receive(T, frame(PREVOTE_REPLY, 3, ballot=ballot(9, 1), granted=1)) == []
    assert short(core.receive(T, frame(PREVOTE_REPLY, 3, ballot=ballot(1, 1), granted=1))) == [
        ("log", 1, "promise", 0, {"ballot": (1, 1)}, b""),
        ("send", "prepare", [2, 3], 1, {"ballot": (1, 1), "attempt": 1}, b""),
    ]


def test_a_grant_twice_is_one_grant() -> None:
    core = node(count=5)
    core.tick(core.deadline())
    grant = frame(PREVOTE_REPLY, 2, ballot=ballot(1, 1), granted=1)
    assert core.receive(T, grant) == []
    assert core.receive(T, grant) == []
    assert core.state()["role"] == "asking"


def test_prevote_is_granted_unless_a_master_is_heard() -> None:
    core = node()
    assert short(core.receive(T, frame(PREVOTE, 3, ballot=ballot(4, 3)))) == [
        ("send", "prevote_reply", [3], 0, {"ballot": (4, 3), "granted": 1}, b""),
    ]
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    assert short(core.receive(T, frame(PREVOTE, 3, ballot=ballot(4, 3)))) == [
        ("send", "prevote_reply", [3], 0, {"ballot": (4, 3)}, b""),
    ]
    assert short(core.receive(T + 301 * MS, frame(PREVOTE, 3, ballot=ballot(4, 3)))) == [
        ("send", "prevote_reply", [3], 0, {"ballot": (4, 3), "granted": 1}, b""),
    ]


def test_a_master_refuses_a_prevote_and_makes_itself_heard() -> None:
    core = master()
    assert short(core.receive(T, frame(PREVOTE, 3, ballot=ballot(4, 3))))[:2] == [
        ("send", "prevote_reply", [3], 0, {"ballot": (4, 3), "promised": (1, 1), "n": 1}, b""),
        ("send", "heartbeat", [3], 1, {"ballot": (1, 1), "settled": 1, "n": 1}, b""),
    ]


def test_a_ballot_is_above_all_that_was_heard_of() -> None:
    core = node()
    core.receive(T, frame(PREPARE, 3, ballot=ballot(6, 3)))
    core.tick(core.deadline())
    core.receive(T, frame(PREVOTE_REPLY, 2, ballot=ballot(7, 1), promised=ballot(8, 2), granted=0))
    effects = short(core.receive(T, frame(PREVOTE_REPLY, 3, ballot=ballot(7, 1), promised=ballot(6, 3), granted=1)))
    assert effects[0] == ("log", 2, "promise", 0, {"ballot": (9, 1)}, b"")


def test_the_own_promise_counts_when_it_is_durable() -> None:
    core = node(count=3)
    core.tick(core.deadline())
    core.receive(T, frame(PREVOTE_REPLY, 2, ballot=ballot(1, 1), granted=1))
    # By the rules nobody can have seen Prepare yet; the promise alone is no quorum.
    assert core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1)) == []
    assert short(core.durable(T, 1)) == [("master", 1, 1, False)]


def test_a_promise_twice_is_one_promise() -> None:
    core = candidate(5)
    promise = frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1)
    assert core.receive(T, promise) == []
    assert core.receive(T, promise) == []
    assert core.state()["role"] == "preparing"
    assert short(core.receive(T, frame(PROMISE, 3, ballot=ballot(1, 1), attempt=1))) == [("master", 1, 1, False)]


def test_a_promise_counts_when_all_its_reports_are_in() -> None:
    core = candidate()
    report = frame(PROMISE_VALUE, 2, ballot=ballot(1, 1), accepted=(1, 0, 0, 0), instance=0, attempt=1, data=X)
    other = frame(PROMISE_VALUE, 2, ballot=ballot(1, 1), accepted=(1, 0, 0, 0), instance=1, attempt=1, data=Y)
    assert core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1, count=2)) == []
    assert core.receive(T, report) == []
    assert core.receive(T, report) == []
    assert core.state()["role"] == "preparing"
    assert short(core.receive(T, other)) == [("master", 1, 1, False)]


def test_promises_of_another_ballot_or_attempt_do_not_count() -> None:
    core = candidate()
    assert core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=2)) == []
    assert core.receive(T, frame(PROMISE, 2, ballot=ballot(2, 1), attempt=1)) == []
    assert core.state()["role"] == "preparing"


def test_prepare_is_sent_again_to_those_who_have_not_promised_in_the_same_attempt() -> None:
    core = candidate(5)
    core.receive(T, frame(PROMISE, 3, ballot=ballot(1, 1), attempt=1))
    assert short(core.tick(core.deadline())) == [
        ("send", "prepare", [2, 4, 5], 1, {"ballot": (1, 1), "attempt": 1}, b"")]  # fmt: skip


def test_take_over_proposes_the_report_of_the_highest_ballot_and_fills_holes() -> None:
    core = node(count=5)
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(2, 2), instance=0, data=X))
    core.receive(T, frame(PREPARE, 3, ballot=ballot(9, 3)))
    core.tick(core.deadline())
    for peer in (2, 3):
        core.receive(T, frame(PREVOTE_REPLY, peer, ballot=ballot(10, 1), granted=1))
    core.durable(T, core.state()["logged"])
    mine = ballot(10, 1)
    for peer, instance, accepted, data in [(2, 0, ballot(2, 2), X), (3, 0, ballot(3, 3), Z), (2, 2, ballot(4, 2), Y), (3, 2, ballot(1, 3), Z)]:
        core.receive(T, frame(PROMISE_VALUE, peer, ballot=mine, accepted=accepted, instance=instance, attempt=1, data=data))
    core.receive(T, frame(PROMISE, 2, ballot=mine, attempt=1, count=2))
    core.receive(T, frame(PROMISE, 3, ballot=mine, attempt=1, count=2))
    found = short(core.pump(T))
    values = [(0, (1, 1), Z), (1, (0, 0), b""), (2, (1, 1), Y), (3, (0, 0), b"")]
    expected: Effects = []
    for number, (instance, head, data) in enumerate(values, 4):
        fields = {"ballot": (10, 1), "value": head} | ({"instance": instance} if instance else {})
        expected.append(("send", "accept", [2, 3, 4, 5], 3, fields, data))
        expected.append(("log", number, "accept", instance, {"ballot": (10, 1), "value": head}, data))
    assert found == expected


def test_the_own_acceptance_is_a_report_too() -> None:
    core = node()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(5, 2), instance=0, data=X))
    core.tick(core.deadline())
    core.receive(T, frame(PREVOTE_REPLY, 3, ballot=ballot(6, 1), granted=1))
    core.durable(T, 2)
    core.receive(T, frame(PROMISE_VALUE, 3, ballot=ballot(6, 1), accepted=ballot(4, 3), instance=0, attempt=1, data=Z))
    core.receive(T, frame(PROMISE, 3, ballot=ballot(6, 1), attempt=1, count=1))
    assert short(core.pump(T))[0] == (
        "send", "accept", [2, 3], 2, {"ballot": (6, 1), "value": (1, 1)}, X)  # fmt: skip


def test_a_promise_from_an_acceptor_that_knows_more_chosen_first_makes_the_candidate_learn() -> None:
    core = candidate()
    above = frame(PROMISE, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 1), attempt=1)
    assert short(core.receive(T, above)) == [("send", "learn", [2], 0, {"end": 1, "max_bytes": 1 << 20}, b"")]
    assert core.state()["role"] == "preparing"
    learned = frame(LEARNED, 2, chosen=1, chain=chain([(1, X)]), count=1, data=VALUE.pack(len(X), 1, 1, 0) + X)
    assert short(core.receive(T, learned)) == [
        ("log", 2, "learn", 0, {"value": (1, 1)}, X),
        ("chosen", 0, 1, 1, X),
        ("send", "prepare", [2, 3], 1, {"ballot": (1, 1), "first": 1, "attempt": 2, "n": 1}, b""),
    ]
    # The promise of the first attempt is worth nothing any more.
    assert core.receive(T, above) == []
    again = frame(PROMISE, 2, chosen=1, chain=chain([(1, X)]), ballot=ballot(1, 1), attempt=2)
    assert short(core.receive(T, again)) == [("master", 1, 1, False)]
    assert core.state()["next"] == 1


# ---- master: acceptances ----


def test_accept_leaves_before_the_own_write_and_the_own_vote_counts_when_durable() -> None:
    core = master(takeover=False)
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1))) == []  # 2 alone; the own record is not durable
    assert core.state()["chosen"] == 0
    assert short(core.durable(T, 2)) == [
        ("chosen", 0, 0, 0, b""),
        ("master", 1, 1, True),
        ("send", "heartbeat", [2, 3], 1, {"ballot": (1, 1), "settled": 1, "sent_at": T, "n": 1}, b""),
    ]


def test_the_own_write_first_then_one_more_vote() -> None:
    core = master(takeover=False)
    assert core.durable(T, 2) == []
    assert kinds(core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1)))) == ["chosen", "master", "heartbeat"]


def test_the_others_are_a_quorum_without_the_own_write() -> None:
    core = master(takeover=False)
    assert core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1))) == []
    assert kinds(core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1)))) == ["chosen", "master", "heartbeat"]
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
    assert core.tick(T + 600 * MS)[0] == ("master", 0, 0, False)
    assert core.state()["role"] == "follower"


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
        ("send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "sent_at": 77}, b""),
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
        ("send", "forward_refused", [2], 0, {"ballot": (1, 1), "boot": 1, "reason": OVERLOADED, "count": 1, "n": 1}, struct.pack("<Q", 1)),
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
        ("send", "forward_refused", [2], 0, {"ballot": (1, 1), "boot": 1, "reason": NOT_AVAILABLE, "count": 1, "n": 1}, struct.pack("<Q", 1)),
    ]
    assert core.receive(T, forward) == []


def test_stepping_down_hands_the_chunks_of_others_back() -> None:
    core = master(window=1)
    core.submit(T, 1, [b"mine"], T + 2000 * MS)
    core.pump(T)  # fills the window
    core.submit(T, 2, [b"mine too"], T + 2000 * MS)
    core.receive(T, frame(FORWARD, 2, ballot=ballot(1, 1), boot=1, count=1, data=X))
    core.receive(T, frame(FORWARD, 3, ballot=ballot(1, 1), boot=1, count=1, data=Z))
    refused = {"ballot": (1, 1), "boot": 1, "reason": NOT_AVAILABLE, "count": 1, "n": 1}
    assert short(core.receive(T, frame(REJECT, 2, ballot=ballot(1, 1), promised=ballot(2, 2)))) == [
        ("send", "forward_refused", [2], 0, refused, struct.pack("<Q", 1)),
        ("send", "forward_refused", [3], 0, refused, struct.pack("<Q", 1)),
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
    refusal = frame(FORWARD_REFUSED, 2, ballot=ballot(1, 2), boot=1, reason=NOT_AVAILABLE, count=1, data=struct.pack("<Q", 1))
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
    for boot in (2, 1):
        found = core.receive(T, frame(FORWARD_REFUSED, 2, ballot=ballot(1, 2), boot=boot, reason=OVERLOADED, count=1,
                                      data=struct.pack("<Q", 1)))  # fmt: skip
        assert found == ([("settled", 1, OVERLOADED)] if boot == 1 else [])


def test_what_was_forwarded_under_an_older_ballot_is_unknown_once_the_new_master_has_settled() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    assert core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3))) == [("master", 3, 2, False)]
    assert core.receive(T, frame(HEARTBEAT, 3, ballot=ballot(2, 3), settled=1))[0] == ("master", 3, 2, True)
    # Its take-over ends below instance 1, which is not applied here yet.
    assert core.state()["chosen"] == 0
    learned = frame(LEARNED, 3, chosen=1, chain=chain([(0, b"")]), count=1, data=VALUE.pack(0, 0, 0, 0))
    assert core.receive(T, learned)[-1] == ("settled", 1, UNKNOWN)


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
def test_batch_limits(limits: dict[str, int], batches: list[list[int]]) -> None:
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
    core.receive(T, frame(PROMISE_VALUE, 2, ballot=ballot(1, 1), accepted=(1, 0, 0, 0), instance=200, attempt=1, data=X))
    core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1, count=1))
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    logs = [e for e in core.pump(T) if e[0] == "log"]
    assert [e[3] for e in logs] == list(range(ALPHA))
    core.durable(T, 999)
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=9))
    assert [e[3] for e in core.pump(T) if e[0] == "log"] == list(range(ALPHA, ALPHA + 10))


# ---- learning ----


def test_a_node_that_is_behind_asks_whoever_is_ahead_once() -> None:
    core = node()
    ahead = frame(PREVOTE_REPLY, 3, chosen=5, chain=99)
    assert short(core.receive(T, ahead)) == [("send", "learn", [3], 0, {"end": 5, "max_bytes": 1 << 20}, b"")]
    assert core.receive(T, ahead) == []
    # No answer: the next one in turn is asked.
    assert [e for e in short(core.tick(T + 126 * MS)) if e[1] == "learn"] == [
        ("send", "learn", [2], 0, {"end": 5, "max_bytes": 1 << 20}, b"")]  # fmt: skip


def test_learned_values_are_logged_chosen_and_asked_on() -> None:
    core = node()
    core.receive(T, frame(PREVOTE_REPLY, 3, chosen=3, chain=99))
    two = VALUE.pack(len(X), 1, 1, 0) + X + VALUE.pack(0, 0, 0, 0)
    learned = frame(LEARNED, 3, chosen=3, chain=99, count=2, data=two)
    assert short(core.receive(T, learned)) == [
        ("log", 1, "learn", 0, {"value": (1, 1)}, X),
        ("chosen", 0, 1, 1, X),
        ("log", 2, "learn", 1, {"chosen": 1, "value": (0, 0)}, b""),
        ("chosen", 1, 0, 0, b""),
        ("send", "learn", [3], 0, {"first": 2, "end": 3, "max_bytes": 1 << 20, "n": 2}, b""),
    ]
    assert core.state()["chain"] == chain([(1, X), (0, b"")])
    # A copy changes nothing, and does not ask once more.
    assert core.receive(T, learned) == []


def test_a_gap_is_not_filled_with_what_stands_above_it() -> None:
    core = node()
    assert kinds(core.receive(T, frame(LEARNED, 3, chosen=3, first=1, count=1, data=VALUE.pack(0, 0, 0, 0)))) == ["learn"]
    assert core.state()["chosen"] == 0


def test_nobody_gives_what_he_does_not_know_chosen() -> None:
    core = node()
    assert core.receive(T, frame(LEARNED, 3, chosen=0, count=1, data=VALUE.pack(0, 0, 0, 0))) == []
    assert core.state()["refused"] == 1


def test_serving_reads_from_the_log_up_to_the_own_watermark() -> None:
    core = master()
    assert core.receive(T, frame(LEARN, 2, first=0, end=9, max_bytes=1000)) == [("read", 0b10, 0, 1, 1000)]
    assert core.receive(T, frame(LEARN, 2, first=1, end=9, max_bytes=1000)) == []
    assert core.receive(T, frame(LEARN, 2, first=0, end=0, max_bytes=1000)) == []


def test_another_chain_checksum_at_the_same_watermark_is_an_alarm_once() -> None:
    core = master()
    good = frame(PREVOTE_REPLY, 2, chosen=1, chain=chain([(0, b"")]))
    bad = frame(PREVOTE_REPLY, 2, chosen=1, chain=chain([(0, b"")]) ^ 1)
    assert core.receive(T, good) == []
    assert core.receive(T, bad) == [("diverged", 1, 2)]
    assert core.receive(T, bad) == []


# ---- log ----


def test_seal_records_the_watermark() -> None:
    core = master()
    assert short(core.seal()) == [("log", 3, "watermark", 0, {"chosen": 1}, b"")]


def restored(*records: tuple[int, int, bytes]) -> Core:
    core = Core(1, members(3), boot=2)
    for kind, instance, body in records:
        assert core.restore(kind, instance, body)
    return core


def test_restore_a_promise_and_never_use_its_round_again() -> None:
    core = restored((RECORD_PROMISE, 0, record(RECORD_PROMISE, ballot=ballot(5, 1))),
                    (RECORD_PROMISE, 0, record(RECORD_PROMISE, ballot=ballot(4, 2))))  # fmt: skip
    assert core.state()["promised"] == ballot(5, 1), "the highest counts, not the last"
    core.start(T)
    assert short(core.tick(core.deadline()))[0][4] == {"ballot": (6, 1)}
    assert short(core.receive(T, frame(PREPARE, 2, ballot=ballot(4, 2))))[0][1] == "reject"


def test_restore_acceptances_and_report_them() -> None:
    core = restored(
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(2, 2), data=X)),
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 3), data=Z)),
    )
    assert core.state()["accepted"] == [(0, ballot(2, 2), X)], "the highest ballot wins, not the last record (rule 14)"
    core.start(T)
    assert kinds(core.receive(T, frame(PREPARE, 3, ballot=ballot(3, 3)))) == ["log", "promise_value", "promise"]
    again = short(core.receive(T, frame(ACCEPT, 3, ballot=ballot(3, 3), data=X)))
    assert again[0][:4] == ("log", 2, "accept", 0)


def test_an_acceptance_implies_its_promise_after_a_restart_too() -> None:
    core = restored((RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(7, 2), data=X)))
    assert core.state()["promised"] == ballot(7, 2)


def test_restore_the_watermark_with_later_records() -> None:
    one = chain([(1, X)])
    core = restored(
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X)),
        (RECORD_ACCEPT, 1, record(RECORD_ACCEPT, ballot=ballot(1, 2), chosen=1, chain=one, data=Y)),
    )
    assert (core.state()["chosen"], core.state()["chain"]) == (1, one)
    core = restored(
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X)),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=1, chain=one)),
        (RECORD_LEARN, 1, record(RECORD_LEARN, chosen=1, chain=one, data=Y)),
    )
    assert (core.state()["chosen"], core.state()["chain"]) == (2, chain([(1, X), (1, Y)]))
    assert core.state()["accepted"] == []


def test_a_fetched_value_replaces_another_accepted_one_after_a_restart() -> None:
    core = restored(
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X)),
        (RECORD_LEARN, 0, record(RECORD_LEARN, data=Z)),
    )
    assert core.state()["chain"] == chain([(1, Z)])


GOOD = record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X)


@pytest.mark.parametrize(
    ("kind", "instance", "body"),
    [
        (RECORD_PROMISE, 0, record(RECORD_PROMISE, ballot=ballot(1, 2))[:-1]),
        (RECORD_PROMISE, 0, b""),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK) + b"\0"),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=2, chain=chain([(1, X), (0, b"")]))),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=1, chain=chain([(1, X)]) ^ 1)),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=0, chain=1)),
        (RECORD_ACCEPT, 0, GOOD[:-1]),
        (RECORD_ACCEPT, 0, GOOD + b"\0"),
        (RECORD_ACCEPT, 0, GOOD[:40]),
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=(0, 0, 0, 0), data=X)),
        (RECORD_ACCEPT, RING, GOOD),
        (RECORD_ACCEPT, 1, record(RECORD_ACCEPT, ballot=ballot(1, 2), chosen=2, data=X)),
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X, value=(2, 1))),
        (RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(1, 2), data=X, value=(1, 7))),
        (RECORD_LEARN, 0, record(RECORD_LEARN, data=X)[:-1]),
        (RECORD_LEARN, 1, record(RECORD_LEARN, data=X)),
        (RECORD_LEARN, 0, record(RECORD_LEARN, data=X, value=(0, 0))),
        (RECORD_LEARN, 0, b""),
        (1, 0, b""),
        (77, 0, b""),
    ],
)
def test_a_record_that_contradicts_the_log_is_damage(kind: int, instance: int, body: bytes) -> None:
    core = restored((RECORD_ACCEPT, 0, GOOD))
    assert not core.restore(kind, instance, body)


def test_a_watermark_that_goes_back_is_damage() -> None:
    core = restored((RECORD_ACCEPT, 0, GOOD), (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=1, chain=chain([(1, X)]))))
    assert not core.restore(RECORD_WATERMARK, 0, record(RECORD_WATERMARK))
    assert not core.restore(RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(2, 2), chosen=1, chain=chain([(1, X)]), data=X))


# ---- hints of the host ----


def test_a_lost_connection_to_the_master_shortens_the_wait() -> None:
    core = follower()
    before = core.deadline()
    assert core.peer(T, 1, False) == []
    assert core.deadline() < before
    assert core.deadline() <= T + 50 * MS
    assert short(core.receive(T, frame(PREVOTE, 3, ballot=ballot(2, 3))))[0][4] == {"ballot": (2, 3), "granted": 1}


def test_a_peer_that_comes_back_gets_what_is_in_flight() -> None:
    core = master()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    core.pump(T)
    assert [e[1:3] for e in short(core.peer(T, 2, True))] == [("accept", [3]), ("heartbeat", [3])]


def test_a_master_that_comes_back_gets_what_was_forwarded_once_more() -> None:
    core = follower()
    core.submit(T, 1, [b"a"], T + 2000 * MS)
    first = core.pump(T)
    assert core.peer(T, 1, True) == first


def test_bytes_that_are_no_frame_change_nothing() -> None:
    core = node()
    good = frame(PREPARE, 2, ballot=ballot(3, 2))
    for bad in (b"", good[:-1], good + b"\0", good[:20] + b"\xff" + good[21:]):
        with pytest.raises(ValueError, match="not one whole valid frame"):
            core.receive(T, bad)
    assert core.state()["promised"] == (0, 0, 0, 0)
