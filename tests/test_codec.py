"""Nothing that comes from the network is believed: truncated, bit-flipped, oversized and random frames (design rule 22)."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

import frames
from frames import (
    ACCEPT,
    CHANGE,
    FOLLOWER,
    FORM,
    FORM_OK,
    FORMED,
    FORWARD,
    FORWARD_REFUSED,
    LAYOUTS,
    LEARNED,
    LEARNER,
    LEAVING,
    MEMBERS,
    MEMBERSHIP_HEAD,
    NAMES,
    PIECE,
    PROMISE_VALUE,
    ROW,
    VALUE,
    WELCOME,
    membership,
    row,
    table,
)
from paxos._codec import check_frame, checksum
from paxos._formation import FormationCore
from paxos._stepping import Core

TOP = Path(__file__).resolve().parent.parent
OK, SHORT, MAGIC, VERSION, LENGTH, CRC, TYPE, BODY = range(8)

BATCH = frames.chunk(2, 1, [b"one", b"", b"three"]) + frames.chunk(3, 9, [b"x" * 50])
VACATED = bytes(ROW.size)
#: As large and as mixed as a table is: every role, a place that nobody has, addresses.
TABLE = [
    row(1, address=b"10.0.0.1:7101"),
    row(2, LEAVING, since=70),
    VACATED,
    row(3, LEARNER, (0, 0), instead=2, address=b"[::1]:65535"),
    row(9, FOLLOWER, address=b"x" * 255),
]


def valid(kind: int) -> bytes:
    """A frame of this type that is right in every part."""
    if kind in (ACCEPT, PROMISE_VALUE):
        return frames.frame(kind, 2, data=BATCH, value=(4, 1))
    if kind == LEARNED:
        noop = VALUE.pack(0, 0, 0, 0)
        return frames.frame(kind, 2, chosen=7, data=noop + VALUE.pack(len(BATCH), 4, 1, 0) + BATCH, first=3, count=2)
    if kind == FORWARD:
        return frames.frame(kind, 2, data=BATCH, count=2)
    if kind == FORWARD_REFUSED:
        return frames.frame(kind, 2, data=struct.pack("<QQ", 4, 5), count=2, reason=1)
    if kind == PIECE:
        return frames.frame(kind, 2, data=b"x" * 50, transfer=1, total=1 << 20, offset=1000)
    if kind in (FORM, FORM_OK, FORMED):
        return frames.frame(kind, 2, data=bytes(48), count=2)
    if kind in (WELCOME, MEMBERS):
        return told(
            membership(TABLE, 3, mastership=2, mastered=60, lease=10**9, in_force=70, as_of=8, before=0b11), kind
        )
    return frames.frame(kind, 2)


def told(data: bytes, kind: int = WELCOME, **fields: int) -> bytes:
    """A WELCOME that says this of the members."""
    return frames.frame(kind, 1, data=data, **{"sig_hi": 5, "sig_lo": 6, "alpha": 64, **fields})


def resealed(frame: bytearray) -> bytes:
    """The same with length and crc made right: what a bug of a sender, not a broken line, would look like."""
    frame[4:8] = struct.pack("<I", len(frame))
    frame[8:12] = struct.pack("<I", google_crc32c.value(bytes(frame[12:])))
    return bytes(frame)


KINDS = sorted(LAYOUTS)
kinds = pytest.mark.parametrize("kind", KINDS, ids=[NAMES[kind] for kind in KINDS])


@kinds
def test_a_valid_frame_is_taken(kind: int) -> None:
    frame = valid(kind)
    assert check_frame(frame) == (OK, len(frame))
    assert check_frame(frame + b"the next frame") == (OK, len(frame)), "what follows is not looked at"


@kinds
def test_every_truncation_is_short_and_says_how_much_is_wanted(kind: int) -> None:
    frame = valid(kind)
    for size in range(len(frame)):
        code, need = check_frame(frame[:size])
        assert code == SHORT
        assert need == (64 if size < 64 else len(frame))


@kinds
def test_every_flipped_bit_is_found(kind: int) -> None:
    frame = valid(kind)
    for position in range(len(frame) * 8):
        bad = bytearray(frame)
        bad[position // 8] ^= 1 << position % 8
        assert check_frame(bytes(bad))[0] != OK, f"bit {position}"


@kinds
def test_a_body_that_is_longer_or_shorter_than_it_says(kind: int) -> None:
    frame = valid(kind)
    if kind not in (frames.REFUSE, PIECE):  # these may have any length
        assert check_frame(resealed(bytearray(frame + b"\0")))[0] == BODY
        assert check_frame(resealed(bytearray(frame[:-1])))[0] in (BODY, LENGTH)


def test_lengths_are_checked_before_anything_else_is_read() -> None:
    frame = bytearray(valid(ACCEPT))
    assert check_frame(bytes(frame), len(frame))[0] == OK
    assert check_frame(bytes(frame), len(frame) - 1)[0] == LENGTH
    frame[4:8] = struct.pack("<I", 0xFFFFFFFF)
    assert check_frame(bytes(frame), 1 << 24)[0] == LENGTH
    frame[4:8] = struct.pack("<I", 3)
    assert check_frame(bytes(frame))[0] == LENGTH


@pytest.mark.parametrize(("offset", "code"), [(0, MAGIC), (12, VERSION), (13, TYPE), (14, BODY), (60, BODY)])
def test_header_fields_that_must_have_one_value(offset: int, code: int) -> None:
    frame = bytearray(valid(ACCEPT))
    frame[offset] = 0xEE
    assert check_frame(resealed(frame))[0] == code


@pytest.mark.parametrize(("reason", "code"), [(0, BODY), (1, OK), (2, OK), (3, BODY)])
def test_a_refusal_has_a_reason_that_is_known(reason: int, code: int) -> None:
    assert check_frame(frames.frame(FORWARD_REFUSED, 2, data=bytes(8), count=1, reason=reason))[0] == code


@pytest.mark.parametrize(
    ("total", "offset", "size", "code"),
    [
        (131_073, 0, 1, OK),
        (131_072, 0, 1, BODY),  # a frame of that size travels whole
        (131_073, 131_072, 1, OK),
        (131_073, 131_073, 1, BODY),
        (131_073, 131_072, 2, BODY),
        (131_073, 0xFFFFFFFF, 2, BODY),
        (0xFFFFFFFF, 0xFFFFFFFE, 1, OK),
        (131_073, 0, 0, BODY),
    ],
)
def test_a_piece_lies_within_a_large_frame(total: int, offset: int, size: int, code: int) -> None:
    assert check_frame(frames.frame(PIECE, 2, data=bytes(size), transfer=1, total=total, offset=offset))[0] == code


def accept(data: bytes, count: int, kind: int = 1) -> int:
    return check_frame(frames.frame(ACCEPT, 2, data=data, value=(count, kind)))[0]


def test_values_whose_structure_is_wrong() -> None:
    one = frames.chunk(2, 1, [b"abc"])
    assert accept(one, 1) == OK
    assert accept(one, 2) == BODY, "another number of values than there are"
    assert accept(b"", 0) == BODY, "a batch of nothing"
    assert accept(one, 1, kind=7) == BODY, "an unknown kind"
    assert accept(one, 0, kind=0) == BODY, "a no-op with bytes"
    assert accept(one[:-1], 1) == BODY
    assert accept(one + b"\0", 1) == BODY
    assert accept(frames.CHUNK.pack(0, 0, 2, 1, 1, 0, 0), 0) == BODY, "a chunk without values"
    assert accept(frames.CHUNK.pack(7, 1, 2, 1, 1, 0, 0) + struct.pack("<I", 4) + b"abc", 1) == BODY, "entry too long"
    assert accept(frames.CHUNK.pack(0xFFFFFFF0, 1, 2, 1, 1, 0, 0) + struct.pack("<I", 3) + b"abc", 1) == BODY
    assert accept(frames.CHUNK.pack(7, 0xFFFFFFFF, 2, 1, 1, 0, 0) + struct.pack("<I", 3) + b"abc", 1) == BODY


# ---- tables of members


def changed(data: bytes) -> int:
    """What the check says of a change of the membership, wherever such a value may stand."""
    value = VALUE.pack(len(data), 0, CHANGE, 0) + data
    codes = {
        check_frame(frames.frame(ACCEPT, 2, data=data, value=(0, CHANGE)))[0],
        check_frame(frames.frame(PROMISE_VALUE, 2, data=data, value=(0, CHANGE)))[0],
        check_frame(frames.frame(LEARNED, 2, chosen=1, count=1, data=value))[0],
    }
    assert len(codes) == 1
    return codes.pop()


def welcomed(rows: list[bytes], **head: int) -> int:
    """What the check says of a frame that tells who the members are."""
    codes = {check_frame(told(membership(rows, **head), kind))[0] for kind in (WELCOME, MEMBERS)}
    assert len(codes) == 1
    return codes.pop()


def test_tables_of_members_as_they_may_be() -> None:
    for rows in (TABLE, [row(1)], [VACATED, VACATED, row(1)], [row(node) for node in range(1, 32)]):
        assert changed(table(rows)) == OK
        assert welcomed(rows) == OK
    full = [row(node, address=b"y" * 255) for node in range(1, 32)]
    assert changed(table(full, 0xFFFFFFFF)) == OK
    assert welcomed(full) == OK
    assert len(membership(full)) == 9201, "as large as one can be: MEMBERSHIP_MAX"


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="nobody"),
        pytest.param([row(node) for node in range(1, 33)], id="more than 31"),
        pytest.param([row(1), row(2, address=b"x" * 256)], id="an address of 256 bytes"),
        pytest.param([row(1), row(2, address=b"host:1")[:-1]], id="an address longer than the rest"),
        pytest.param([ROW.pack(1, 0, 7, 11, 0, 0, 200), row(2)], id="... or reaching into the next row"),
        pytest.param([ROW.pack(1, 0, 7, 11, 0, 0, 0xFFFFFFFF)], id="... or longer than all memory"),
        pytest.param([row(1), row(2), row(1, FOLLOWER)], id="a node twice"),
        pytest.param([row(1), row(2, 4)], id="a role that is none"),
        pytest.param([row(1), row(2, 0xFFFFFFFF)], id="a role far off"),
        pytest.param([row(2, LEARNER), row(3, FOLLOWER), row(4, LEAVING)], id="nobody who votes"),
        pytest.param([VACATED, VACATED], id="nobody at all"),
        pytest.param([row(1), row(0, FOLLOWER, (0, 0))], id="vacated, with a role"),
        pytest.param([row(1), row(0, inc=(1, 0))], id="vacated, with half an incarnation"),
        pytest.param([row(1), row(0, inc=(0, 1))], id="vacated, with the other half"),
        pytest.param([row(1), ROW.pack(0, 0, 0, 0, 9, 0, 0)], id="vacated, with votes"),
        pytest.param([row(1), ROW.pack(0, 0, 0, 0, 0, 1, 0)], id="vacated, instead of another"),
        pytest.param([row(1), ROW.pack(0, 0, 0, 0, 0, 0, 1) + b"x"], id="vacated, with an address"),
        pytest.param([row(1), row(2) + b"\0"], id="bytes behind it"),
        pytest.param([row(1), row(2)[:-1]], id="less than a row"),
        pytest.param([row(1), row(2, address=b"host name:1")], id="a blank in an address"),
        pytest.param([row(1), row(2, address=b"host\0:1")], id="a NUL in an address"),
        pytest.param([row(1), row(2, address=b"h\x7f:1")], id="an address that is not printable"),
        pytest.param([row(1), row(2, address="hóst:1".encode())], id="an address that is not ASCII"),
    ],
)
def test_tables_of_members_that_cannot_be(rows: list[bytes]) -> None:
    assert changed(table(rows)) == BODY
    assert welcomed(rows, before=0) == BODY


@pytest.mark.parametrize("count", [0, 1, 3, 32, 0xFFFFFFFF])
def test_a_table_of_another_size_than_it_says(count: int) -> None:
    assert changed(struct.pack("<II", 0, count) + row(1) + row(2)) == BODY
    data = bytearray(membership([row(1), row(2)], before=0))
    data[4:8] = struct.pack("<I", count)
    assert check_frame(told(bytes(data)))[0] == BODY


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_a_change_without_a_table(size: int) -> None:
    assert changed(bytes(size)) == BODY


@pytest.mark.parametrize("size", [0, MEMBERSHIP_HEAD.size - 1, MEMBERSHIP_HEAD.size])
def test_a_welcome_without_a_table(size: int) -> None:
    assert check_frame(told(bytes(size)))[0] == BODY


def test_a_change_has_no_values_of_users() -> None:
    assert check_frame(frames.frame(ACCEPT, 2, data=table([row(1)]), value=(1, CHANGE)))[0] == BODY


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ({"before": 0b11}, OK),
        ({"before": 0b100}, BODY),  # a vote of a place that there is not
        ({"before": 1 << 31}, BODY),
        ({"lease": 60 * 10**9}, OK),
        ({"lease": 60 * 10**9 + 1}, BODY),
    ],
)
def test_the_head_of_a_membership(head: dict[str, int], code: int) -> None:
    assert welcomed([row(1), row(2)], **head) == code


@given(st.binary(max_size=300), st.sampled_from(KINDS), st.booleans())
def test_random_bodies_never_crash_a_core(body: bytes, kind: int, seal: bool) -> None:
    """Whatever the check lets through, a core must live with."""
    raw = bytearray(valid(kind)[:64] + body)
    frame = resealed(raw) if seal else bytes(raw)
    code, need = check_frame(frame)
    if code == OK and need == len(frame):
        core = Core(1, frames.members(3))
        core.start(0)
        core.receive(1, frame)
        core.tick(10**9)
    else:
        assert code != OK or need < len(frame)


@given(st.data())
def test_a_mutated_frame_is_refused_or_survived(data: st.DataObject) -> None:
    raw = bytearray(valid(data.draw(st.sampled_from(KINDS))))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(12, len(raw) - 1))] = data.draw(st.integers(0, 255))
    frame = resealed(raw)
    if check_frame(frame)[0] == OK:
        core = Core(1, frames.members(3))
        core.start(0)
        core.receive(1, frame)
        core.durable(2, core.state()["logged"])
        core.pump(3)
        core.tick(10**9)


@given(st.binary(max_size=200), st.integers(0, 0xFFFFFFFF))
def test_checksum_is_crc32c(data: bytes, before: int) -> None:
    assert checksum(data, before) == google_crc32c.extend(before, data)


GUARDED = """
import ctypes, mmap, sys
from paxos._codec import check_frame
page = mmap.PAGESIZE
area = mmap.mmap(-1, 5 * page)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + 4 * page), ctypes.c_size_t(page), 0) == 0
for line in sys.stdin:
    frame = bytes.fromhex(line)
    view = memoryview(area)[4 * page - len(frame) : 4 * page]
    view[:] = frame
    print(check_frame(view)[0])
"""


def test_nothing_behind_a_table_is_looked_at() -> None:
    """The frame ends where the memory does: who reads on is killed."""
    bad = [
        [ROW.pack(1, 0, 7, 11, 0, 0, 1)],
        [row(1), ROW.pack(2, 0, 7, 11, 0, 0, 255)],
        [row(1), row(2, address=b"x" * 255)[:-1]],
        [row(1), row(2)[:-1]],
        [row(1), row(2)[:1]],
    ]
    sent = [told(membership(TABLE)), frames.frame(ACCEPT, 2, data=table(TABLE), value=(0, CHANGE))]
    for rows in bad:
        sent += [told(membership(rows, before=0)), frames.frame(ACCEPT, 2, data=table(rows), value=(0, CHANGE))]
    short = struct.pack("<II", 0, 31)  # more rows than there are
    sent += [told(bytes(4) + short[4:] + bytes(48)), frames.frame(ACCEPT, 2, data=short, value=(0, CHANGE))]
    sent += [frames.frame(ACCEPT, 2, data=bytes(size), value=(0, CHANGE)) for size in range(8)]
    sent += [told(membership([row(1)])[:size]) for size in range(MEMBERSHIP_HEAD.size)]
    done = subprocess.run(
        [sys.executable, "-c", GUARDED],
        input="\n".join(frame.hex() for frame in sent),
        text=True,
        capture_output=True,
        cwd=TOP,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [int(line) for line in done.stdout.split()] == [OK, OK] + [BODY] * (len(sent) - 2)


# ---- whatever the check lets through of a table, whoever reads it must live with

numbers = st.one_of(st.integers(0, 40), st.sampled_from([0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))


@st.composite
def tables(draw: st.DrawFn) -> list[bytes]:
    """Rows that may be right, or nearly."""
    rows = []
    for _ in range(draw(st.integers(0, 34))):
        node, role, since, instead = draw(numbers), draw(st.integers(0, 4)), draw(numbers), draw(st.integers(0, 4))
        inc = draw(st.sampled_from([(0, 0), frames.incarnation(node), frames.OTHER_INCARNATION]))
        address = draw(st.one_of(st.just(b""), st.binary(max_size=300), st.just(b"host:1")))
        rows.append(
            VACATED
            if draw(st.booleans()) and node > 4
            else row(node, role, inc, since=since, instead=instead, address=address)
        )
    return rows


def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """The same with some bytes changed, taken away, or behind it."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        if raw:
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(0), st.integers(0, len(raw))))
    return bytes(raw[: len(raw) - cut]) + draw(st.one_of(st.just(b""), st.binary(max_size=50)))


@st.composite
def change_values(draw: st.DrawFn) -> bytes:
    rows = draw(st.one_of(tables(), st.just(TABLE), st.just([row(1), row(2), row(3)])))
    return mangled(draw, table(rows, draw(st.one_of(st.just(0), numbers))))


@st.composite
def memberships(draw: st.DrawFn) -> bytes:
    rows = draw(st.one_of(tables(), st.just(TABLE), st.just([row(1), row(2, inc=(5, 5)), row(3)])))
    head = {
        name: draw(numbers) for name in ("version", "mastership", "mastered", "lease", "in_force", "as_of", "master")
    }
    return mangled(draw, membership(rows, **head, before=draw(st.one_of(st.integers(0, 31), numbers))))


@given(st.lists(change_values(), min_size=1, max_size=3))
def test_a_core_lives_with_any_table_that_is_chosen(values: list[bytes]) -> None:
    core = Core(1, frames.members(3))
    core.start(0)
    for data in values:
        chosen = core.state()["chosen"]
        noops = VALUE.pack(0, 0, 0, 0) * 70  # until it is in force, and behind that
        learned = frames.frame(
            LEARNED,
            2,
            chosen=chosen + 71,
            first=chosen,
            count=71,
            data=VALUE.pack(len(data), 0, CHANGE, 0) + data + noops,
        )
        if check_frame(learned)[0] != OK:
            assert changed(data) == BODY
            continue
        core.receive(1, learned)
        core.pump(2)
        core.tick(core.deadline())
        state = core.state()
        assert any(m[0] and role == 0 for m, role in zip(state["members"], state["roles"], strict=True)), (
            "somebody votes"
        )
        assert check_frame(told(core.membership()))[0] == OK, "it can be told to others"
        if 1 in [m[0] for m in state["members"]]:
            again = Core(1, core.membership(), incarnation=frames.incarnation(1))
            assert again.state()["members"] == state["members"]


@given(memberships(), st.sampled_from([WELCOME, MEMBERS]))
def test_a_newcomer_lives_with_any_membership_that_it_is_told(data: bytes, kind: int) -> None:
    core = FormationCore(2, [1, 2], (7, 7), (3, 4))
    core.start(0)
    hello = frames.frame(frames.HELLO, 1, signature=6, sig_hi=5, sig_lo=6, to=2, boot=1, state=2, config=1)
    core.receive(1, hello)
    frame = told(data, kind)
    if check_frame(frame)[0] != OK:
        return
    _, effects = core.receive(2, frame)
    core.durable(3, 2)
    core.tick(10**9)
    for effect in effects:
        if effect[0] == "log" and effect[2] == 3:
            again = FormationCore(2, [1, 2], (7, 7), (8, 9))
            assert again.restore(3, effect[3]), "what it logs it can read"
            assert again.state()[1:3] == core.state()[1:3]
            if effect[3][20:24] == bytes(4):  # (else it is of version 0, and logged like the first members)
                replica = Core(2, effect[3][24:], incarnation=(7, 7))
                replica.start(4)
                replica.tick(replica.deadline())


@given(memberships())
def test_a_log_that_begins_with_any_membership_is_refused_or_taken(data: bytes) -> None:
    base = frames.BALLOT.pack(1, *frames.incarnation(2), 2, 0) + struct.pack("<II", 77, 1) + data
    core = Core(1, frames.members(3))
    taken = core.restore_base(100, base)
    assert not (taken and check_frame(told(data))[0] != OK), "the same check as for what comes from others"
    if taken:
        core.start(0)
        core.tick(core.deadline())
        assert check_frame(told(core.membership()))[0] == OK


@given(st.binary(max_size=400), st.booleans())
def test_random_tables_are_refused(data: bytes, welcome: bool) -> None:
    if welcome:
        assert check_frame(told(data))[0] == BODY
    else:
        assert changed(data) == BODY
