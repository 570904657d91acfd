"""One test per transition, reads without the log: whose answers the master counts, and what it and its followers remember."""

from __future__ import annotations

import pytest

from frames import (
    ACCEPTED,
    HEARTBEAT,
    HEARTBEAT_REPLY,
    NOOP,
    OTHER_INCARNATION,
    PREVOTE_REPLY,
    PROMISE,
    READ,
    READABLE,
    REJECT,
    Ballot,
    ballot,
    chain,
    frame,
    incarnation,
    short,
)
from paxos._stepping import Core
from steps import ALPHA, MS, T, candidate, follower, kinds, master, node
from test_core_replacement import asked as replacement
from test_core_replacement import change, learned

AT = T + 100 * MS  # after all that made the master


def beat(at: int, to: tuple[int, ...] = (2, 3), chosen: int = 1) -> tuple[object, ...]:
    """The round that is sent at a moment; its number is the time."""
    return ("send", "heartbeat", list(to), 1, {"ballot": (1, 1), "settled": 1, "sent_at": at, "n": chosen}, b"")


def answer(peer: int, sent_at: int, under: Ballot | None = None, inc: tuple[int, int] | None = None) -> bytes:
    return frame(HEARTBEAT_REPLY, peer, ballot=under or ballot(1, 1), sent_at=sent_at, inc=inc)


def ask(peer: int, token: int, boot: int = 1, life: int = 0) -> bytes:
    return frame(READ, peer, token=token, boot=boot, life=life)


def told(peer: int, token: int, index: int, boot: int = 1, life: int = 0, chosen: int = 1) -> tuple[object, ...]:
    """What a follower's read is answered with."""
    fields = {"token": token, "boot": boot, "life": life, "index": index, "n": chosen}
    return ("send", "readable", [peer], 0, {name: value for name, value in fields.items() if value}, b"")


def readable(core: Core, token: int, index: int = 5, boot: int = 1, life: int = 11) -> list[tuple[object, ...]]:
    return core.receive(AT, frame(READABLE, 2, token=token, boot=boot, life=life, index=index))


# ---- the master ----


def test_a_cluster_of_one_confirms_by_itself() -> None:
    core = Core(1, [(1, 7, 11)])
    core.start(T)
    core.tick(core.deadline())
    core.durable(T, 1)
    core.pump(T)
    assert core.read(T, 7) == []
    assert core.pump(T) == [], "nothing of its own ballot is chosen yet"
    assert [effect[0] for effect in core.durable(T, 2)] == ["chosen", "mastership", "master"]
    assert core.pump(T) == [("readable", 1, 7)]
    assert core.pump(T) == []
    core.read(T, 8)
    assert core.pump(T) == [("readable", 1, 8)]


def test_one_round_at_the_pump_for_all_that_wait() -> None:
    core = master()
    assert core.read(AT, 7) == []
    assert core.receive(AT, ask(2, 70, life=22)) == []
    assert core.receive(AT, ask(3, 71, boot=4)) == []
    assert short(core.pump(AT)) == [beat(AT)]
    assert core.pump(AT) == []
    assert short(core.receive(AT, answer(3, AT))) == [
        ("readable", 1, 7),
        told(2, 70, 1, life=22),
        told(3, 71, 1, boot=4),
    ]
    assert core.receive(AT, answer(2, AT)) == []
    assert core.pump(AT) == []


def test_of_five_two_others_have_to_answer() -> None:
    core = master(5)
    core.read(AT, 7)
    assert short(core.pump(AT)) == [beat(AT, (2, 3, 4, 5))]
    assert core.receive(AT, answer(4, AT)) == []
    assert core.receive(AT, answer(4, AT)) == [], "the same once more is one answer"
    assert core.receive(AT, answer(2, AT)) == [("readable", 1, 7)]


def test_a_master_that_has_chosen_nothing_of_its_own_asks_nobody() -> None:
    core = master(takeover=False)
    core.read(T, 7)
    core.receive(T, ask(2, 70))
    assert core.pump(T) == []
    core.durable(T, core.state()["logged"])
    settled = core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1)))
    assert kinds(settled) == ["chosen", "mastership", "master", "heartbeat"]
    assert core.receive(T, answer(2, T)) == [], "that heartbeat was not sent for the reads"
    assert short(core.pump(T)) == [beat(T + 1)], "a round of its own, with a number of its own"
    assert short(core.receive(T, answer(2, T + 1))) == [("readable", 1, 7), told(2, 70, 1)]


def test_an_answer_to_a_round_that_was_sent_before_the_read_came_is_none() -> None:
    core = master()
    assert beat(AT) in short(core.tick(AT))  # its usual heartbeat
    core.read(AT, 7)
    assert short(core.pump(AT)) == [beat(AT + 1)]
    assert core.receive(AT, answer(2, AT)) == []
    assert core.receive(AT, answer(2, AT + 2)) == [], "nor is one to a round that was never sent"
    assert core.receive(AT, answer(2, AT + 1)) == [("readable", 1, 7)]


def test_an_answer_to_a_later_heartbeat_will_do() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    later = AT + 60 * MS
    assert beat(later) in short(core.tick(later))
    assert core.receive(later, answer(2, later)) == [("readable", 1, 7)]
    assert core.receive(later, answer(3, AT)) == [], "and the one that it was sent for comes late"


def test_answers_under_another_ballot_are_none() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    for other in (ballot(0, 1), ballot(2, 1), (1, 1, 99, 99)):
        assert core.receive(AT, answer(2, AT, other)) == []
        assert core.receive(AT, answer(3, AT, other)) == []
    assert core.receive(AT, answer(2, AT)) == [("readable", 1, 7)]


def test_who_has_no_vote_confirms_nothing() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    assert core.receive(AT, answer(2, 0)) == []
    assert core.receive(AT, answer(3, 0)) == []
    assert core.receive(AT, answer(2, AT)) == [("readable", 1, 7)]


def test_who_is_no_member_confirms_and_reads_nothing() -> None:
    core = master()
    core.read(AT, 7)
    assert core.receive(AT, frame(READ, 2, token=70, inc=(5, 5))) == []
    core.pump(AT)
    assert core.receive(AT, answer(2, AT, inc=(5, 5))) == []
    assert core.state()["refused"] == 2
    assert core.receive(AT, answer(3, AT)) == [("readable", 1, 7)]


@pytest.mark.parametrize(("since", "counts"), [(12, False), (11, True)])
def test_who_came_in_by_a_change_counts_where_it_is_in_force(since: int, counts: bool) -> None:
    core = node()
    three = (3, *OTHER_INCARNATION, since)
    core.install(T, 10, 5, [(1, *incarnation(1), 0), (2, *incarnation(2), 0), three], version=1)
    candidate(core=core)
    core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1))
    core.pump(T)
    core.durable(T, core.state()["logged"])
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=10, last=10))
    assert (core.state()["settled"], core.state()["chosen"]) == (True, 11)
    core.read(AT, 7)
    core.pump(AT)
    found = core.receive(AT, answer(3, AT, inc=OTHER_INCARNATION))
    assert found == ([("readable", 11, 7)] if counts else [])
    assert core.receive(AT, answer(2, AT)) == ([] if counts else [("readable", 11, 7)])


def test_what_a_member_has_said_is_forgotten_when_it_is_replaced() -> None:
    core = master()
    now = T + 1400 * MS
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=0, last=0))
    assert replacement(core, now, 3) == [(1, change(3))]
    core.receive(now, ask(3, 71))
    core.read(now, 7)
    assert kinds(core.pump(now)) == ["heartbeat"]
    core.durable(now, core.state()["logged"])
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=1, last=1))
    assert core.state()["members"][2] == (3, *OTHER_INCARNATION, 1 + ALPHA)
    assert core.receive(now, answer(3, now)) == [], "it is a member no longer"
    assert core.receive(now, answer(2, now)) == [("readable", 1, 7)], "and who asked 71 is not there any more"


def test_the_index_is_what_was_chosen_when_the_round_was_sent() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    core.submit(AT, 1, [b"a"], AT + 2000 * MS)
    core.pump(AT)
    core.durable(AT, core.state()["logged"])
    core.receive(AT, frame(ACCEPTED, 3, ballot=ballot(1, 1), first=1, last=1))
    core.receive(AT, ask(2, 70))
    assert beat(AT + 1, chosen=2) in short(core.pump(AT))
    assert core.receive(AT, answer(3, AT)) == [("readable", 1, 7)], "the first round confirms the first read only"
    assert short(core.receive(AT, answer(3, AT + 1))) == [told(2, 70, 2, chosen=2)]


def test_a_read_that_comes_while_a_round_is_under_way_gets_the_next() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    core.receive(AT, ask(2, 70))
    assert short(core.pump(AT)) == [beat(AT + 1)]
    assert core.receive(AT, answer(2, AT)) == [("readable", 1, 7)]
    assert short(core.receive(AT, answer(2, AT + 1))) == [told(2, 70, 1)]


def test_another_token_of_this_node_takes_the_place_of_the_first() -> None:
    core = master()
    core.read(AT, 7)
    core.pump(AT)
    core.read(AT, 8)
    assert short(core.pump(AT)) == [beat(AT + 1)]
    assert core.receive(AT, answer(2, AT)) == []
    assert core.receive(AT, answer(2, AT + 1)) == [("readable", 1, 8)]


def test_the_same_question_once_more_is_under_way_already() -> None:
    core = master()
    core.receive(AT, ask(2, 70))
    assert short(core.pump(AT)) == [beat(AT)]
    core.receive(AT, ask(2, 70))
    assert core.pump(AT) == []
    assert short(core.receive(AT, answer(3, AT))) == [told(2, 70, 1)]
    # It has been answered; that it comes again shows that the answer was lost. That answer is good still.
    assert short(core.receive(AT, ask(2, 70))) == [told(2, 70, 1)]
    assert core.pump(AT) == []


def test_a_question_that_comes_late_does_not_take_the_place_of_a_newer_one() -> None:
    core = master()
    core.receive(AT, ask(2, 71))
    core.receive(AT, ask(2, 70))
    assert short(core.pump(AT)) == [beat(AT)]
    assert short(core.receive(AT, answer(3, AT))) == [told(2, 71, 1)]
    assert core.receive(AT, ask(2, 70)) == []
    assert core.pump(AT) == []


def test_what_is_not_confirmed_is_asked_again_at_a_later_index() -> None:
    """Who came in by a change that was not in force at the first index may count at the second."""
    core = master()
    core.receive(AT, ask(2, 70))
    core.read(AT, 7)
    core.pump(AT)
    later = AT + 100 * MS
    assert core.pump(later) == [], "nobody has answered: the answers are on their way, however long they take"
    assert short(core.receive(later, answer(3, AT))) == [("readable", 1, 7), told(2, 70, 1)]


def test_who_does_not_count_at_the_first_index_is_asked_again_at_a_later_one() -> None:
    """Node 3 has come in by a change that is in force from instance 12 on, and nobody else answers."""
    core = node()
    three = (3, *OTHER_INCARNATION, 12)
    core.install(T, 10, 5, [(1, *incarnation(1), 0), (2, *incarnation(2), 0), three], version=1)
    candidate(core=core)
    core.receive(T, frame(PROMISE, 2, ballot=ballot(1, 1), attempt=1))
    core.pump(T)
    core.durable(T, core.state()["logged"])
    core.receive(T, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=10, last=10))
    core.read(AT, 7)
    core.pump(AT)
    assert core.receive(AT, answer(3, AT, inc=OTHER_INCARNATION)) == []
    core.submit(AT, 1, [b"x"], AT + 5000 * MS)
    core.pump(AT)
    core.durable(AT, core.state()["logged"])
    core.receive(AT, frame(ACCEPTED, 2, ballot=ballot(1, 1), first=11, last=11))
    assert core.state()["chosen"] == 12
    later = AT + 100 * MS
    core.pump(later - MS)
    assert core.receive(later - MS, answer(3, later, inc=OTHER_INCARNATION)) == [], "that round has not been sent"
    assert set(kinds(core.pump(later))) == {"heartbeat"}
    assert core.receive(later, answer(3, later, inc=OTHER_INCARNATION)) == [("readable", 12, 7)]


def test_a_read_is_a_reason_to_stand_like_a_proposal() -> None:
    """Rule 6: who reaches a majority, and not the master that the others hear, elects by himself in the end."""
    for waits in (True, False):
        core = follower(of=3)
        if waits:
            core.read(AT, 7)
        now = AT
        raised = False
        for _ in range(60):
            now = max(core.deadline(), now + MS)
            core.tick(now)
            core.pump(now)
            core.receive(now, frame(PREVOTE_REPLY, 2, ballot=ballot(2, 1), promised=ballot(1, 3)))
            raised = raised or core.state()["role"] == "preparing"
        assert raised is waits


@pytest.mark.parametrize(("boot", "life"), [(2, 22), (1, 23)])
def test_the_same_number_of_another_life_is_another_question(boot: int, life: int) -> None:
    core = master()
    core.receive(AT, ask(2, 70, life=22))
    core.pump(AT)
    core.receive(AT, ask(2, 70, boot, life))
    assert short(core.pump(AT)) == [beat(AT + 1)]
    assert core.receive(AT, answer(3, AT)) == [], "confirmed by a round that was sent before it came"
    assert short(core.receive(AT, answer(3, AT + 1))) == [told(2, 70, 1, boot, life)]


def test_who_steps_down_forgets_the_questions_of_others_and_keeps_its_own() -> None:
    core = master()
    core.receive(AT, ask(2, 70))
    core.read(AT, 7)
    core.pump(AT)
    core.receive(AT, frame(REJECT, 3, ballot=ballot(1, 1), promised=ballot(1, 1)))
    assert core.state()["role"] == "follower"
    assert core.receive(AT, answer(2, AT)) == [], "who is no master confirms nothing"
    assert core.pump(AT) == []
    # Elected again, under ballot (2, 1).
    now = AT + 700 * MS
    core.tick(now)
    core.receive(now, frame(PREVOTE_REPLY, 2, ballot=ballot(2, 1), granted=1))
    core.durable(now, core.state()["logged"])
    core.receive(now, frame(PROMISE, 2, ballot=ballot(2, 1), attempt=2))
    core.pump(now)
    assert core.receive(now, answer(2, AT)) == [], "an answer under the ballot before"
    core.durable(now, core.state()["logged"])
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(2, 1), first=1, last=1))
    assert kinds(core.pump(now)) == ["heartbeat"]
    assert core.receive(now, answer(3, now + 1, ballot(2, 1))) == [("readable", 2, 7)]
    core.receive(now, ask(2, 70))
    assert kinds(core.pump(now)) == ["heartbeat"], "the question of 2 is a new one here"


def test_a_token_is_not_nothing() -> None:
    with pytest.raises(ValueError, match="not 0"):
        master().read(AT, 0)
    core = master()
    core.receive(AT, ask(2, 0))
    assert core.pump(AT) == []


# ---- the others ----


def test_a_follower_asks_the_master_at_the_pump() -> None:
    core = follower()
    assert core.read(AT, 7) == []
    assert short(core.pump(AT)) == [("send", "read", [2], 0, {"token": 7, "boot": 1, "life": 11}, b"")]
    assert core.pump(AT) == []
    assert readable(core, 7, 42) == [("readable", 42, 7)]
    assert readable(core, 7, 42) == [], "a second answer to it is none"
    assert core.pump(AT + 1000 * MS) == []


def test_an_answer_to_another_question_or_another_life_is_none() -> None:
    core = follower()
    assert readable(core, 7) == [], "nothing was asked"
    core.read(AT, 7)
    core.pump(AT)
    for token, boot, life in ((6, 1, 11), (8, 1, 11), (7, 2, 11), (7, 0, 11), (7, 1, 12)):
        assert readable(core, token, 5, boot, life) == []
    core.read(AT, 8)
    assert readable(core, 7) == [], "another has taken its place"
    assert readable(core, 8) == [("readable", 5, 8)]
    assert readable(core, 0) == []


def test_a_follower_asks_again_when_it_hears_nothing() -> None:
    core = follower()
    core.read(AT, 7)
    core.pump(AT)
    again = AT + 100 * MS
    assert core.deadline() == again
    assert core.pump(again - 1) == []
    core.tick(again)
    assert [words for words in kinds(core.pump(again)) if words == "read"] == ["read"]
    assert core.deadline() <= again + 100 * MS
    assert readable(core, 7) == [("readable", 5, 7)]
    core.tick(again + 50 * MS)
    assert core.deadline() > again + 100 * MS, "what is answered asks no more"


def test_a_follower_asks_a_new_master_at_once() -> None:
    core = follower()
    core.read(AT, 7)
    core.pump(AT)
    core.receive(AT, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    assert core.pump(AT) == [], "this is the one that was asked"
    core.receive(AT, frame(HEARTBEAT, 3, ballot=ballot(2, 3)))
    assert short(core.pump(AT)) == [("send", "read", [3], 0, {"token": 7, "boot": 1, "life": 11}, b"")]
    core.receive(AT, frame(HEARTBEAT, 3, ballot=ballot(3, 3)))
    assert kinds(core.pump(AT)) == ["read"], "under its new ballot it does not know the question"


def test_without_a_master_in_reach_nobody_is_asked() -> None:
    core = node()
    core.read(T, 7)
    assert core.pump(T) == []
    assert core.deadline() > T, "and the time is not watched for it"
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    core.peer(T, 1, False)
    assert core.pump(T) == []
    assert core.deadline() > T
    core.peer(T, 1, True)
    core.receive(T, frame(HEARTBEAT, 2, ballot=ballot(1, 2)))
    assert kinds(core.pump(T)) == ["read"]


def test_a_follower_answers_no_questions() -> None:
    core = follower()
    assert core.receive(AT, ask(3, 70)) == []
    assert core.receive(AT, answer(3, AT)) == []
    assert core.pump(AT) == []


def test_the_read_of_a_follower_that_is_elected_gets_a_round() -> None:
    core = follower(of=3)
    core.read(AT, 7)
    core.pump(AT)
    now = AT + 700 * MS
    core.tick(now)
    core.receive(now, frame(PREVOTE_REPLY, 2, ballot=ballot(2, 1), granted=1))
    core.durable(now, core.state()["logged"])
    core.receive(now, frame(PROMISE, 2, ballot=ballot(2, 1), attempt=1))
    core.pump(now)
    core.durable(now, core.state()["logged"])
    core.receive(now, frame(ACCEPTED, 2, ballot=ballot(2, 1)))
    assert kinds(core.pump(now)) == ["heartbeat"]
    assert core.receive(now, answer(2, now + 1, ballot(2, 1))) == [("readable", 1, 7)]


def test_a_node_without_a_vote_says_so_in_its_answer() -> None:
    """It answers all the same: the master counts whom it hears, and stays."""
    core = Core(3, [(i, *incarnation(i)) for i in (1, 2, 3)], incarnation=OTHER_INCARNATION)
    core.start(T)
    rows = [(1, *incarnation(1), 0), (2, *incarnation(2), 0), (3, *OTHER_INCARNATION, 12)]
    core.install(T, 11, chain([(NOOP, b"")] * 11), rows, version=1)
    heartbeat = frame(HEARTBEAT, 2, chosen=11, chain=core.state()["chain"], ballot=ballot(1, 2), sent_at=77)
    assert short(core.receive(T, heartbeat))[-1] == (
        "send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "priority": 1, "n": 11}, b"")  # fmt: skip
    core.receive(T, learned(11, [(NOOP, b"")]))
    assert core.state()["chosen"] == 12
    assert short(core.receive(T, heartbeat))[-1] == (
        "send", "heartbeat_reply", [2], 0, {"ballot": (1, 2), "sent_at": 77, "priority": 1, "n": 12}, b"")  # fmt: skip
