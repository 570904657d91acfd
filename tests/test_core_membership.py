"""The core, step by step: from one set of voters to another (design rules 7 and 8), and who has which place."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from frames import (
    ACCEPT,
    ACCEPTED,
    CHANGE,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    KEPT,
    LEARN,
    LEARNED,
    MASTER,
    NOOP,
    PREPARE,
    PREVOTE,
    PROMISE,
    PROMISE_VALUE,
    RECORD_BASE,
    RECORD_WATERMARK,
    TRANSFER,
    VALUE,
    ballot,
    frame,
    incarnation,
    lasting,
    membership,
    short,
)
from frames import row as named
from paxos._stepping import Core
from steps import ALPHA, MS, Effects, T, X, Y, follower, kinds, master

VOTER, LEARNER, FOLLOWER, LEAVING = range(4)
NOBODY = (0, 0, 0, 0)

Row = tuple[int, int, int, int] | tuple[int, int, int, int, int] | tuple[int, int, int, int, int, str]


def row(node: int, role: int = VOTER, *more: object) -> Row:
    return (node, *incarnation(node), role, *more)  # type: ignore[return-value]


def change(rows: Sequence[Row], version: int = 0, since: Sequence[int] = ()) -> bytes:
    """The value that has this table chosen."""
    data = struct.pack("<II", version, len(rows))
    for place, (node, high, low, role, *more) in enumerate(rows):
        instead = more[0] if more else 0
        address = str(more[1]).encode() if len(more) > 1 else b""
        data += (
            struct.pack("<IIQQQII", node, role, high, low, (*since, *[0] * 31)[place], instead, len(address)) + address
        )
    return data


def learned(first: int, values: list[tuple[int, bytes]], sender: int = 2) -> bytes:
    data = b"".join(VALUE.pack(len(v), 1 if kind == 1 else 0, kind, 0) + v for kind, v in values)
    return frame(LEARNED, sender, chosen=first + len(values), first=first, count=len(values), data=data)


def noops(count: int) -> list[tuple[int, bytes]]:
    return [(NOOP, b"")] * count


def sent(effects: Effects, kind: str) -> list[tuple[list[int], dict[str, object], bytes]]:
    """(nodes, fields, data) of each frame of a kind. Nodes as they stand in their places: 1, 2, …"""
    return [(e[2], e[4], e[5]) for e in short(effects) if e[0] == "send" and e[1] == kind]  # type: ignore[misc]


def instances(effects: Effects) -> list[int]:
    """Those that are proposed, in order."""
    return [int(fields.get("instance", 0)) for _, fields, _ in sent(effects, "accept")]  # type: ignore[call-overload]


def agree(core: Core, at: int, peers: Sequence[int], now: int = T) -> Effects:
    """The own write is durable, and these accept an instance."""
    effects = list(core.durable(now, core.state()["logged"]))
    for peer in peers:
        effects += core.receive(now, frame(ACCEPTED, peer, ballot=ballot(1, 1), first=at, last=at))
    return effects


def changed(core: Core, rows: Sequence[Row], peers: Sequence[int], now: int = T) -> Effects:
    """That table is chosen. What came of the last step of it."""
    taken, _ = core.change(now, rows)
    assert taken
    effects = core.pump(now)
    at = instances(effects)[0]
    return agree(core, at, peers, now)


def carry_on(core: Core, peers: Sequence[int], until: int, now: int = T) -> Effects:
    """These accept what is proposed, until so much is chosen."""
    effects: Effects = []
    for _ in range(2 * ALPHA):
        if core.state()["chosen"] >= until:
            break
        effects += core.pump(now)
        effects += agree(core, core.state()["chosen"], peers, now)
    assert core.state()["chosen"] == until
    return effects


FIVE = [row(1), row(2), row(3), row(4, LEARNER), row(5, LEARNER)]
#: ... and from there on a set that has only node 1 in common with the first.
MOVED = [row(1), row(2, LEAVING), row(3, LEAVING), row(4), row(5)]
E = 2 + ALPHA


def moving() -> tuple[Core, Effects]:
    """Node 1 leads {1, 2, 3}; at instance 2 was chosen that {1, 4, 5} vote from E on. And what that step had sent."""
    core = master()
    changed(core, FIVE, [2])
    effects = changed(core, MOVED, [2])
    assert core.state()["in_force"] == E
    return core, effects


def promise(core: Core, sender: int, values: Sequence[tuple[int, int, bytes]] = (), chosen: int = 0) -> Effects:
    """A new voter's answer to the question of the present attempt: (round, instance, value) of what it has accepted."""
    attempt = core.state()["attempt"]
    effects: Effects = []
    for round_, instance, data in values:
        effects += core.receive(
            T,
            frame(PROMISE_VALUE, sender, ballot=ballot(1, 1), accepted=ballot(round_, 3), instance=instance, attempt=attempt,
                  data=data, value=(1, 1)),
        )  # fmt: skip
    effects += core.receive(
        T, frame(PROMISE, sender, ballot=ballot(1, 1), attempt=attempt, count=len(values), chosen=chosen)
    )
    return effects


# ---- a change, and where it counts


def test_a_learner_is_a_member_at_once_and_has_no_vote() -> None:
    core = master()
    assert ("membership", 3, 1 + ALPHA) in changed(core, FIVE, [2])
    assert core.state()["roles"] == [VOTER, VOTER, VOTER, LEARNER, LEARNER]
    assert core.state()["in_force"] == 0
    core.submit(T, 1, [b"v"], T + 1000 * MS)
    (accept,) = sent(core.pump(T), "accept")
    assert accept[0] == [2, 3], "it is not asked"
    agree(core, 2, [4, 5])
    assert core.state()["chosen"] == 2, "and what it says does not count"
    (to, *_), *_ = sent(core.tick(T + 100 * MS), "heartbeat")
    assert to == [2, 3, 4, 5], "but it hears what is chosen"


def test_below_e_the_old_voters_count_and_from_e_on_the_new_ones() -> None:
    core, _ = moving()
    first = core.pump(T)
    assert {tuple(to) for to, _, _ in sent(first, "accept")} == {(2, 3)}
    agree(core, 3, [4, 5])
    assert core.state()["chosen"] == 3, "new voters do not count yet"
    agree(core, 3, [3])
    assert core.state()["chosen"] == 4
    carry_on(core, [3], E)
    promise(core, 4)
    effects = core.pump(T)
    assert sent(effects, "accept")[0][0] == [4, 5]
    assert instances(effects) == [E], "an idle group is carried over its change"
    agree(core, E, [2, 3])
    assert core.state()["chosen"] == E, "old ones do not count any more"
    agree(core, E, [5])
    assert core.state()["chosen"] == E + 1


def test_who_leaves_keeps_its_place_until_the_first_instance_of_the_new_voters_is_chosen() -> None:
    core, _ = moving()
    carry_on(core, [3], E)
    promise(core, 4)
    (news, accept) = [e for e in short(core.pump(T)) if e[0] == "send"]
    assert (news[1], news[2]) == ("heartbeat", [2, 3]), "the last that they hear"
    assert news[4]["n"] == E  # type: ignore[index]
    assert accept[2] == [4, 5]
    assert [member[0] for member in core.state()["members"]] == [1, 2, 3, 4, 5]
    effects = agree(core, E, [4])
    assert [effect[1] for effect in effects if effect[0] == "membership"] == [1, 2]
    assert [member[0] for member in core.state()["members"]] == [1, 0, 0, 4, 5]


def test_one_change_at_a_time() -> None:
    core, _ = moving()
    assert not core.change(T, MOVED)[0], "not before this one is in force"
    carry_on(core, [3], E)
    promise(core, 4)
    assert not core.change(T, MOVED)[0], "nor before an instance of the new voters is chosen"
    core.pump(T)
    agree(core, E, [4])
    assert core.change(T, [row(1), NOBODY, NOBODY, row(4), row(5)])[0]


def test_a_change_of_another_version_is_void() -> None:
    core = follower(3)
    later = [row(1), row(2), row(3), row(4, FOLLOWER), row(5, FOLLOWER)]
    core.receive(T, learned(0, [(CHANGE, change(FIVE)), (CHANGE, change(later, 0)), (CHANGE, change(later, 2))]))
    assert core.state()["version"] == 1
    assert core.state()["roles"] == [VOTER, VOTER, VOTER, LEARNER, LEARNER]


def test_a_change_that_comes_too_soon_is_void() -> None:
    """Whoever proposed it: all nodes judge by the instance that it stands in."""
    core = follower(3)
    core.receive(T, learned(0, [(CHANGE, change(FIVE)), (CHANGE, change(MOVED, 1))]))
    assert core.state()["version"] == 2
    early = [(CHANGE, change([row(1), row(2), row(3), row(4), row(5)], 2))]
    core.receive(T, learned(2, [*noops(ALPHA - 1), *early]))
    assert core.state()["chosen"] == 1 + ALPHA + 1
    assert core.state()["version"] == 2, "at e itself"


@pytest.mark.parametrize(
    "rows",
    [
        [row(1), row(2)],  # a place less
        [row(1), NOBODY, row(3)],  # a voter gone without leaving
        [row(1), row(9), row(3)],  # its place given away
        [row(1), row(2), row(3), row(4, LEAVING)],  # who has never voted leaves
        [row(1), (2, 9, 9, LEAVING), row(3)],  # somebody else leaves
        [row(1), row(2), row(3), (4, 0, 0, VOTER)],  # who has not said which incarnation it is votes
    ],
)
def test_a_table_that_does_not_follow_is_not_proposed_and_void_where_it_is_chosen(rows: list[Row]) -> None:
    core = master()
    assert not core.change(T, rows)[0]
    core = follower(3)
    core.receive(T, learned(0, [(CHANGE, change(rows))]))
    assert (core.state()["chosen"], core.state()["version"]) == (1, 0)


def test_only_a_master_that_knows_the_present_table_takes_another_one() -> None:
    assert not follower().change(T, FIVE)[0]
    core = master()
    assert not core.change(T, FIVE, version=1)[0]
    assert core.change(T, FIVE, version=0)[0]


# ---- rule 8


def test_a_ballot_is_used_above_e_only_when_the_new_voters_have_promised_it() -> None:
    core, effects = moving()
    ((to, fields, _),) = sent(effects, "prepare")
    assert (set(to), fields["first"]) == ({3, 4, 5}, E), "everybody who has not promised it is asked, from e on"
    assert core.state()["extending"]
    carry_on(core, [3], E)
    core.submit(T, 1, [b"v"], T + 1000 * MS)
    assert instances(core.pump(T)) == []
    effects = promise(core, 4)
    assert not core.state()["extending"]
    assert instances(core.pump(T)) == [E]
    assert core.state()["role"] == "master"


def test_the_question_is_asked_again_until_it_is_answered() -> None:
    core, _ = moving()
    assert sent(core.tick(T + 200 * MS), "prepare")[0][0] == [3, 4, 5]
    promise(core, 4)
    assert sent(core.tick(T + 400 * MS), "prepare") == []


def test_voters_who_have_promised_need_not_be_asked() -> None:
    core = master()
    changed(core, [row(1), row(2), row(3), row(4, LEARNER)], [2])
    effects = changed(core, [row(1), row(2), row(3, LEAVING), row(4, LEARNER)], [2])
    assert sent(effects, "prepare") == [], "{1, 2} have promised"
    assert not core.state()["extending"]


def test_what_new_voters_report_is_proposed_before_anything_new() -> None:
    """{3, 4, 5} have chosen Y at e under a low ballot, and the master of {1, 2, 3} does not know of it."""
    core, _ = moving()
    carry_on(core, [2], E)
    core.submit(T, 1, [b"v"], T + 1000 * MS)
    promise(core, 4, [(0, E, b""), (1, E, Y)][1:])
    effects = core.pump(T)
    values = [(fields["instance"], data) for _, fields, data in sent(effects, "accept")]
    assert values[0] == (E, Y)
    assert X not in [data for _, data in values[:1]]


def test_a_new_voter_answers_when_it_knows_enough() -> None:
    """It is asked before it may promise anything, and a master waits for it."""
    core = Core(4, [row(1), row(2), row(3), row(4, LEARNER)])
    core.start(T)
    core.receive(T, learned(0, [(CHANGE, change(FIVE)), (CHANGE, change(MOVED, 1))]))
    assert sent(core.receive(T, frame(PREPARE, 1, ballot=ballot(1, 1), first=1 + ALPHA, attempt=7)), "promise") == []
    effects = core.receive(T, learned(2, noops(ALPHA - 2)))
    assert sent(effects, "promise") == [], "one is missing"
    effects = core.receive(T, learned(ALPHA, noops(1)))
    ((to, fields, _),) = sent(effects, "promise")
    assert (to, fields["attempt"], fields["n"]) == ([1], 7, 1 + ALPHA)
    assert sent(core.receive(T, learned(1 + ALPHA, noops(1))), "promise") == [], "once"


# ---- nobody accepts above a change without knowing all below


def test_an_acceptance_above_a_change_says_that_all_below_is_known() -> None:
    core = follower(3, of=1)
    core.receive(T, learned(0, [(CHANGE, change([row(1), row(2), row(3), row(4, LEARNER)])),
                                (CHANGE, change([row(1), row(2), row(3), row(4)], 1))]))  # fmt: skip
    e = core.state()["in_force"]
    core.receive(T, learned(2, noops(e - 3)))
    assert core.state()["chosen"] == e - 1
    assert core.state()["votes"]
    accept = frame(ACCEPT, 1, ballot=ballot(1, 1), instance=e, own_from=e)
    assert "accepted" not in kinds(core.receive(T, accept)), "one below is missing"
    effects = core.receive(T, learned(e - 1, noops(1), sender=1))
    ((to, fields, _),) = sent(effects, "heartbeat_reply")
    assert (to, fields["n"]) == ([1], e), "it says when it can, so that it is asked again at once"
    effects = core.receive(T, accept)
    assert "accepted" in kinds(effects)
    (written,) = [e_ for e_ in short(effects) if e_[0] == "log"]
    assert written[4]["chosen"] == e, "and its record names that"  # type: ignore[index]


def test_a_master_sends_again_to_who_could_not_take_it_before() -> None:
    core, _ = moving()
    carry_on(core, [3], E)
    promise(core, 4)
    core.pump(T)
    effects = core.receive(T, frame(HEARTBEAT_REPLY, 5, ballot=ballot(1, 1), chosen=E, chain=core.state()["chain"]))
    assert sent(effects, "accept")[0][0] == [5]


def test_a_master_sends_again_to_who_did_not_know_who_votes() -> None:
    """It was further behind than a change takes to come in force; its answer says that it is not any more."""
    core = master(window=8)
    for at in range(1, ALPHA + 8):
        core.submit(T, at, [b"v"], T + 10_000 * MS)
        core.pump(T)
        agree(core, at, [2])
    core.submit(T, ALPHA + 8, [b"v"], T + 10_000 * MS)
    core.pump(T)
    chosen, chained = core.state()["chosen"], core.state()["chain"]
    assert sent(core.receive(T, frame(LEARN, 3, first=1, end=chosen, max_bytes=1, chosen=1, chain=7)), "accept") == []
    level = frame(HEARTBEAT_REPLY, 3, ballot=ballot(1, 1), chosen=chosen, chain=chained)
    assert [to for to, _, _ in sent(core.receive(T, level), "accept")] == [[3]]
    assert sent(core.receive(T, level), "accept") == [], "once"


def test_an_accept_that_tells_what_is_missing_is_taken_with_it() -> None:
    core = follower(3, of=1)
    core.receive(T, learned(0, [(CHANGE, change([row(1), row(2), row(3), row(4, LEARNER)])),
                                (CHANGE, change([row(1), row(2), row(3), row(4)], 1))]))  # fmt: skip
    e = core.state()["in_force"]
    core.receive(T, learned(2, noops(e - 3)))
    core.receive(T, frame(ACCEPT, 1, ballot=ballot(1, 1), instance=e - 1, own_from=e - 1))
    effects = core.receive(T, frame(ACCEPT, 1, ballot=ballot(1, 1), instance=e, own_from=e - 1, chosen=e))
    assert core.state()["chosen"] == e
    assert [fields["first"] for _, fields, _ in sent(effects, "accepted")] == [e]


def test_who_does_not_know_the_change_accepts_nothing_above_it() -> None:
    """{1, 2} have chosen the change and all below e; 3 has missed all that, and votes before and behind. If it accepted at e, e
    would be chosen by {1, 3}, 2 be destroyed, and what only 1 has be lost with 1."""
    core = follower(3, of=1)
    accept = frame(ACCEPT, 1, ballot=ballot(1, 1), instance=1 + ALPHA, own_from=0, chosen=1 + ALPHA)
    assert "accepted" not in kinds(core.receive(T, accept))
    core.receive(T, learned(0, noops(2), sender=1))
    effects = core.receive(T, accept)
    assert "accepted" in kinds(effects), "now it knows who votes there"


# ---- tables from elsewhere


def test_who_knows_a_table_from_the_future_has_no_vote_before_it_is_there() -> None:
    """A checkpoint of instance 10, made by a node that knew more: {1, 2} of five vote from long after that on."""
    core = follower(3, of=1)
    five = [(node, *incarnation(node), 0) for node in (1, 2, 3)]
    core.install(T, 10, 5, five, version=4, as_of=100)
    assert not core.state()["votes"]
    assert "prevote" not in kinds(core.tick(core.deadline()))
    core.install(T, 100, 6, five, version=4, as_of=100)
    assert core.state()["votes"]


def test_a_log_that_knows_a_table_knows_how_far_it_goes() -> None:
    core, effects = moving()
    marks = [e[4] for e in short(effects) if e[0] == "log" and e[2] == "watermark"]
    assert [mark["chosen"] for mark in marks] == [3], "a record of the watermark stands behind the change"  # type: ignore[index]
    carry_on(core, [3], E)
    promise(core, 4)
    core.pump(T)
    marks = [e[4] for e in short(agree(core, E, [4])) if e[0] == "log" and e[2] == "watermark"]
    assert [mark["chosen"] for mark in marks] == [E + 1]  # type: ignore[index]


def test_the_log_s_beginning_has_the_table_with_all_that_is_pending() -> None:
    core, _ = moving()
    (base,) = [e for e in core.base(T, 2, 0) if e[0] == "log" and e[2] == RECORD_BASE]
    again = Core(1, [row(1), row(2), row(3)])
    assert again.restore_base(2, base[4])
    assert again.state()["roles"] == core.state()["roles"]
    assert again.state()["members"] == core.state()["members"]
    assert (again.state()["version"], again.state()["in_force"]) == (2, E)
    assert not again.state()["votes"], "the table is newer than what is known chosen"
    mark = struct.pack("<QII", 2, 0, 0)
    assert again.restore(RECORD_WATERMARK, 0, mark)


def test_who_was_away_takes_the_word_of_who_knows_more_and_who_is_not_lost_does_not_need_it() -> None:
    core = Core(3, [row(1), row(2), row(3)], incarnation=(1, 1))
    core.start(T)
    told = membership([named(1), named(2), named(3), named(4)], version=7, in_force=900, as_of=901)
    assert core.state()["outsider"]
    core.told(T, told)
    assert core.state()["version"] == 7
    core = follower(3, of=1)
    core.told(T, told)
    assert core.state()["version"] == 0, "it hears a majority: what is missing it learns from them"
    assert core.state()["votes"]
    core = Core(3, [row(1), row(2), row(3)])
    core.start(T)
    core.told(T, told)
    assert (core.state()["version"], core.state()["votes"]) == (7, False)


# ---- places


def test_who_is_given_a_place_has_promised_nothing_yet() -> None:
    """2 and 1 have promised; 2 goes, and its place is given to 9: {1, 9, 3} have not, but for 1."""
    core = master()
    changed(core, [row(1), row(2), row(3), row(9, LEARNER)], [2])
    effects = changed(core, [row(1), (2, 5, 5, VOTER), row(3), row(9, LEARNER)], [2])
    assert core.state()["extending"]
    assert sent(effects, "prepare")[0][0] == [2, 3], "another incarnation has promised nothing"


def test_a_place_is_free_when_a_learner_goes() -> None:
    core = master()
    changed(core, FIVE, [2])
    effects = changed(core, [row(1), row(2), row(3), NOBODY, row(5, LEARNER)], [2])
    assert ("membership", 3, 0) in effects
    assert core.state()["in_force"] == 0
    changed(core, [row(1), row(2), row(3), row(9, FOLLOWER), row(5, LEARNER)], [2])
    assert core.state()["members"][3][:3] == (9, *incarnation(9))


# ---- reads, elections


def test_a_read_takes_both_quorums_while_a_change_is_pending() -> None:
    core, _ = moving()
    core.read(T + 10 * MS, 1)
    (round_,) = {fields["sent_at"] for _, fields, _ in sent(core.pump(T + 10 * MS), "heartbeat")}
    answer = {"ballot": ballot(1, 1), "sent_at": round_}
    effects = core.receive(T + 11 * MS, frame(HEARTBEAT_REPLY, 2, **answer))
    effects += core.receive(T + 11 * MS, frame(HEARTBEAT_REPLY, 3, **answer))
    assert "readable" not in kinds(effects), "{4, 5} may have gone on with another master"
    effects = core.receive(T + 11 * MS, frame(HEARTBEAT_REPLY, 4, **answer))
    assert "readable" not in kinds(effects), "... and do not vote yet, so that it says nothing"


def confirmed(core: Core, now: int, token: int, nodes: Sequence[int]) -> Effects:
    """A read of the master's own; these answer its round."""
    core.read(now, token)
    rounds = {fields["sent_at"] for _, fields, _ in sent(core.pump(now), "heartbeat") if "sent_at" in fields}
    effects: Effects = []
    for round_ in rounds:
        for sender in nodes:
            effects += core.receive(now, frame(HEARTBEAT_REPLY, sender, ballot=ballot(1, 1), sent_at=round_, chosen=E))
    return [effect for effect in effects if effect[0] == "readable"]


def test_no_read_is_confirmed_by_new_voters_who_have_not_promised_the_ballot() -> None:
    """{4, 5} may have elected 4 under a lower ballot, which nobody who follows this master has seen, and have chosen E."""
    core, _ = moving()
    carry_on(core, [3], E)
    assert core.state()["extending"]
    assert confirmed(core, T + 10 * MS, 1, [4, 5]) == []
    promise(core, 4, [(1, E, Y)], chosen=E)
    assert not core.state()["extending"]
    core.pump(T + 11 * MS)
    assert confirmed(core, T + 11 * MS, 2, [4, 5]) == [], "what they had chosen is not known chosen here"
    agree(core, E, [4], T + 12 * MS)
    assert confirmed(core, T + 12 * MS, 3, [4, 5]) == [("readable", E + 1, 3)]


def test_no_lease_is_held_by_grants_of_new_voters_who_have_not_promised_the_ballot() -> None:
    core = master()
    core.lease(T, 3000 * MS)
    at = instances(core.pump(T))[0]
    agree(core, at, [2])
    changed(core, FIVE, [2])
    changed(core, MOVED, [2])
    end = core.state()["in_force"]
    carry_on(core, [3], end)
    now = T + 200 * MS
    for sender in (4, 5):
        core.receive(now, frame(HEARTBEAT_REPLY, sender, ballot=ballot(1, 1)))
    rounds = {fields["sent_at"] for _, fields, _ in sent(core.tick(now), "heartbeat") if "sent_at" in fields}
    for sender in (4, 5):
        granted = {"sent_at": max(rounds), "lease": 3000 * MS, "chosen": end}
        core.receive(now, frame(HEARTBEAT_REPLY, sender, ballot=ballot(1, 1), **granted))
    assert core.state()["extending"]
    assert core.state()["lease_until"] == 0
    promise(core, 4, chosen=end)
    assert core.state()["lease_until"] > now


def test_who_is_bound_to_another_master_does_not_take_over() -> None:
    """Node 2 leads those behind a change, with a lease that node 3 has granted; node 1, under a higher ballot, those before it,
    and hands over to 3: it cannot give up the lease of 2."""
    lease = 3000 * MS
    core = Core(3, [row(1), row(2), row(3)])
    core.start(T)
    core.receive(T, learned(0, [(MASTER, lasting(2, lease))]))
    core.durable(T, core.state()["logged"])
    now = T + MS
    granting = frame(HEARTBEAT, 2, ballot=ballot(1, 2), settled=1, sent_at=now, chosen=1)
    core.receive(now, granting)
    core.durable(now, core.state()["logged"])
    ((_, fields, _),) = sent(core.receive(now, granting), "heartbeat_reply")
    assert (fields["lease"], fields["priority"]) == (lease, 1)
    now += MS
    ((_, fields, _),) = sent(
        core.receive(now, frame(HEARTBEAT, 1, ballot=ballot(2, 1), settled=1, sent_at=now, chosen=1)), "heartbeat_reply"
    )
    assert "lease" not in fields
    assert "priority" not in fields, "and says so"
    core.receive(now, frame(TRANSFER, 1, ballot=ballot(2, 1), chosen=1))
    assert core.state()["role"] == "follower"
    now += lease
    core.receive(now, frame(HEARTBEAT, 1, ballot=ballot(2, 1), settled=1, chosen=1))
    core.receive(now, frame(TRANSFER, 1, ballot=ballot(2, 1), chosen=1))
    assert core.state()["role"] == "preparing"


def test_a_read_from_below_a_change_is_not_confirmed_by_who_votes_behind_it() -> None:
    """1 has lost {3, 4, 5} to another master, and fetches what that has chosen, the change to {1, 2, 6} with it. Who voted
    where the read came in is not known any more; 2's answer is of before."""
    core = master(5)
    core.read(T + 10 * MS, 1)
    (round_,) = {fields["sent_at"] for _, fields, _ in sent(core.pump(T + 10 * MS), "heartbeat")}
    six = [row(1), row(2), row(3), row(4), row(5), row(6, LEARNER)]
    three = [row(1), row(2), row(3, LEAVING), row(4, LEAVING), row(5, LEAVING), row(6)]
    core.receive(T + 11 * MS, learned(1, [(1, X), (CHANGE, change(six)), (CHANGE, change(three, 1)), *noops(ALPHA)]))
    assert [member[0] for member in core.state()["members"]] == [1, 2, 0, 0, 0, 6]
    effects = core.receive(T + 11 * MS, frame(HEARTBEAT_REPLY, 2, ballot=ballot(1, 1), sent_at=round_))
    assert "readable" not in kinds(effects)


def test_a_node_without_a_vote_tells_a_candidate_what_it_knows() -> None:
    """Those who left may be the only ones who know all that was chosen before."""
    core = follower(2, of=1)
    core.receive(T, learned(0, [(CHANGE, change(FIVE)), (CHANGE, change(MOVED, 1)), *noops(ALPHA - 1)], sender=1))
    assert core.state()["chosen"] == 1 + ALPHA
    assert not core.state()["votes"]
    effects = core.receive(T, frame(PREVOTE, 4, ballot=ballot(9, 4), chosen=5))
    ((to, fields, _),) = sent(effects, "prevote_reply")
    assert (to, fields.get("granted", 0), fields["n"]) == ([4], 0, 1 + ALPHA)


def test_who_hears_nothing_and_has_no_vote_asks_one_after_the_other() -> None:
    core = Core(4, [row(1), row(2), row(3), row(4, LEARNER)])
    core.start(T)
    asked = []
    for _ in range(4):
        effects = core.tick(core.deadline())
        assert "prevote" not in kinds(effects)
        asked += [to[0] for to, _, _ in sent(effects, "learn")]
    assert len(set(asked)) > 1


def test_a_master_that_is_removed_hands_over_while_it_still_has_a_vote() -> None:
    core = master()
    now = T + 10 * MS
    for peer in (2, 3):
        core.receive(
            now, frame(HEARTBEAT_REPLY, peer, ballot=ballot(1, 1), priority=1, chosen=1, chain=core.state()["chain"])
        )
    effects = changed(core, [row(1, LEAVING), row(2), row(3)], [2], now)
    effects += core.pump(now)
    ((to, _, _),) = sent(effects, "transfer")
    assert to[0] in (2, 3)


def test_the_rest_of_a_replacement_comes_in_one_change() -> None:
    """4 comes instead of 3: when it is level, it votes and 3 leaves."""
    core = master()
    changed(core, [row(1), row(2), row(3), row(4, LEARNER, 3)], [2])
    now = core.deadline()
    assert instances([*core.tick(now), *core.pump(now)]) == [], "it was not heard yet"
    core.receive(now, frame(HEARTBEAT_REPLY, 4, ballot=ballot(1, 1), chosen=0))
    now = core.deadline()
    effects = [*core.tick(now), *core.pump(now)]
    ((_, _, data),) = sent(effects, "accept")
    table = [row(1), row(2), row(3, LEAVING), row(4)]
    assert data == change(table, 1, [0, 0, 0, 1 + ALPHA])


def test_a_learner_that_is_far_behind_is_not_made_a_voter() -> None:
    core = master()
    changed(core, [row(1), row(2), row(3), row(4, LEARNER)], [2])
    core.receive(T, learned(2, noops(600)))
    now = core.deadline()
    core.receive(now, frame(HEARTBEAT_REPLY, 4, ballot=ballot(1, 1), chosen=3))
    now = core.deadline()
    assert CHANGE not in [fields.get("value") for _, fields, _ in sent([*core.tick(now), *core.pump(now)], "accept")]
    assert core.state()["roles"][3] == LEARNER


def test_a_learner_learns_and_reads_and_proposes() -> None:
    core = Core(4, [row(1), row(2), row(3), row(4, LEARNER)])
    core.start(T)
    effects = core.receive(T, frame(HEARTBEAT, 1, ballot=ballot(1, 1), settled=1, chosen=3))
    assert [to for to, _, _ in sent(effects, "learn")] == [[1]]
    core.submit(T, 1, [b"v"], T + 1000 * MS)
    core.read(T, 1)
    assert {"forward", "read"} <= set(kinds(core.pump(T)))
    assert "promise" not in kinds(core.receive(T, frame(PREPARE, 2, ballot=ballot(9, 2), attempt=1)))


# ---- followers


def asks(effects: Effects) -> list[int]:
    return [to[0] for to, _, _ in sent(effects, "learn")]


def test_a_follower_learns_from_whom_it_was_told_and_from_others_while_they_do_not_answer() -> None:
    core = Core(4, [row(1), row(2), row(3), row(4, FOLLOWER)], follow=[3, 2])
    core.start(T)
    news = frame(HEARTBEAT, 1, ballot=ballot(1, 1), settled=1, chosen=3)
    assert asks(core.receive(T, news)) == [3]
    assert asks(core.receive(T, learned(0, noops(2), sender=3))) == [3], "there is more"
    now = core.deadline()
    assert asks(core.tick(now)) == [2], "3 does not answer: the next that it was told"
    now = core.deadline()
    assert asks(core.tick(now)) == [1], "nor does 2: then whoever may know"
    now += 10_000 * MS
    core.receive(now, learned(2, noops(1), sender=1))
    assert asks(core.receive(now, frame(HEARTBEAT, 1, ballot=ballot(1, 1), settled=1, chosen=9))) == [3], (
        "it is asked again"
    )


def test_a_follower_does_not_ask_who_is_down_or_has_deleted_it() -> None:
    core = Core(4, [row(1), row(2), row(3), row(4, FOLLOWER)], follow=[3, 2])
    core.start(T)
    core.peer(T, 2, False)
    news = frame(HEARTBEAT, 1, ballot=ballot(1, 1), settled=1, chosen=3)
    assert asks(core.receive(T, news)) == [2]
    core = Core(4, [row(1), row(2), row(3), row(4, FOLLOWER)], follow=[3, 2])
    core.start(T)
    assert asks(core.receive(T, frame(KEPT, 3, asked=0, first_kept=2, chosen=3))) == [2]


def test_who_votes_asks_whoever_knows_most() -> None:
    core = Core(2, [row(1), row(2), row(3)], follow=[3])
    core.start(T)
    assert asks(core.receive(T, frame(HEARTBEAT, 1, ballot=ballot(1, 1), settled=1, chosen=3))) == [1]


def test_who_is_asked_too_early_answers_when_it_knows() -> None:
    """A follower hears of an instance from the master, and asks a node that hears of it a little later."""
    core = follower(2, of=1)
    early = frame(LEARN, 3, first=0, end=9, max_bytes=1000)
    assert [e for e in core.receive(T, early) if e[0] == "read"] == []
    effects = core.receive(T, learned(0, noops(2), sender=1))
    assert [e for e in effects if e[0] == "read"] == [("read", 0b100, 0, 2, 1000)]
    assert [e for e in core.receive(T, learned(2, noops(1), sender=1)) if e[0] == "read"] == [], "once"
