"""Nothing that comes from the network is believed: truncated, bit-flipped, oversized and random frames (design rule 22)."""

from __future__ import annotations

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

import frames
from frames import (
    ACCEPT,
    FORM,
    FORM_OK,
    FORMED,
    FORWARD,
    FORWARD_REFUSED,
    LAYOUTS,
    LEARNED,
    NAMES,
    PIECE,
    PROMISE_VALUE,
    VALUE,
)
from paxos._codec import check_frame, checksum
from paxos._stepping import Core

OK, SHORT, MAGIC, VERSION, LENGTH, CRC, TYPE, BODY = range(8)

BATCH = frames.chunk(2, 1, [b"one", b"", b"three"]) + frames.chunk(3, 9, [b"x" * 50])


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
    return frames.frame(kind, 2)


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
