"""One test per transition, learner, log and hints of the host."""

from __future__ import annotations

import pytest

from frames import (
    ACCEPT,
    LEARN,
    LEARNED,
    MASTER,
    PREPARE,
    PREVOTE,
    PREVOTE_REPLY,
    RECORD_ACCEPT,
    RECORD_LEARN,
    RECORD_PROMISE,
    RECORD_WATERMARK,
    VALUE,
    ballot,
    chain,
    frame,
    members,
    record,
    short,
    takeover,
)
from paxos._stepping import Core
from steps import MS, RING, T, X, Y, Z, follower, kinds, master, node

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
    assert kinds(core.receive(T, frame(LEARNED, 3, chosen=3, first=1, count=1, data=VALUE.pack(0, 0, 0, 0)))) == [
        "learn"
    ]
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
    good = frame(PREVOTE_REPLY, 2, chosen=1, chain=chain([(MASTER, takeover(1))]))
    bad = frame(PREVOTE_REPLY, 2, chosen=1, chain=chain([(MASTER, takeover(1))]) ^ 1)
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
    core = restored(
        (RECORD_ACCEPT, 0, GOOD), (RECORD_WATERMARK, 0, record(RECORD_WATERMARK, chosen=1, chain=chain([(1, X)])))
    )
    assert not core.restore(RECORD_WATERMARK, 0, record(RECORD_WATERMARK))
    assert not core.restore(
        RECORD_ACCEPT, 0, record(RECORD_ACCEPT, ballot=ballot(2, 2), chosen=1, chain=chain([(1, X)]), data=X)
    )


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
