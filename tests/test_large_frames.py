"""Large frames in pieces: what the queue of a peer sends, and what the other side makes of it, or refuses (design rule 22)."""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import frames
from frames import ACCEPT, FORWARD, HEARTBEAT, HELLO, PIECE
from paxos._codec import check_frame
from paxos._outqueue import SendQueue
from paxos._pieces import Assembly

WHOLE = 131_072  # the largest frame that travels in one
MAX_FRAME = 4 << 20
FIRST = 262_144  # memory that a transfer begins with
ACCEPT_HEAD = 128
PIECE_HEAD = 80
PIECE_BYTES = 130_992
# A piece and its head: what may be ahead of a small frame.
AHEAD = PIECE_BYTES + PIECE_HEAD


def large(number: int, size: int) -> bytes:
    """An Accept of about this size."""
    value = frames.chunk(2, number + 1, [bytes([number % 251]) * (size - ACCEPT_HEAD - 36)])
    return frames.frame(ACCEPT, 2, data=value, instance=number, value=(1, 1))


def small(number: int) -> bytes:
    return frames.frame(HEARTBEAT, 2, sent_at=number)


def push(queue: SendQueue, frame: bytes) -> None:
    if frame[13] == ACCEPT:
        queue.push(frame[:ACCEPT_HEAD], frame[ACCEPT_HEAD:])
    else:
        queue.push(frame)


def pieces(frame: bytes, transfer: int = 1, size: int = PIECE_BYTES) -> list[bytes]:
    """The frame as a sender cuts it."""
    return [piece(frame[at : at + size], transfer, len(frame), at) for at in range(0, len(frame), size)]


def piece(data: bytes, transfer: int, total: int, offset: int, sender: int = 2) -> bytes:
    return frames.frame(PIECE, sender, data=data, transfer=transfer, total=total, offset=offset)


class Reader:
    """The other end of the connection."""

    def __init__(self) -> None:
        self.stream = b""
        self.assembly = Assembly(MAX_FRAME)
        self.small: list[bytes] = []
        self.large: list[bytes] = []

    def read(self, data: bytes) -> None:
        self.stream += data
        while True:
            code, need = check_frame(self.stream, WHOLE)
            if code == 1:
                return
            assert code == 0, "every frame on the wire is whole and small"
            frame, self.stream = self.stream[:need], self.stream[need:]
            if frame[13] != PIECE:
                self.small.append(frame)
            elif (whole := self.assembly.take(frame)) is not None:
                self.large.append(whole)


steps = st.lists(
    st.integers(WHOLE + 1, 4 * WHOLE) | st.just(0) | st.floats(0, 1), max_size=40
)  # a large frame, a small one, or that share of a system call is taken


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(5, 40))
def test_both_lanes_arrive_whole_and_in_order(steps: list[int | float], parts: int) -> None:
    queue, reader = SendQueue(), Reader()
    sent: dict[str, list[bytes]] = {"small": [], "large": []}
    waiting: deque[int] = deque()  # bytes that each small frame on its way may still find ahead of it
    for number, step in enumerate(steps):
        if isinstance(step, float):
            front = queue.front(parts)
            assert bool(front) == bool(queue.waiting)
            size = int(len(front) * step)
            queue.consume(size)
            before = len(reader.small)
            reader.read(front[:size])
            for _ in range(len(reader.small) - before):
                waiting.popleft()
            waiting = deque(left - size for left in waiting)
            assert all(left >= 0 for left in waiting), "a small frame waits behind more than one piece"
        elif step:
            sent["large"].append(large(number, step))
            push(queue, sent["large"][-1])
        else:
            sent["small"].append(small(number))
            push(queue, sent["small"][-1])
            waiting.append(AHEAD + (len(waiting) + 1) * len(sent["small"][-1]))
    while front := queue.front(parts):
        queue.consume(len(front))
        reader.read(front)
    assert queue.waiting == 0
    assert not reader.stream
    assert reader.small == sent["small"]
    assert reader.large == sent["large"]


def test_a_small_frame_overtakes_what_waits_but_nothing_that_is_begun() -> None:
    queue = SendQueue()
    push(queue, large(0, 3 * PIECE_BYTES))
    push(queue, small(1))
    assert queue.front(8).startswith(small(1)), "it was pushed behind a large frame that has not begun"
    queue.consume(len(small(1)))
    first = queue.front(8)
    assert len(first) == PIECE_HEAD + PIECE_BYTES
    queue.consume(1)
    push(queue, small(2))
    assert queue.front(8) == first[1:] + small(2)


def test_a_piece_that_was_cut_but_not_begun_waits_for_small_frames() -> None:
    queue = SendQueue()
    push(queue, large(0, 3 * PIECE_BYTES))
    first = queue.front(8)
    push(queue, small(1))
    assert queue.front(8) == small(1) + first


def test_bytes_and_memory_that_wait() -> None:
    queue, frame = SendQueue(), large(0, 1 << 20)
    push(queue, frame)
    assert queue.waiting == len(frame)
    assert queue.memory < 1000, "a value is not copied"
    assert queue.front(8)
    assert queue.waiting == len(frame) + PIECE_HEAD, "a piece has a head of its own"
    while front := queue.front(8):
        queue.consume(len(front))
    assert queue.waiting == 0
    push(queue, frames.frame(FORWARD, 2, data=frames.chunk(2, 1, [bytes(1 << 20)]), count=1))
    assert queue.memory > 1 << 20, "a head is"
    while front := queue.front(8):
        queue.consume(len(front))
    assert queue.memory < 1000


def test_a_large_frame_that_has_not_left_is_known() -> None:
    queue, frame = SendQueue(), large(7, 1 << 20)
    head = frame[:ACCEPT_HEAD]
    push(queue, frame)
    later = frames.frame(ACCEPT, 2, data=frame[ACCEPT_HEAD:], instance=7, value=(1, 1), chosen=5, chain=9)[:ACCEPT_HEAD]
    other = large(8, 1 << 20)[:ACCEPT_HEAD]
    assert later != head
    while front := queue.front(8):
        assert queue.holds(head)
        assert queue.holds(later), "only its news of what is chosen are newer"
        assert not queue.holds(other), "another instance"
        assert not queue.holds(head[:13] + bytes([FORWARD]) + head[14:])
        queue.consume(len(front) - 1)
        queue.consume(1)
    assert not queue.holds(head), "it has left"
    push(queue, frame)
    push(queue, large(7, 1 << 20))
    queue.consume(len(queue.front(8)))
    assert queue.holds(head)


# ---- what is refused ----

FRAME = large(3, 5 * PIECE_BYTES)


def changed(at: int, data: bytes, seal: bool = True) -> bytes:
    """FRAME with some bytes changed, and with a crc that is right for them."""
    raw = bytearray(FRAME)
    raw[at : at + len(data)] = data
    if seal:
        raw[8:12] = struct.pack("<I", frames.crc(bytes(raw[12:])))
    return bytes(raw)


def refusal(sequence: list[bytes]) -> str:
    """What the last of these pieces is refused for; all others must be taken."""
    assembly = Assembly(MAX_FRAME)
    for frame in sequence[:-1]:
        assert assembly.take(frame) is None
    with pytest.raises(ValueError, match="a piece is refused") as info:
        assembly.take(sequence[-1])
    return str(info.value).partition(": ")[2]


GOOD = pieces(FRAME)
NOT_NEXT = "it does not fit what came before"


@pytest.mark.parametrize(
    ("sequence", "reason"),
    [
        pytest.param([GOOD[1]], NOT_NEXT, id="does not begin at the beginning"),
        pytest.param([GOOD[0], GOOD[2]], NOT_NEXT, id="a piece is missing"),
        pytest.param([GOOD[0], GOOD[1], GOOD[1]], NOT_NEXT, id="a piece comes twice"),
        pytest.param([GOOD[0], GOOD[0]], NOT_NEXT, id="begins anew"),
        pytest.param([GOOD[0], pieces(FRAME, 2)[0]], NOT_NEXT, id="another begins meanwhile"),
        pytest.param([GOOD[0], pieces(FRAME, 2)[1]], NOT_NEXT, id="a piece of another"),
        pytest.param(pieces(FRAME, 0)[:1], NOT_NEXT, id="transfers count from 1"),
        pytest.param(pieces(FRAME, 2)[:1], NOT_NEXT, id="and leave none out"),
        pytest.param(
            [GOOD[0], piece(FRAME[PIECE_BYTES:-1], 1, len(FRAME) - 1, PIECE_BYTES)], NOT_NEXT, id="a shorter total"
        ),
        pytest.param([piece(FRAME[:1000], 1, len(FRAME) + 8, 0)], NOT_NEXT, id="total is not the frame's length"),
        pytest.param([piece(FRAME[:63], 1, len(FRAME), 0)], NOT_NEXT, id="no head in the first piece"),
        pytest.param([piece(b"x" * 1000, 1, len(FRAME), 0)], NOT_NEXT, id="no frame"),
        pytest.param([piece(FRAME[:1000], 1, len(FRAME), 0, sender=3)], NOT_NEXT, id="a frame of another sender"),
        pytest.param([pieces(changed(13, bytes([HELLO])))[0]], NOT_NEXT, id="not a group's frame"),
        pytest.param([pieces(changed(13, bytes([PIECE])))[0]], NOT_NEXT, id="pieces of pieces"),
        pytest.param([piece(FRAME[:1000], 1, MAX_FRAME + 1, 0)], "length", id="too large"),
        pytest.param(pieces(changed(3 * PIECE_BYTES, b"?", seal=False)), "crc", id="checksum of the whole"),
        pytest.param(pieces(changed(13, bytes([99]))), "type", id="unknown type"),
        pytest.param(pieces(changed(12, b"\2")), "version", id="unknown version"),
        pytest.param(pieces(changed(ACCEPT_HEAD + 4, b"\2")), "body", id="malformed value"),
    ],
)
def test_pieces_that_are_refused(sequence: list[bytes], reason: str) -> None:
    assert refusal(sequence) == reason


def test_transfers_follow_one_another_and_give_their_memory_back() -> None:
    assembly = Assembly(MAX_FRAME)
    for transfer, size in enumerate((200_000, MAX_FRAME - 100, 150_000), 1):
        frame = large(transfer, size)
        *some, last = pieces(frame, transfer)
        assert all(assembly.take(part) is None for part in some)
        assert assembly.take(last) == frame
        assert assembly.memory < MAX_FRAME // 2 + FIRST, "the memory of one large frame is not kept"


def test_a_head_alone_takes_no_memory() -> None:
    frame = large(1, MAX_FRAME - 100)
    assembly = Assembly(MAX_FRAME)
    assert assembly.take(piece(frame[:100], 1, len(frame), 0)) is None
    assert assembly.memory == FIRST
    got = 100
    while got + 10_000 < len(frame):
        assert assembly.take(piece(frame[got : got + 10_000], 1, len(frame), got)) is None
        got += 10_000
        assert assembly.memory <= max(FIRST, min(2 * got, len(frame)))


@settings(deadline=None)
@given(st.data())
def test_random_pieces_are_taken_or_refused(data: st.DataObject) -> None:
    """Pieces of two frames, of any cut and in any order, some with bytes changed."""
    assembly = Assembly(MAX_FRAME)
    taken = 0
    for _ in range(data.draw(st.integers(1, 12))):
        transfer = data.draw(st.integers(0, 2))
        at = data.draw(st.sampled_from([0, taken, taken % len(FRAME), 1000]))
        size = data.draw(st.sampled_from([1, 100, PIECE_BYTES, WHOLE - PIECE_HEAD]))
        total = data.draw(st.sampled_from([len(FRAME), len(FRAME) + 1, MAX_FRAME, 0xFFFFFFFF]))
        raw = bytearray(piece(FRAME[at : at + size], transfer, total, at))
        for _ in range(data.draw(st.integers(0, 2))):
            raw[data.draw(st.integers(12, len(raw) - 1))] = data.draw(st.integers(0, 255))
        raw[8:12] = struct.pack("<I", frames.crc(bytes(raw[12:])))
        try:
            whole = assembly.take(bytes(raw))
        except ValueError:
            return  # the connection ends here
        taken += len(raw) - PIECE_HEAD
        assert assembly.memory <= max(FIRST, 2 * taken)
        if whole is not None:
            assert check_frame(whole, MAX_FRAME) == (0, len(whole))
            taken = 0
