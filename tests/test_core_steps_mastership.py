"""One test per transition of mastership and leases: the complete list of effects, with what each waits for."""

from __future__ import annotations

import pytest

from frames import (
    ACCEPT,
    ACCEPTED,
    BATCH,
    CHANGE,
    HEARTBEAT_REPLY,
    MASTER,
    OTHER_INCARNATION,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE,
    RECORD_ACCEPT,
    RECORD_BASE,
    RECORD_LEARN,
    RECORD_PROMISE,
    RECORD_WATERMARK,
    TRANSFER,
    ballot,
    chain,
    frame,
    lasting,
    record,
    short,
    takeover,
)
from leading import (
    ELECTION,
    END,
    HEART,
    LEASE,
    PROMISED,
    SHARE,
    VALUES,
    beat,
    bound,
    choose,
    granted,
    heart,
    leased,
    prepare,
    reply,
    told,
)
from paxos._stepping import Core
from steps import MS, T, X, kinds, master, node

# ---- the version ----


def test_a_new_master_says_who_it_is_in_its_first_own_instance_and_that_counts_the_version() -> None:
    core = master(takeover=False)
    core.durable(T, 2)
    assert short(core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))) == [
        ("chosen", 0, MASTER, 0, takeover(1)),
        ("mastership", 1, 1, 0),
        ("master", 1, 1, True),
        ("send", "heartbeat", [2, 3], 1, {"ballot": (1, 1), "settled": 1, "sent_at": T, "n": 1}, b""),
    ]  # fmt: skip
    assert core.state()["mastership"] == (1, 1, 0)


def test_every_node_counts_the_same() -> None:
    core = told([(MASTER, takeover(2)), (BATCH, X), (MASTER, takeover(3))])
    values: list[tuple[int, bytes]] = [(MASTER, takeover(2)), (BATCH, X), (MASTER, takeover(3))]
    assert short(heart(core, T, values=values)) == [
        ("master", 2, 1, True),
        ("chosen", 0, MASTER, 0, takeover(2)),
        ("mastership", 2, 1, 0),
        ("chosen", 1, BATCH, 1, X),
        ("chosen", 2, MASTER, 0, takeover(3)),
        ("mastership", 3, 2, 0),
    ]


THREE: list[tuple[int, bytes]] = [(MASTER, takeover(2)), (MASTER, lasting(2, LEASE)), (MASTER, takeover(3))]


def test_master_version_and_lease_come_back_from_the_log() -> None:
    core = Core(1, [(n, n * 7, n * 11) for n in (1, 2, 3)])
    for instance, (kind, data) in enumerate(THREE):
        assert core.restore(
            RECORD_ACCEPT, instance, record(RECORD_ACCEPT, ballot=ballot(1, 2), value=(0, kind), data=data)
        )
    assert core.restore(RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=3, chain=chain(THREE)))
    assert core.start(T) == []
    assert core.state()["mastership"] == (3, 2, LEASE)


def test_what_the_logs_beginning_has_counted_is_not_counted_again_behind_it() -> None:
    writer = told(THREE)
    heart(writer, T, values=THREE)
    [(_, _, kind, first, body)] = writer.base(T, 1, chain(THREE[:1]))
    assert (kind, first) == (RECORD_BASE, 1)
    core = Core(1, [(n, n * 7, n * 11) for n in (1, 2, 3)])
    assert core.restore_base(1, body)
    assert core.state()["mastership"] == (3, 2, LEASE)
    assert core.restore(RECORD_BASE, 1, body)
    for instance in (1, 2):
        data = record(
            RECORD_LEARN, chosen=instance, chain=chain(THREE[:instance]), value=(0, MASTER), data=THREE[instance][1]
        )
        assert core.restore(RECORD_LEARN, instance, data)
    assert core.state()["mastership"] == (3, 2, LEASE)
    assert core.state()["chosen"] == 3


def test_a_checkpoint_tells_of_the_mastership_and_what_it_has_counted_is_not_counted_again() -> None:
    core = told(THREE)
    assert core.install(T, 1, chain(THREE[:1]), mastership=(3, 2, LEASE, 3))[:2] == [
        ("installed", 1, chain(THREE[:1])),
        ("mastership", 3, 2, LEASE),
    ]
    assert [e for e in heart(core, T, values=THREE) if e[0] in ("chosen", "mastership")] == [
        ("chosen", 1, MASTER, 0, THREE[1][1]),
        ("chosen", 2, MASTER, 0, THREE[2][1]),
    ]
    assert core.state()["mastership"] == (3, 2, LEASE)


def test_whoever_takes_over_does_not_take_a_new_length_back_that_he_did_not_know_chosen() -> None:
    """It was chosen, and somebody told so, before the master died; the next one proposes it again, and itself right behind."""
    core = told([(MASTER, takeover(2))])
    heart(core, T, values=VALUES[:1])
    core.receive(T, frame(ACCEPT, 2, chosen=1, chain=chain(VALUES[:1]), ballot=ballot(1, 2), instance=1,
                          value=(0, MASTER), data=VALUES[1][1]))  # fmt: skip
    core.tick(T + 2 * ELECTION)
    core.receive(T + 2 * ELECTION, frame(PREVOTE_REPLY, 3, ballot=ballot(2, 1), granted=1))
    core.durable(T + 2 * ELECTION, core.state()["logged"])
    core.receive(T + 2 * ELECTION, frame(PROMISE, 3, ballot=ballot(2, 1), attempt=1))
    found = [(e[1], e[4], e[5]) for e in short(core.pump(T + 2 * ELECTION)) if e[0] == "send"]
    assert found == [
        ("accept", {"ballot": (2, 1), "instance": 1, "own_from": 1, "value": (0, MASTER), "n": 1}, lasting(2, LEASE)),
        ("accept", {"ballot": (2, 1), "instance": 2, "own_from": 1, "value": (0, MASTER), "n": 1}, takeover(1)),
    ]
    core.durable(T + 2 * ELECTION, core.state()["logged"])
    core.receive(T + 2 * ELECTION, frame(ACCEPTED, 3, ballot=ballot(2, 1), first=1, last=2))
    assert core.state()["mastership"] == (1, 2, LEASE)


# ---- the length of leases ----


def test_the_length_of_leases_is_chosen_like_a_value_and_then_logged() -> None:
    core = master()
    assert core.lease(T, LEASE) == (True, [])
    assert short(core.pump(T)) == [
        (
            "send",
            "accept",
            [2, 3],
            1,
            {"ballot": (1, 1), "instance": 1, "value": (0, MASTER), "n": 1},
            lasting(1, LEASE),
        ),
        ("log", 3, "accept", 1, {"ballot": (1, 1), "chosen": 1, "value": (0, MASTER)}, lasting(1, LEASE)),
    ]
    assert core.pump(T) == []
    core.durable(T, 3)
    assert short(core.receive(T, frame(ACCEPTED, 3, ballot=ballot(1, 1), first=1, last=1))) == [
        ("chosen", 1, MASTER, 0, lasting(1, LEASE)),
        ("mastership", 1, 1, LEASE),
        ("log", 4, "watermark", 0, {"chosen": 2}, b""),
    ]


def test_only_a_master_changes_the_length_and_not_above_a_minute() -> None:
    assert told().lease(T, LEASE) == (False, [])
    assert master(takeover=False).lease(T, LEASE) == (False, [])
    assert master().lease(T, 60_000 * MS + 1) == (False, [])
    assert master().lease(T, 60_000 * MS) == (True, [])


@pytest.mark.parametrize("length", [LEASE * 2, LEASE // 2, 0])
def test_a_new_length_voids_what_was_granted_before(length: int) -> None:
    core = leased()
    asked = beat(core, T + HEART)
    reply(core, T + HEART, 2, asked, LEASE)
    assert core.state()["lease_until"] == asked + LEASE - SHARE
    core.lease(T + HEART, length)
    core.pump(T + HEART)
    choose(core, T + HEART)
    assert core.state()["lease_until"] == 0
    # An answer of somebody who did not know of it counts no more, whatever it grants.
    asked = beat(core, T + 2 * HEART)
    reply(
        core,
        T + 2 * HEART,
        2,
        asked,
        LEASE,
        chosen=2,
        chain=chain([(MASTER, takeover(1)), (MASTER, lasting(1, LEASE))]),
    )
    assert core.state()["lease_until"] == 0
    reply(core, T + 2 * HEART, 2, asked, length)
    assert core.state()["lease_until"] == (asked + length - length // 64 if length else 0)


# ---- the lease, for its holder ----


def test_a_lease_counts_from_before_it_was_asked_for_and_a_share_is_taken_off_for_the_clocks() -> None:
    core = leased()
    assert core.state()["lease_until"] == 0
    asked = beat(core, T + HEART)
    assert asked == T + HEART
    assert reply(core, T + HEART + 40 * MS, 2, asked, LEASE) == []
    assert core.state()["lease_until"] == T + HEART + LEASE - SHARE
    # Of three one is enough, and the one that lasts longer counts.
    later = beat(core, T + 2 * HEART)
    reply(core, T + 2 * HEART, 3, later, LEASE)
    assert core.state()["lease_until"] == T + 2 * HEART + LEASE - SHARE
    # A late copy of an earlier answer takes nothing back.
    reply(core, T + 2 * HEART, 3, asked, LEASE)
    assert core.state()["lease_until"] == T + 2 * HEART + LEASE - SHARE


def test_a_lease_lasts_as_long_as_a_quorum_has_granted_it() -> None:
    core = leased(5)
    asked = [beat(core, T + number * HEART) for number in (1, 2, 3)]
    reply(core, T + 3 * HEART, 2, asked[0], LEASE)
    assert core.state()["lease_until"] == 0
    reply(core, T + 3 * HEART, 3, asked[1], LEASE)
    assert core.state()["lease_until"] == asked[0] + LEASE - SHARE
    reply(core, T + 3 * HEART, 4, asked[2], LEASE)
    assert core.state()["lease_until"] == asked[1] + LEASE - SHARE


def test_an_answer_without_a_grant_or_to_a_question_that_was_never_asked_grants_nothing() -> None:
    core = leased()
    asked = beat(core, T + HEART)
    reply(core, T + HEART, 2, asked, 0)
    reply(core, T + HEART, 2, asked + 1, LEASE)
    reply(core, T + HEART, 2, 0, LEASE)  # it has no vote
    core.receive(T + HEART, frame(HEARTBEAT_REPLY, 2, chosen=2, chain=core.state()["chain"], ballot=ballot(1, 2), sent_at=asked,
                                  lease=LEASE))  # fmt: skip
    assert core.state()["lease_until"] == 0
    # Who grants less, because he does not know better, grants less.
    reply(core, T + HEART, 2, asked, LEASE // 2)
    assert core.state()["lease_until"] == asked + LEASE // 2 - SHARE // 2
    reply(core, T + HEART, 2, asked, LEASE * 4)
    assert core.state()["lease_until"] == asked + LEASE - SHARE


def test_who_came_in_by_a_change_that_is_not_in_force_does_not_count() -> None:
    core = leased()
    core.replace(T + ELECTION, 3, OTHER_INCARNATION)
    core.tick(T + ELECTION - MS)
    reply(core, T + ELECTION, 2, 0)
    core.replace(T + ELECTION, 3, OTHER_INCARNATION)
    assert [e[4]["value"] for e in short(core.pump(T + ELECTION)) if e[1] == "accept"] == [(0, CHANGE)]  # type: ignore[index]
    choose(core, T + ELECTION)
    assert core.state()["members"][2][3] > core.state()["chosen"]
    asked = beat(core, T + ELECTION + HEART)
    reply(core, T + ELECTION + HEART, 3, asked, LEASE, inc=OTHER_INCARNATION)
    assert core.state()["lease_until"] == 0
    reply(core, T + ELECTION + HEART, 2, asked, LEASE)
    assert core.state()["lease_until"] == asked + LEASE - SHARE


def test_no_lease_is_held_before_an_instance_of_the_own_ballot_is_chosen_nor_behind_stepping_down() -> None:
    core = told()
    heart(core, T)
    core.tick(T + ELECTION)
    core.receive(T + ELECTION, frame(PREVOTE_REPLY, 3, ballot=ballot(2, 1), granted=1))
    core.durable(T + ELECTION, core.state()["logged"])
    core.receive(T + ELECTION, frame(PROMISE, 3, chosen=2, chain=chain(VALUES), ballot=ballot(2, 1), attempt=1))
    assert core.state()["role"] == "master"
    asked = beat(core, T + ELECTION)
    reply(core, T + ELECTION, 2, asked, LEASE)
    assert core.state()["lease_until"] == 0
    core.pump(T + ELECTION)
    choose(core, T + ELECTION)
    assert core.state()["settled"]
    assert core.state()["lease_until"] == asked + LEASE - SHARE
    asked = beat(core, T + ELECTION + HEART)
    reply(core, T + ELECTION + HEART, 3, asked, LEASE)
    assert core.state()["lease_until"] == asked + LEASE - SHARE
    found = core.receive(
        T + ELECTION + HEART, frame(PREPARE, 3, ballot=ballot(3, 3), chosen=3, chain=core.state()["chain"])
    )
    assert kinds(found) == ["master", "log", "promise"]
    assert core.state()["lease_until"] == 0


def test_who_is_alone_holds_the_lease_by_himself() -> None:
    core = node(count=1)
    core.tick(core.deadline())
    core.durable(T, 1)
    core.pump(T)
    core.durable(T, 2)
    assert core.lease(T, LEASE)[0]
    core.pump(T)
    core.durable(T, core.state()["logged"])
    assert core.state()["lease_until"] > T


# ---- the lease, for those who grant it ----


def test_nothing_is_granted_before_the_length_is_durable() -> None:
    core = told()
    assert short(heart(core, T, 77)) == [
        ("master", 2, 1, True),
        ("chosen", 0, MASTER, 0, takeover(2)),
        ("mastership", 2, 1, 0),
        ("chosen", 1, MASTER, 0, lasting(2, LEASE)),
        ("mastership", 2, 1, LEASE),
        ("log", 3, "watermark", 0, {"chosen": 2}, b""),
        ("send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "sent_at": 77, "priority": 1, "n": 2}, b""),
    ]
    assert prepare(core, T) == PROMISED
    core = told()
    heart(core, T)
    core.durable(T, 3)
    assert short(heart(core, T, 78)) == [
        (
            "send",
            "heartbeat_reply",
            [2],
            0,
            {"ballot": (1, 2), "sent_at": 78, "lease": LEASE, "priority": 1, "n": 2},
            b"",
        ),
    ]


def test_who_has_no_vote_grants_nothing() -> None:
    core = Core(1, [(n, n * 7, n * 11) for n in (1, 2, 3)], incarnation=OTHER_INCARNATION)
    core.start(T)
    members = [(1, *OTHER_INCARNATION, 70), (2, 14, 22, 0), (3, 21, 33, 0)]
    core.install(T, 2, chain(VALUES), members, 1, mastership=(2, 1, LEASE, 2))
    core.durable(T, core.state()["logged"])
    assert not core.state()["outsider"]
    assert granted(heart(core, T, 77)) == 0


def test_a_grant_counts_from_the_next_time_that_the_clock_is_read() -> None:
    core = told()
    heart(core, T)
    core.durable(T, 3)
    heart(core, T, 77)
    assert core.deadline() == T + 1
    assert prepare(core, T) == []  # at once
    # The thread was stopped for a second just behind the answer.
    core.tick(T + 1000 * MS)
    assert prepare(core, T + 1000 * MS + LEASE - 1) == []
    assert prepare(core, T + 1000 * MS + LEASE) == PROMISED


def test_a_prepare_is_ignored_while_another_holds_a_lease() -> None:
    core = bound()
    assert prepare(core, T + MS) == []
    assert prepare(core, END - 1) == []
    assert core.state()["promised"] == ballot(1, 2)
    assert prepare(core, END) == PROMISED


def test_the_holder_may_take_a_new_ballot() -> None:
    assert prepare(bound(), T + MS, 2) == PROMISED


def test_a_prepare_that_names_the_ballot_that_was_released_is_promised() -> None:
    assert prepare(bound(), T + MS, released=ballot(1, 2)) == PROMISED
    assert prepare(bound(), T + MS, released=ballot(2, 2)) == []
    assert prepare(bound(), T + MS, released=ballot(1, 1)) == []


def test_a_prevote_is_refused_while_another_holds_a_lease() -> None:
    core = bound()
    late = T + 400 * MS  # no master is heard any more
    for by, fields in ((3, {}), (2, {"granted": 1})):
        assert short(core.receive(late, frame(PREVOTE, by, chosen=2, chain=chain(VALUES), ballot=ballot(5, by)))) == [
            ("send", "prevote_reply", [by], 0, {"ballot": (5, by), "promised": (1, 2), "n": 2} | fields, b""),
        ]
    assert kinds(core.receive(END, frame(PREVOTE, 3, chosen=2, chain=chain(VALUES), ballot=ballot(6, 3)))) == [
        "prevote_reply"
    ]


def test_nobody_stands_himself_while_another_holds_a_lease() -> None:
    core = bound()
    assert core.tick(T + 2 * ELECTION) == []
    assert core.state()["role"] == "follower"
    assert core.deadline() == END
    assert kinds(core.tick(END)) == ["master", "prevote"]


def test_only_who_has_promised_a_ballot_durably_grants_its_lease() -> None:
    """Else a late heartbeat of the master before, not below the promise, took the grant back, and two held a lease."""
    core = bound()
    assert granted(heart(core, END, 77, of=3)) == 0
    assert core.state()["promised"] == ballot(1, 3)
    core.durable(END, core.state()["logged"])
    assert granted(heart(core, END, 78, of=3)) == LEASE
    core.tick(END + MS)
    assert kinds(heart(core, END + 2 * MS, 79, of=2)) == ["reject"]
    assert prepare(core, END + 3 * MS, 2) == [], "bound to node 3"
    assert prepare(core, END + 3 * MS, 3) == PROMISED


def test_nobody_else_is_granted_a_lease_while_one_lasts() -> None:
    """The one may have been elected by the voters before a change, and the other, with a lower ballot, by those behind it."""
    core = bound()
    for now in (T + 2 * MS, END - 1):
        assert granted(heart(core, now, 77, of=3)) == 0
        core.durable(now, core.state()["logged"])
        assert core.state()["promised"] == ballot(1, 2), "nor is its ballot promised"
    assert prepare(core, END - 1, 3) == [], "bound to node 2 still"


def test_a_lease_that_was_released_keeps_nobody_from_the_next_one() -> None:
    core = bound()
    assert prepare(core, T + MS, released=ballot(1, 2)) == PROMISED
    core.durable(T + MS, core.state()["logged"])
    assert granted(heart(core, T + 2 * MS, 77, of=3, round_=5)) == LEASE


def test_who_starts_promises_to_nobody_for_as_long_as_a_lease_lasts() -> None:
    def started() -> Core:
        core = Core(1, [(n, n * 7, n * 11) for n in (1, 2, 3)])
        for instance, (kind, data) in enumerate(VALUES):
            core.restore(
                RECORD_ACCEPT, instance, record(RECORD_ACCEPT, ballot=ballot(1, 2), value=(0, kind), data=data)
            )
        core.restore(RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=2, chain=chain(VALUES)))
        core.start(T)
        return core

    core = started()
    for by in (2, 3):
        assert prepare(core, T + LEASE - 1, by) == []
    assert core.tick(T + LEASE - 1) == []
    assert prepare(core, T + LEASE) == PROMISED
    # ... nor grants one.
    core = started()
    assert granted(heart(core, T + LEASE - 1, 77)) == 0
    assert granted(heart(core, T + LEASE, 77)) == LEASE


def test_who_starts_knows_from_a_promise_in_its_log_to_whom_it_may_be_bound() -> None:
    """A grant is to the ballot promised, and was promised while none to another lasted: so who has that ballot is granted a lease
    again, and can hand over. What was only accepted may have been so while a lease of another lasted."""

    def started(*promises: tuple[int, int]) -> Core:
        core = Core(1, [(n, n * 7, n * 11) for n in (1, 2, 3)])
        for round_, by in promises:
            assert core.restore(RECORD_PROMISE, 0, record(RECORD_PROMISE, ballot=ballot(round_, by)))
        for instance, (kind, data) in enumerate(VALUES):
            core.restore(
                RECORD_ACCEPT, instance, record(RECORD_ACCEPT, ballot=ballot(1, 2), value=(0, kind), data=data)
            )
        core.restore(RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=2, chain=chain(VALUES)))
        core.start(T)
        return core

    core = started((1, 2))
    assert granted(heart(core, T + MS, 77)) == LEASE
    assert prepare(core, T + 2 * MS) == []
    assert prepare(core, T + 2 * MS, released=ballot(1, 2)) == PROMISED
    core = started((1, 1))
    assert granted(heart(core, T + MS, 77)) == 0, "node 2 has a higher ballot, and no promise"
    assert prepare(core, T + 2 * MS, released=ballot(1, 2)) == []


def test_who_is_elected_is_bound_by_nothing_that_was_granted_before() -> None:
    """Or else he could not follow the next one, to whom he hands over, for as long as the lease of the last one would last."""
    core = bound()
    core.receive(T + 2 * MS, frame(TRANSFER, 2, chosen=2, chain=chain(VALUES), ballot=ballot(1, 2)))
    core.durable(T + 2 * MS, core.state()["logged"])
    core.receive(T + 2 * MS, frame(PROMISE, 3, chosen=2, chain=chain(VALUES), ballot=ballot(2, 1), attempt=1))
    assert core.state()["role"] == "master"
    assert prepare(core, T + 3 * MS) == ["master", *PROMISED]
