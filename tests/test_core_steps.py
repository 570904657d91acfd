"""One test per transition, acceptor and election: the complete list of effects, with what each waits for."""

from __future__ import annotations

import pytest

from frames import (
    ACCEPT,
    HEARTBEAT,
    LEARNED,
    MASTER,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE,
    PROMISE_VALUE,
    VALUE,
    ballot,
    chain,
    frame,
    short,
    takeover,
)
from steps import ALPHA, MS, RING, Effects, T, X, Y, Z, candidate, follower, kinds, master, node

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
    assert kinds(core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=ALPHA - 1, data=X))) == [
        "log", "accepted", "master"]  # fmt: skip
    assert core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=ALPHA, data=X)) == []
    assert core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=RING, data=X)) == []
    assert [a[0] for a in core.state()["accepted"]] == [ALPHA - 1]


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
    for peer, instance, accepted, data in [
        (2, 0, ballot(2, 2), X),
        (3, 0, ballot(3, 3), Z),
        (2, 2, ballot(4, 2), Y),
        (3, 2, ballot(1, 3), Z),
    ]:
        core.receive(
            T, frame(PROMISE_VALUE, peer, ballot=mine, accepted=accepted, instance=instance, attempt=1, data=data)
        )
    core.receive(T, frame(PROMISE, 2, ballot=mine, attempt=1, count=2))
    core.receive(T, frame(PROMISE, 3, ballot=mine, attempt=1, count=2))
    found = short(core.pump(T))
    values = [(0, (1, 1), Z), (1, (0, 0), b""), (2, (1, 1), Y), (3, (0, MASTER), takeover(1))]
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
