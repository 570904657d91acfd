"""One test per transition of mastership, lease and hand-over: the complete list of effects, with what each waits for."""

from __future__ import annotations

from typing import Any

import pytest

from frames import (
    ACCEPT,
    ACCEPTED,
    BATCH,
    CHANGE,
    HEARTBEAT,
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
    RECORD_WATERMARK,
    TRANSFER,
    ballot,
    chain,
    chunk,
    frame,
    lasting,
    record,
    short,
    takeover,
)
from paxos._stepping import Core
from steps import MS, Effects, T, X, kinds, master, node

LEASE = 2000 * MS
SHARE = LEASE // 64  # what a lease is shorter for its holder
HEART, ELECTION = 50 * MS, 600 * MS


def sent_at(effects: Effects) -> int:
    """When the last heartbeat among them was sent, as its answer must say."""
    found = [e[4]["sent_at"] for e in short(effects) if e[1] == "heartbeat"]  # type: ignore[index]
    assert found, effects
    number: int = found[-1]
    return number


def reply(core: Core, now: int, peer: int, asked: int, lease: int = 0, priority: int = 1, **more: Any) -> Effects:
    state = core.state()
    at = {"chosen": state["chosen"], "chain": state["chain"]} | more
    body = {"ballot": state["ballot"], "sent_at": asked, "lease": lease, "priority": priority}
    return core.receive(now, frame(HEARTBEAT_REPLY, peer, **at, **body))


def beat(core: Core, now: int) -> int:
    """The master's next heartbeat, at that time."""
    return sent_at(core.tick(now))


def choose(core: Core, now: int, values: int = 1) -> Effects:
    """What the master has proposed is durable there and at node 2 (of five: and at node 3)."""
    core.durable(now, core.state()["logged"])
    state = core.state()
    found: Effects = []
    for peer in range(2, len(state["members"]) // 2 + 2):
        found = core.receive(
            now, frame(ACCEPTED, peer, ballot=state["ballot"], first=state["chosen"], last=state["next"] - 1)
        )
    return found


def leased(count: int = 3, lease: int = LEASE, **options: Any) -> Core:
    """A master that has had the length of leases chosen (at T, instance 1), and was granted none yet."""
    core = master(count, **options)
    assert core.lease(T, lease) == (True, [])
    core.pump(T)
    choose(core, T)
    core.durable(T, core.state()["logged"])
    assert core.state()["mastership"] == (1, 1, lease)
    return core


VALUES: list[tuple[int, bytes]] = [(MASTER, takeover(2)), (MASTER, lasting(2, LEASE))]


def told(values: list[tuple[int, bytes]] = VALUES, **options: Any) -> Core:
    """Node 1 as follower of node 2 under ballot (1, 2): it has accepted these values, and knows none chosen."""
    core = node(1, **options)
    for instance, (kind, data) in enumerate(values):
        core.receive(
            T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=instance, value=(int(kind == BATCH), kind), data=data)
        )
    core.durable(T, len(values))
    return core


def heart(core: Core, now: int, asked: int = 0, of: int = 2, values: list[tuple[int, bytes]] = VALUES) -> Effects:
    return core.receive(
        now,
        frame(HEARTBEAT, of, chosen=len(values), chain=chain(values), ballot=ballot(1, of), settled=1, sent_at=asked),
    )


def bound(**options: Any) -> Core:
    """... that has granted node 2 a lease at T; it counts from T + 1 ms on."""
    core = told(**options)
    heart(core, T)
    core.durable(T, 3)
    assert granted(heart(core, T, 77)) == LEASE
    core.tick(T + MS)
    return core


def granted(effects: Effects) -> int:
    """By the answer to a heartbeat among them."""
    [fields] = [e[4] for e in short(effects) if e[1] == "heartbeat_reply"]
    assert isinstance(fields, dict)
    length: int = fields.get("lease", 0)
    return length


END = T + MS + LEASE  # of the grant of bound()


def prepare(core: Core, now: int, by: int = 3, **fields: Any) -> list[object]:
    return kinds(
        core.receive(now, frame(PREPARE, by, ballot=ballot(5, by), chosen=2, chain=chain(VALUES), first=2, **fields))
    )


PROMISED = ["log", "promise"]

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


def test_a_grant_to_the_next_master_takes_the_place_of_an_older_one() -> None:
    core = bound()
    heart(core, T + 2 * MS, 77, of=3)
    core.tick(T + 3 * MS)
    assert prepare(core, T + 4 * MS, 2) == []
    assert prepare(core, T + 4 * MS, 3) == PROMISED


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
    # ... but for a master that it hears, and has granted a lease since.
    core = started()
    assert granted(heart(core, T + MS, 77)) == LEASE
    assert prepare(core, T + 2 * MS, 3) == []
    assert prepare(core, T + 2 * MS, 2) == PROMISED


def test_who_is_elected_is_bound_by_nothing_that_was_granted_before() -> None:
    """Or else he could not follow the next one, to whom he hands over, for as long as the lease of the last one would last."""
    core = bound()
    core.receive(T + 2 * MS, frame(TRANSFER, 2, chosen=2, chain=chain(VALUES), ballot=ballot(1, 2)))
    core.durable(T + 2 * MS, core.state()["logged"])
    core.receive(T + 2 * MS, frame(PROMISE, 3, chosen=2, chain=chain(VALUES), ballot=ballot(2, 1), attempt=1))
    assert core.state()["role"] == "master"
    assert prepare(core, T + 3 * MS) == ["master", *PROMISED]


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
