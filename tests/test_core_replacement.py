"""The core, step by step: another incarnation in a lost member's place, where the log begins, checkpoints from elsewhere."""

from __future__ import annotations

import struct

import pytest

from frames import (
    ACCEPT,
    ACCEPTED,
    CHANGE,
    FOLLOWER,
    HEARTBEAT,
    KEPT,
    LEARN,
    LEARNED,
    LEAVING,
    NOOP,
    OTHER_INCARNATION,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    PROMISE,
    PROMISE_VALUE,
    RECORD_ACCEPT,
    RECORD_BASE,
    RECORD_LEARN,
    RECORD_PROMISE,
    RECORD_WATERMARK,
    REJECT,
    VALUE,
    VOTER,
    Ballot,
    ballot,
    chain,
    frame,
    members,
    record,
    row,
    short,
    table,
)
from paxos._stepping import Core
from steps import ALPHA, MS, RING, Effects, T, X, Y, candidate, follower, kinds, master, node

NEW = OTHER_INCARNATION
LONG = 700 * MS  # more than the longest election timeout: who has not been heard for so long is gone


def change(of: int, version: int = 0, new: tuple[int, int] = NEW, core: Core | None = None, count: int = 3) -> bytes:
    """The table with another incarnation in the place of a member; the other rows as that core knows them."""
    rows = [(*m, 0) for m in members(count)] if core is None else core.state()["members"]
    return table([row(n, inc=new if n == of else (hi, lo), since=since) for n, hi, lo, since in rows], version)


def learned(first: int, values: list[tuple[int, bytes]], sender: int = 2, inc: tuple[int, int] | None = None) -> bytes:
    """LEARNED with (kind, bytes) from an instance on."""
    data = b"".join(VALUE.pack(len(v), 1 if kind == 1 else 0, kind, 0) + v for kind, v in values)
    return frame(LEARNED, sender, chosen=first + len(values), first=first, count=len(values), data=data, inc=inc)


def noops(count: int) -> list[tuple[int, bytes]]:
    return [(NOOP, b"")] * count


def proposed(effects: Effects) -> list[tuple[int, bytes]]:
    """(instance, value) of each Accept."""
    return [(e[4].get("instance", 0), e[5]) for e in short(effects) if e[0] == "send" and e[1] == "accept"]  # type: ignore[attr-defined,misc]


def asked(core: Core, now: int, of: int, new: tuple[int, int] = NEW) -> list[tuple[int, bytes]]:
    """What is proposed when another incarnation asks for the place of a member."""
    return proposed([*core.replace(now, of, new), *core.pump(now)])


def agree(core: Core, at: int, now: int, peers: tuple[int, ...] = (2,)) -> Effects:
    """The own write is durable, and these accept the instance."""
    effects = list(core.durable(now, core.state()["logged"]))
    for peer in peers:
        effects += core.receive(now, frame(ACCEPTED, peer, ballot=ballot(1, 1), first=at, last=at))
    return effects


# ---- being chosen


def test_a_master_proposes_the_new_incarnation_when_the_old_one_is_not_heard_any_more() -> None:
    core = master()
    core.receive(T + LONG - 100 * MS, frame(HEARTBEAT, 3, ballot=ballot(0, 3)))
    assert asked(core, T + LONG, 3) == [], "the old one is there: two processes go by one id"
    later = T + 2 * LONG
    core.receive(later, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))
    assert asked(core, later, 3) == [(1, change(3))]
    assert asked(core, later, 3) == [], "once is enough"
    assert asked(core, later, 2) == [], "2 is heard"
    effects = agree(core, 1, later)
    assert ("membership", 2, 1 + ALPHA) in effects
    assert core.state()["members"][2] == (3, *NEW, 1 + ALPHA)
    assert core.state()["version"] == 1
    assert {value for _, value in asked(core, later, 3)} == {b""}, "it is a member now"


def test_one_change_waits_until_the_one_before_it_is_in_force() -> None:
    """3 was lost and replaced; 2 is paused for a moment, and somebody starts another process under its id. Were 2 replaced as
    well before the new 3 has its vote, nobody but 1 would have one, and there would be no way on."""
    core = master()
    now = T + 2 * LONG
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))
    assert asked(core, now, 3) == [(1, change(3))]
    agree(core, 1, now)
    now += 2 * LONG  # nothing is heard of 2 any more
    assert {value for _, value in asked(core, now, 2, (5, 5))} == {b""}, "only the no-ops that carry the group on"
    core.receive(now, learned(2, noops(ALPHA - 1), sender=3, inc=NEW))
    assert core.state()["chosen"] == 1 + ALPHA
    wanted = change(2, version=1, new=(5, 5), core=core)
    values = [value for _, value in asked(core, now, 2, (5, 5))]
    assert wanted not in values, "the first instance where it counts is not chosen"
    core.receive(now, learned(1 + ALPHA, noops(1), sender=3, inc=NEW))
    assert asked(core, now, 2, (5, 5))[-1][1] == wanted


def test_who_asks_does_not_wait_behind_values() -> None:
    """With one instance in flight and a queue that is never empty the window is always full when somebody asks."""
    core = master(window=1)
    now = T + 2 * LONG
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))
    for seq in range(1, 9):
        core.submit(now, seq, [b"v"], now + 10_000 * MS)
    core.pump(now)
    assert asked(core, now, 3) == []
    agree(core, 1, now)
    assert proposed(core.pump(now)) == [(2, change(3))]


def test_who_is_no_master_proposes_nobody() -> None:
    for core in (node(), candidate(), follower()):
        assert asked(core, T + LONG, 3) == []


def test_an_idle_group_is_carried_to_where_the_change_is_in_force() -> None:
    """Rule 7: else the new one would wait for its vote until somebody has 64 values to propose."""
    core = master()
    now = T + 2 * LONG
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))
    asked(core, now, 3)
    agree(core, 1, now)
    at = 2
    while at < 2 + ALPHA:
        accepts = proposed(core.pump(now))
        assert accepts
        assert all(value == b"" for _, value in accepts), f"nothing carries it on from {at}"
        for instance, _ in accepts:
            assert instance == at
            agree(core, instance, now)
            at += 1
    assert core.state()["chosen"] == 2 + ALPHA, (
        "the first instance at which it counts is chosen by those who count there"
    )
    assert core.pump(now) == [], "and no further"


ROWS = [row(1), row(2), row(3)]


@pytest.mark.parametrize(
    ("rows", "version"),
    [
        pytest.param([*ROWS[:2], row(3, inc=NEW)], 1, id="based on another version"),
        pytest.param(ROWS[:2], 0, id="a place is gone"),
        pytest.param([*ROWS[:2], bytes(40)], 0, id="a voter goes at once"),
        pytest.param([*ROWS[:2], row(9)], 0, id="the place of a voter for another node"),
        pytest.param([row(2), row(1), row(3)], 0, id="voters change places"),
        pytest.param([*ROWS[:2], row(3, LEAVING, NEW)], 0, id="who leaves is another one"),
        pytest.param([*ROWS, row(4, LEAVING)], 0, id="somebody leaves who was not there"),
    ],
)
def test_a_change_that_does_not_fit_is_void(rows: list[bytes], version: int) -> None:
    core = follower()
    effects = core.receive(T, learned(0, [(CHANGE, table(rows, version))]))
    assert not [e for e in effects if e[0] == "membership"]
    assert core.state()["chosen"] == 1
    assert core.state()["members"] == [(*m, 0) for m in members(3)]
    assert core.state()["version"] == 0
    assert core.state()["in_force"] == 0


def test_a_change_while_another_is_under_way_is_void() -> None:
    core = follower()
    core.receive(T, learned(0, [(CHANGE, change(3))]))
    more = table([row(1), row(2), row(3, inc=NEW), row(4, FOLLOWER, (0, 0))], 1)
    core.receive(T, learned(1, [(CHANGE, more)]))
    assert core.state()["version"] == 1
    core.receive(T, learned(2, [*noops(ALPHA - 2), (CHANGE, more)]))
    assert core.state()["version"] == 1, "the instance from which on the first counts is part of it"
    core.receive(T, learned(1 + ALPHA, [(CHANGE, more)]))
    assert core.state()["version"] == 2
    assert core.state()["roles"] == [VOTER, VOTER, VOTER, FOLLOWER]


def test_one_change_twice_is_one_change() -> None:
    """Behind a checkpoint that knows it already it is applied again."""
    core = follower()
    core.receive(T, learned(0, [(CHANGE, change(3)), (CHANGE, change(3))]))
    assert core.state()["version"] == 1
    assert core.state()["members"][2] == (3, *NEW, ALPHA)


# ---- rule 8: on which promises a ballot stands


def elected_with_the_lost_one() -> tuple[Core, Effects]:
    """1 was elected by itself and 3, which was then lost and replaced: of those in force from 1 + ALPHA on, 1, 2 and the new 3,
    only 1 has promised. With what it does about that."""
    core = candidate(core=node(window=1, batch_values=1))
    core.receive(T, frame(PROMISE, 3, ballot=ballot(1, 1), attempt=1))
    core.pump(T)
    agree(core, 0, T)
    assert core.state()["settled"]
    effects = core.receive(T, learned(1, [(CHANGE, change(3))]))
    assert ("membership", 2, 1 + ALPHA) in effects
    return core, effects


def prepares(effects: Effects) -> list[tuple[object, object]]:
    """(to whom, fields) of each Prepare."""
    return [(e[2], e[4]) for e in short(effects) if e[0] == "send" and e[1] == "prepare"]


def promise(core: Core, peer: int, inc: tuple[int, int] | None = None, **fields: int) -> Effects:
    at = dict(chosen=core.state()["chosen"], chain=core.state()["chain"])
    return core.receive(T, frame(PROMISE, peer, inc=inc, **at, ballot=ballot(1, 1), attempt=2, **fields))


def carried(core: Core) -> None:
    """1 and 2 accept all that may be proposed now."""
    for seq in range(1, 2 * ALPHA):
        core.submit(T, seq, [b"v"], T + 10_000 * MS)
    while accepts := proposed(core.pump(T)):
        for instance, _ in accepts:
            agree(core, instance, T)


def test_a_master_whose_quorum_needs_the_replaced_one_asks_the_new_voters_and_waits_where_they_count() -> None:
    """Were it to go on, an acceptor among them that has promised a higher ballot could be passed over (rule 8). Its ballot is
    good below; so it stays, and gets the promises that are missing under the same one."""
    core, effects = elected_with_the_lost_one()
    assert core.state()["role"] == "master"
    assert core.state()["extending"]
    wanted = [([2, 3], {"ballot": (1, 1), "first": 1 + ALPHA, "attempt": 2, "n": 2})]
    assert prepares(effects) == wanted
    later = T + 100 * MS
    assert later >= core.deadline()
    assert prepares(core.tick(later)) == wanted, "who has not answered is asked again"
    carried(core)
    assert core.state()["chosen"] == 1 + ALPHA, "all below, and nothing above"
    assert proposed(core.pump(T)) == []
    promise(core, 3)
    assert core.state()["extending"], "the old 3 is nobody any more"
    core.receive(T, frame(PROMISE, 2, chosen=1 + ALPHA, chain=core.state()["chain"], ballot=ballot(1, 1), attempt=1))
    assert core.state()["extending"], "an answer to what the candidate asked"
    promise(core, 2)
    assert not core.state()["extending"]
    assert core.state()["role"] == "master"
    assert [instance for instance, _ in proposed(core.pump(T))] == [1 + ALPHA]


def test_the_new_one_itself_makes_the_quorum_as_well() -> None:
    core, _ = elected_with_the_lost_one()
    promise(core, 3, NEW)
    assert not core.state()["extending"]
    carried(core)
    assert core.state()["chosen"] > 1 + ALPHA


def test_what_the_new_voters_report_is_proposed_before_anything_new() -> None:
    """Rule 4: another ballot had got as far as that."""
    core, _ = elected_with_the_lost_one()
    carried(core)
    at = dict(chosen=core.state()["chosen"], chain=core.state()["chain"])
    core.receive(
        T,
        frame(
            PROMISE_VALUE, 2, **at, ballot=ballot(1, 1), accepted=(1, 0, 9, 9), instance=2 + ALPHA, attempt=2, data=Y
        ),
    )
    promise(core, 2)
    assert core.state()["extending"], "a report is still to come"
    promise(core, 2, count=1)
    assert not core.state()["extending"]
    assert proposed(core.pump(T))[:2] == [(1 + ALPHA, b""), (2 + ALPHA, Y)]


def test_a_new_voter_that_has_promised_a_higher_ballot_ends_it() -> None:
    core, _ = elected_with_the_lost_one()
    higher: Ballot = (2, 3, *NEW)
    core.receive(T, frame(REJECT, 3, inc=NEW, ballot=ballot(1, 1), promised=higher))
    assert core.state()["role"] == "follower"
    assert not core.state()["extending"]
    assert proposed(core.pump(T)) == []


def test_a_master_with_a_quorum_without_the_replaced_one_goes_on() -> None:
    core = master()  # elected by 1 and 2
    core.receive(T, learned(1, [(CHANGE, change(3))]))
    assert core.state()["role"] == "master"
    assert not core.state()["extending"], "1 and 2 have promised, and are a majority of the new voters"


def test_a_candidate_forgets_the_promise_of_the_replaced_one() -> None:
    core = candidate(5)
    core.receive(T, frame(PROMISE, 4, ballot=ballot(1, 1), attempt=1))
    core.receive(T, learned(0, [(CHANGE, change(4, count=5))]))
    core.receive(T, frame(PROMISE, 2, chosen=1, chain=core.state()["chain"], ballot=ballot(1, 1), attempt=2))
    assert core.state()["role"] == "preparing", "1 and 2 are no majority of five"
    core.receive(T, frame(PROMISE, 4, chosen=1, chain=core.state()["chain"], ballot=ballot(1, 1), attempt=2))
    assert core.state()["role"] == "preparing", "the old incarnation of 4 has no say"
    core.receive(T, frame(PROMISE, 3, chosen=1, chain=core.state()["chain"], ballot=ballot(1, 1), attempt=2))
    assert core.state()["role"] == "master"


# ---- rule 10: who votes


def newcomer() -> Core:
    """Node 3 as an incarnation that is no member yet."""
    core = Core(3, members(3), incarnation=NEW)
    assert core.state()["outsider"]
    assert core.start(T) == []
    return core


def test_who_is_no_member_learns_and_has_no_say() -> None:
    core = newcomer()
    assert core.receive(T, frame(PREPARE, 1, ballot=ballot(1, 1), attempt=1)) == []
    assert core.receive(T, frame(PREVOTE, 1, ballot=ballot(1, 1))) == []
    effects = core.receive(T, frame(ACCEPT, 1, ballot=ballot(1, 1), data=X))
    assert not [e for e in effects if e[0] in ("send", "log")]
    assert core.submit(T, 1, [b"mine"], T + 1000 * MS) == []
    assert kinds(core.pump(T)) == [], "nobody would take it"
    core.tick(core.deadline())
    assert core.state()["role"] == "follower"
    asked = core.receive(T, frame(HEARTBEAT, 2, chosen=5, ballot=ballot(1, 2)))
    assert [e for e in short(asked) if e[0] == "send" and e[1] == "learn" and e[2] == [2]]


def test_it_learns_from_members_that_it_does_not_know_yet() -> None:
    """All others may have been replaced since the formation: their watermarks are heard, and their answers taken."""
    core = newcomer()
    asked = core.receive(T, frame(HEARTBEAT, 2, chosen=1, ballot=ballot(1, 2), inc=(5, 5)))
    assert kinds(asked) == ["learn"]
    assert core.state()["master"] == 0, "but it is no master of theirs that it could follow"
    core.receive(T, learned(0, noops(1), inc=(5, 5)))
    assert core.state()["chosen"] == 1


def test_it_votes_when_it_knows_everything_below_its_first_instance() -> None:
    core = newcomer()
    core.receive(T, learned(0, [(CHANGE, change(3)), *noops(ALPHA - 2)]))
    assert not core.state()["outsider"]
    assert core.state()["chosen"] == ALPHA - 1
    at = dict(chosen=ALPHA - 1, chain=core.state()["chain"])
    assert core.receive(T, frame(PREPARE, 1, **at, ballot=ballot(1, 1), attempt=1)) == [], "one instance is missing"
    effects = core.receive(T, frame(ACCEPT, 1, **at, ballot=ballot(1, 1), instance=ALPHA - 1, data=X))
    assert "accepted" not in kinds(effects)
    effects = core.receive(T, learned(ALPHA - 1, noops(1)))
    (answer,) = [e for e in short(effects) if e[0] == "send" and e[1] == "promise"]
    assert (answer[2], answer[4]) == ([1], {"ballot": (1, 1), "attempt": 1, "n": ALPHA}), (
        "a master waits for it: at once"
    )
    assert "promise" not in kinds(core.tick(T + MS)), "once"
    assert "promise" in kinds(core.receive(T, frame(PREPARE, 1, ballot=ballot(1, 1), attempt=1))), (
        "and to who asks again"
    )


def test_what_a_new_voter_owes_is_owed_to_the_newest_prepare() -> None:
    core = newcomer()
    core.receive(T, learned(0, [(CHANGE, change(3)), *noops(ALPHA - 2)]))
    at = dict(chosen=ALPHA - 1, chain=core.state()["chain"])
    for peer, number in ((1, 1), (2, 2), (2, 3)):
        assert core.receive(T, frame(PREPARE, peer, **at, ballot=ballot(number, peer), attempt=number)) == []
    effects = core.receive(T, learned(ALPHA - 1, noops(1)))
    answers = [(e[2], e[4]) for e in short(effects) if e[0] == "send" and e[1] == "promise"]
    assert answers == [([2], {"ballot": (3, 2), "attempt": 3, "n": ALPHA})]
    assert core.state()["promised"] == ballot(3, 2)


def test_a_member_ignores_the_old_incarnation_and_hears_the_new_one() -> None:
    core = follower(1, 2)
    core.receive(T, learned(0, [(CHANGE, change(3))]))
    refused = core.state()["refused"]
    assert core.receive(T, frame(PREPARE, 3, ballot=ballot(9, 3), attempt=1)) == []
    assert core.state()["refused"] == refused + 1
    raised = (9, 3, *NEW)
    assert "promise" in kinds(core.receive(T, frame(PREPARE, 3, inc=NEW, ballot=raised, attempt=1)))


def test_who_finds_itself_replaced_steps_down_and_stays_silent() -> None:
    core = master()
    effects = core.receive(T, learned(1, [(CHANGE, change(1))]))
    assert core.state()["outsider"]
    assert core.state()["role"] == "follower"
    assert not [e for e in effects if e[0] == "send" and e[1]]
    core.tick(core.deadline())
    assert core.state()["role"] == "follower"


# ---- where the log begins


def test_what_is_deleted_is_answered_with_what_is_kept() -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    core.base(T, 6, 123)
    assert core.state()["first_kept"] == 6
    assert short(core.receive(T, frame(LEARN, 3, first=5, end=10, max_bytes=100)))[0][:5] == (
        "send", "kept", [3], 0, {"asked": 5, "first_kept": 6, "n": 10})  # fmt: skip
    assert core.receive(T, frame(LEARN, 3, first=6, end=10, max_bytes=100)) == [("read", 0b100, 6, 10, 100)]


def test_the_host_hears_that_what_is_needed_is_deleted_elsewhere() -> None:
    core = follower()
    core.receive(T, frame(HEARTBEAT, 2, chosen=10, ballot=ballot(1, 2)))
    assert core.receive(T, frame(KEPT, 2, chosen=10, asked=0, first_kept=6)) == [("behind", 6, 2)]
    assert core.receive(T, frame(KEPT, 2, chosen=10, asked=3, first_kept=6)) == [], "of another question"
    assert core.receive(T, frame(KEPT, 2, chosen=10, asked=0, first_kept=0)) == []
    asked = short(core.tick(core.deadline()))
    assert [e[2] for e in asked if e[1] == "learn"] == [[3]], "another may have it still"


def test_a_base_is_never_above_the_watermark_and_never_goes_back() -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    assert core.base(T, 11, 1) == []
    assert core.base(T, 0, 1) == []
    assert [e[2] for e in core.base(T, 10, 1)] == [RECORD_BASE]
    assert core.base(T, 10, 1) == []
    assert core.base(T, 9, 1) == []


def test_who_would_need_a_checkpoint_first_gets_no_vote_for_an_election() -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    core.base(T, 6, 123)
    later = T + 5000 * MS
    (reply,) = short(core.receive(later, frame(PREVOTE, 3, chosen=5, ballot=ballot(5, 3))))
    assert "granted" not in reply[4]
    (reply,) = short(core.receive(later, frame(PREVOTE, 3, chosen=6, ballot=ballot(5, 3))))
    assert reply[4]["granted"] == 1


def base_body(core: Core) -> bytes:
    """Of a RECORD_BASE at the watermark."""
    (effect,) = [e for e in core.base(T, core.state()["chosen"], core.state()["chain"]) if e[0] == "log"]
    assert effect[2] == RECORD_BASE
    body = effect[4]
    assert isinstance(body, bytes)
    return body


def test_a_restart_begins_where_the_newest_base_says() -> None:
    """Rule 15: promise, chain checksum and membership come from it; what stands above in the log is taken up behind it."""
    core = follower()
    core.receive(T, frame(PREPARE, 3, ballot=ballot(4, 3), attempt=1))
    core.receive(T, learned(0, [(CHANGE, change(2)), *noops(9)]))
    body = base_body(core)
    at, checksum = core.state()["chosen"], core.state()["chain"]
    again = node()
    assert again.restore_base(at, body)
    before = [
        (RECORD_PROMISE, 0, record(RECORD_PROMISE, ballot=ballot(3, 3))),
        (RECORD_LEARN, 9, record(RECORD_LEARN, chosen=9, chain=77, data=X)),  # deleted: not compared with anything
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=4, chain=99)),
        (RECORD_ACCEPT, at + 1, record(RECORD_ACCEPT, ballot=ballot(4, 3), chosen=at - 1, chain=5, data=X)),
        (RECORD_BASE, at, body),
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=at, chain=checksum)),
        (RECORD_BASE, at, body),  # written again, for the segment of the first one is damaged
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=at, chain=checksum)),
    ]
    for found in before:
        assert again.restore(*found), found
    state = again.state()
    assert (state["chosen"], state["chain"], state["first_kept"]) == (at, checksum, at)
    assert state["promised"] == ballot(4, 3)
    assert state["members"] == core.state()["members"]
    assert state["version"] == 1
    assert [row[0] for row in state["accepted"]] == [at + 1]


@pytest.mark.parametrize(
    ("kind", "instance", "body"),
    [
        (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=4, chain=99)),
        (RECORD_LEARN, 4, record(RECORD_LEARN, chosen=4, chain=99, data=X)),
        (RECORD_ACCEPT, 4, record(RECORD_ACCEPT, ballot=ballot(9, 3), chosen=10, chain=0, data=X)),
        (RECORD_BASE, 9, b""),
        (RECORD_BASE, 11, b""),
    ],
)
def test_behind_its_base_a_log_does_not_go_back(kind: int, instance: int, body: bytes) -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    base = base_body(core)
    again = node()
    assert again.restore_base(10, base)
    assert again.restore(RECORD_BASE, 10, base)
    assert not again.restore(kind, instance, body)


def test_a_base_that_is_malformed_is_damage() -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    body = base_body(core)
    for wrong in (b"", body[:-1], body + b"\0", body[:36] + struct.pack("<I", 2) + body[40:],
                  body[:44] + struct.pack("<I", 4) + body[48:]):  # fmt: skip
        assert not node().restore_base(10, wrong)
    assert not node(1, 5).restore_base(10, body), "of a cluster with other nodes"
    assert not Core(1, [*members(3)[:2], (9, 1, 1)]).restore_base(10, body), "as many of them"


# ---- a checkpoint from elsewhere


def test_a_checkpoint_moves_the_watermark_and_leaves_the_acceptor_alone() -> None:
    """Rule 15: it neither lowers nor brings acceptor state."""
    core = follower()
    for instance in (5, 50):
        core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=instance, data=X))
    core.receive(T, frame(PREPARE, 3, ballot=ballot(4, 3), attempt=1))
    new = [(*m, 0) for m in members(3)[:2]] + [(3, *NEW, 7)]
    effects = core.install(T, 20, 4711, new, 1)
    assert ("installed", 20, 4711) in effects
    assert ("membership", 2, 7) in effects
    assert [e[2] for e in effects if e[0] == "log"] == [RECORD_BASE]
    state = core.state()
    assert (state["chosen"], state["chain"], state["first_kept"]) == (20, 4711, 20)
    assert state["promised"] == ballot(4, 3)
    assert [row[0] for row in state["accepted"]] == [50]
    assert state["members"] == new


def test_an_older_checkpoint_changes_nothing() -> None:
    core = follower()
    core.receive(T, learned(0, noops(10)))
    assert core.install(T, 10, 1) == []
    assert core.install(T, 3, 1) == []
    assert core.state()["first_kept"] == 0


def test_a_checkpoint_far_ahead_leaves_nothing_below_in_the_ring() -> None:
    core = follower()
    core.receive(T, frame(ACCEPT, 2, ballot=ballot(1, 2), instance=5, data=X))
    core.install(T, 3 * RING + 5, 1)
    core.receive(T, frame(ACCEPT, 2, chosen=3 * RING + 5, chain=1, ballot=ballot(2, 2), instance=3 * RING + 5))
    assert core.state()["accepted"] == [(3 * RING + 5, ballot(2, 2), b"")]


def test_learning_goes_on_behind_a_checkpoint() -> None:
    core = follower()
    core.receive(T, frame(HEARTBEAT, 2, chosen=30, ballot=ballot(1, 2)))
    asked = short([e for e in core.install(T, 20, 4711) if e[0] == "send"])
    assert [e[4]["first"] for e in asked if e[0] == "send" and e[1] == "learn"] == [20]
    core.receive(T, learned(20, noops(10)))
    assert core.state()["chosen"] == 30
    assert core.state()["chain"] == chain(noops(10), 20, 4711)


def test_a_master_of_long_ago_that_gets_a_checkpoint_is_none_any_more() -> None:
    core = master()
    core.install(T, 20, 4711)
    assert core.state()["role"] == "follower"
    core.receive(T, frame(PREVOTE_REPLY, 2, ballot=ballot(1, 1), granted=1))
    assert core.state()["role"] == "follower"
