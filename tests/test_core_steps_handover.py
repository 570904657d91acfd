"""One test per transition of handing over, and of priorities: the complete list of effects, with what each waits for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from frames import HEARTBEAT, PREPARE, PREVOTE_REPLY, TRANSFER, ballot, chain, chunk, frame, short
from leading import ELECTION, END, HEART, LEASE, VALUES, beat, bound, choose, leased, reply, told
from paxos._stepping import Core
from steps import MS, T, kinds, master, node

# ---- handing over ----


def fit(core: Core, now: int, priority: int = 1) -> Core:
    """Node 2 could take over."""
    reply(core, now, 2, beat(core, now), core.state()["mastership"][2], priority)
    return core


def test_a_transfer_waits_for_what_is_in_flight_and_then_tells() -> None:
    core = fit(master(), T + HEART)
    now = T + HEART
    core.submit(now, 1, [b"a"], T + 5000 * MS)
    assert kinds(core.pump(now)) == ["accept", "log"]
    assert core.transfer(now, 2) == (True, [])
    assert core.pump(now) == []
    core.submit(now, 2, [b"b"], T + 5000 * MS)
    assert core.pump(now) == []  # what comes now waits
    choose(core, now)
    assert short(core.pump(now)) == [("send", "transfer", [2], 1, {"ballot": (1, 1), "n": 2}, b"")]
    assert core.pump(now) == []
    assert core.state()["queued"] == 1
    # The other one stands: what waits goes to it as soon as it has taken over.
    found = core.receive(
        now + MS, frame(PREPARE, 2, chosen=2, chain=core.state()["chain"], ballot=ballot(2, 2), first=2)
    )
    assert kinds(found) == ["master", "log", "promise"]
    core.receive(now + 2 * MS, frame(HEARTBEAT, 2, chosen=2, chain=core.state()["chain"], ballot=ballot(2, 2)))
    assert short(core.pump(now + 2 * MS)) == [
        ("send", "forward", [2], 0, {"ballot": (2, 2), "boot": 1, "count": 1, "n": 2}, chunk(1, 2, [b"b"])),
    ]


def test_who_has_not_taken_over_in_time_was_asked_in_vain() -> None:
    core = fit(master(), T + HEART)
    assert core.transfer(T + HEART, 2) == (True, [])
    assert kinds(core.pump(T + HEART)) == ["transfer"]
    core.submit(T + HEART, 1, [b"a"], T + 5000 * MS)
    assert core.pump(T + HEART) == []
    assert "master" not in kinds(core.tick(T + HEART + 300 * MS))
    assert kinds(core.pump(T + HEART + 300 * MS)) == ["accept", "log"]
    # From then on leases are wanted: this ballot has given its own away for good.
    core.lease(T + HEART + 300 * MS, LEASE)
    core.pump(T + HEART + 300 * MS)
    choose(core, T + HEART + 300 * MS)
    assert kinds(core.tick(T + HEART + 301 * MS)) == ["master", "prevote"]


def test_where_there_are_leases_the_one_who_asked_in_vain_takes_a_new_ballot() -> None:
    core = fit(leased(), T + HEART)
    assert core.state()["lease_until"] > T
    assert core.transfer(T + HEART, 2) == (True, [])
    assert core.state()["lease_until"] == 0  # before anybody is told
    assert kinds(core.pump(T + HEART)) == ["transfer"]
    assert short(core.tick(T + HEART + 300 * MS)) == [
        ("master", 0, 0, False),
        ("send", "prevote", [2, 3], 0, {"ballot": (2, 1), "n": 2}, b""),
    ]


def test_a_lease_that_was_given_up_for_nothing_is_taken_up_again() -> None:
    core = fit(leased(), T + HEART)
    now = T + HEART
    until = core.state()["lease_until"]
    core.submit(now, 1, [b"a"], T + 5000 * MS)
    core.pump(now)
    assert core.transfer(now, 2)[0]
    assert core.state()["lease_until"] == 0
    fit(core, now + 250 * MS)
    core.tick(now + 300 * MS)  # what is in flight is not chosen; so nobody was told
    assert core.state()["role"] == "master"
    assert core.state()["lease_until"] == until + 250 * MS
    # ... but not where another was told before.
    core = fit(leased(), now)
    assert core.transfer(now, 2)[0]
    assert kinds(core.pump(now)) == ["transfer"]
    core.submit(now, 1, [b"a"], T + 5000 * MS)
    reply(core, now, 3, beat(core, now + HEART), LEASE)
    assert core.transfer(now, 3)[0]
    assert "master" in kinds(core.tick(now + HEART + 300 * MS))


def test_who_is_told_to_take_over_stands_at_once_and_names_the_ballot_that_was_released() -> None:
    core = bound()
    assert short(core.receive(T + 2 * MS, frame(TRANSFER, 2, chosen=2, chain=chain(VALUES), ballot=ballot(1, 2)))) == [
        ("master", 0, 0, False),
        ("log", 4, "promise", 0, {"ballot": (2, 1)}, b""),
        ("send", "prepare", [2, 3], 4, {"ballot": (2, 1), "released": (1, 2), "first": 2, "attempt": 1, "n": 2}, b""),
    ]
    # In vain; the next time it stands by itself, and nobody has released anything for that.
    later = END + 2 * ELECTION
    core.tick(later)
    core.receive(later, frame(PREVOTE_REPLY, 3, ballot=ballot(3, 1), granted=1))
    core.durable(later, core.state()["logged"])
    found = short(core.tick(later + 100 * MS))
    assert found == [("send", "prepare", [2, 3], 5, {"ballot": (3, 1), "first": 2, "attempt": 2, "n": 2}, b"")]


@pytest.mark.parametrize(
    ("by", "of"),
    [(2, ballot(2, 2)), (3, ballot(1, 2)), (3, ballot(1, 3))],
    ids=["another ballot", "not his", "no master"],
)
def test_only_the_present_master_hands_over(by: int, of: tuple[int, int, int, int]) -> None:
    assert bound().receive(T + 2 * MS, frame(TRANSFER, by, chosen=2, chain=chain(VALUES), ballot=of)) == []


def test_who_leads_already_or_must_not_is_told_in_vain() -> None:
    core = bound(priority=0)
    assert core.receive(T + 2 * MS, frame(TRANSFER, 2, chosen=2, chain=chain(VALUES), ballot=ballot(1, 2))) == []
    core = bound()
    core.resign(T + MS, False)
    assert core.receive(T + 2 * MS, frame(TRANSFER, 2, chosen=2, chain=chain(VALUES), ballot=ballot(1, 2))) == []


def test_it_is_handed_only_to_somebody_who_can_take_over() -> None:
    core = fit(master(), T + HEART)
    assert core.transfer(T + HEART, 3) == (False, [])  # of which nothing is known but that it may be there
    assert core.transfer(T + HEART, 1) == (False, [])
    assert core.transfer(T + HEART, 9) == (False, [])
    core.peer(T + HEART, 1, False)
    assert core.transfer(T + HEART, 2) == (False, [])
    core.peer(T + HEART, 1, True)
    assert core.transfer(T + HEART + 300 * MS, 2) == (False, [])  # not heard for an election's time
    assert told().transfer(T, 2) == (False, [])
    assert fit(master(), T + HEART, priority=0).transfer(T + HEART, 2) == (False, [])


def test_who_resigns_tells_the_one_that_suits_best_whatever_is_in_flight() -> None:
    core = master(5)
    asked = beat(core, T + HEART)
    for peer, priority, chosen in ((2, 1, 1), (3, 2, 1), (4, 2, 0), (5, 0, 1)):
        known = {} if chosen else {"chosen": 0, "chain": 0}
        reply(core, T + HEART, peer, asked, priority=priority, **known)
    core.submit(T + HEART, 1, [b"a"], T + 5000 * MS)
    core.pump(T + HEART)
    assert short(core.resign(T + HEART, False)) == [
        ("send", "transfer", [3], 1, {"ballot": (1, 1), "n": 1}, b""),
        ("master", 0, 0, False),
    ]
    assert core.transfer(T + HEART) == (False, [])
    assert core.state()["role"] == "follower"


def test_to_hand_over_to_nobody_in_particular_is_to_hand_over_to_the_best() -> None:
    core = fit(master(), T + HEART)
    assert core.transfer(T + HEART) == (True, [])
    assert short(core.pump(T + HEART)) == [("send", "transfer", [2], 1, {"ballot": (1, 1), "n": 1}, b"")]


# ---- priorities ----


def test_a_master_hands_over_to_a_higher_priority_that_was_level_for_a_while() -> None:
    core = master()
    now = T
    while now < T + HEART + 2 * ELECTION:
        now += HEART
        reply(core, now, 2, beat(core, now), priority=2)
        assert core.pump(now) == [], now - T
    now += HEART
    beat(core, now)
    assert short(core.pump(now)) == [("send", "transfer", [2], 1, {"ballot": (1, 1), "n": 1}, b"")]


def test_each_further_time_it_waits_for_twice_as_long() -> None:
    """That node may be one that few can hear, and hand over again; or it does not take over, as here."""
    core = master()
    now, told = T, []
    while len(told) < 4:
        now += HEART
        reply(core, now, 2, beat(core, now), priority=2)
        if "transfer" in kinds(core.pump(now)):
            told.append(now)
    waits = [later - earlier for earlier, later in pairwise(told)]
    # Each begins when the last hand-over has been given up.
    assert [round((wait - ELECTION // 2) / (2 * ELECTION)) for wait in waits] == [2, 4, 8]


def test_the_while_begins_anew_when_it_was_not_there() -> None:
    core = master()
    now, turn = T, 0
    while True:
        now, turn = now + HEART, turn + 1
        reply(core, now, 2, beat(core, now), priority=1 if turn == 20 else 2)
        if core.pump(now):
            break
    # It is looked at with each heartbeat, before that is answered.
    assert (turn - 22) * HEART == 2 * ELECTION


def test_an_equal_priority_changes_nothing() -> None:
    core = master()
    for now in range(T + HEART, T + 5 * ELECTION, HEART):
        reply(core, now, 2, beat(core, now), priority=1)
        assert core.pump(now) == []


def test_priority_0_never_stands() -> None:
    core = node(priority=0)
    for _ in range(10):
        assert core.tick(core.deadline()) == []
    assert core.state()["role"] == "follower"
    assert short(core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1, sent_at=77)))[-1] == (
        "send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "sent_at": 77}, b"")  # fmt: skip
    # It votes like any other.
    assert kinds(core.receive(T + 5000 * MS, frame(PREPARE, 3, ballot=ballot(5, 3)))) == ["log", "promise"]
