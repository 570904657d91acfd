"""The state of the key-value service as bytes: every type comes back, equal states are equal bytes, wrong bytes are refused."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos.kv import KvStateMachine, MalformedSnapshot, UnsupportedSnapshot
from paxos.kv import values as v
from paxos.kv.snapshot import write_snapshot


class Narrow:
    """A reader that gives less than it is asked for only at the end, and a writer that notes the largest piece."""

    def __init__(self, data: bytes = b"") -> None:
        self.stream = io.BytesIO(data)
        self.largest = 0

    def write(self, data: bytes) -> None:
        self.largest = max(self.largest, len(data))
        self.stream.write(data)

    def read(self, size: int) -> bytes:
        return self.stream.read(size)


def snapshot(machine: KvStateMachine) -> bytes:
    out = io.BytesIO()
    machine.snapshot(out)
    return out.getvalue()


def restored(data: bytes) -> KvStateMachine:
    machine = KvStateMachine()
    machine.restore(io.BytesIO(data))
    return machine


def apply(machine: KvStateMachine, *values: bytes) -> None:
    for value in values:
        machine.apply(machine.last_applied() + 1, value)


SMALL = st.binary(max_size=3)
COMMANDS = st.one_of(
    st.builds(v.encode_set, SMALL, SMALL, st.just(0)),
    st.builds(v.encode_append, SMALL, SMALL),
    st.builds(v.encode_incrby, SMALL, st.integers(-5, 5)),
    st.builds(lambda items: v.encode_many(v.OP_RPUSH, items), st.lists(SMALL, min_size=2, max_size=4)),
    st.builds(lambda items: v.encode_many(v.OP_DEL, items), st.lists(SMALL, max_size=2)),
    st.just(v.encode_bare(v.OP_FLUSHDB)),
)
READS = (v.OP_GET, v.OP_STRLEN, v.OP_LLEN)


@given(st.lists(COMMANDS, max_size=30), st.lists(COMMANDS, max_size=10))
def test_a_restored_machine_goes_on_like_the_other(before: Sequence[bytes], after: Sequence[bytes]) -> None:
    one = KvStateMachine()
    apply(one, *before)
    two = restored(snapshot(one))
    assert two.last_applied() == one.last_applied()
    assert len(two) == len(one)
    for instance, value in enumerate(after, one.last_applied() + 1):
        assert one.apply(instance, value) == two.apply(instance, value)
    assert snapshot(one) == snapshot(two)


def test_every_type_comes_back() -> None:
    machine = KvStateMachine()
    apply(
        machine,
        v.encode_set(b"", b"empty key", 0),
        v.encode_set(b"empty", b"", 0),
        v.encode_append(b"appended", b"ab"),
        v.encode_append(b"appended", b"cd"),  # kept as a bytearray
        v.encode_incrby(b"number", -7),
        v.encode_many(v.OP_RPUSH, [b"list", b"", b"x", bytes(300000)]),
        v.encode_set(b"large", bytes(range(256)) * 8192, 0),
    )
    two = restored(snapshot(machine))
    replies = [
        two.apply(9, v.encode_key(v.OP_GET, key)) for key in (b"", b"empty", b"appended", b"number", b"large", b"none")
    ]
    assert replies == [b"empty key", b"", b"abcd", b"-7", bytes(range(256)) * 8192, None]
    assert two.apply(9, v.encode_lrange(b"list", 0, -1)) == [b"", b"x", bytes(300000)]
    # What had been appended to can be, without a change of what a reply holds.
    reply = two.apply(9, v.encode_key(v.OP_GET, b"appended"))
    assert two.apply(9, v.encode_append(b"appended", b"e")) == 5
    assert reply == b"abcd"


def test_equal_states_are_equal_bytes() -> None:
    """Whatever was done to get there."""
    one, two = KvStateMachine(), KvStateMachine()
    keys = [b"%d" % i for i in range(500)]
    apply(one, *(v.encode_set(key, b"ab", 0) for key in keys))
    random.Random(1).shuffle(keys)
    apply(two, *(v.encode_set(key, b"a", 0) for key in keys[:250]), *(v.encode_append(key, b"b") for key in keys[250:]))
    apply(two, *(v.encode_append(key, b"b") for key in keys))
    apply(two, *(v.encode_set(key, b"ab", 0) for key in keys[250:]))
    two.apply(one.last_applied(), v.encode_key(v.OP_GET, b"x"))
    assert snapshot(one) == snapshot(two)


def test_the_state_is_never_in_memory_twice() -> None:
    machine = KvStateMachine()
    apply(machine, *(v.encode_set(b"%d" % i, bytes(1000), 0) for i in range(20000)))

    class Sink:
        total = largest = 0

        def write(self, data: bytes) -> None:
            self.total += len(data)
            self.largest = max(self.largest, len(data))

    sink = Sink()
    tracemalloc.start()
    try:
        machine.snapshot(sink)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.total > 20_000_000
    assert sink.largest < 1 << 20
    assert peak < 4 << 20


WHOLE = KvStateMachine()
apply(WHOLE, v.encode_set(b"a", b"text", 0), v.encode_many(v.OP_RPUSH, [b"b", b"x", b"yy"]), v.encode_set(b"c", b"", 0))


def test_every_cut_is_found() -> None:
    data = snapshot(WHOLE)
    for size in range(len(data)):
        with pytest.raises(MalformedSnapshot):
            restored(data[:size])
    with pytest.raises(MalformedSnapshot, match="behind the last key"):
        restored(data + b"\0")


def test_every_byte_changed_gives_another_state_or_an_error() -> None:
    data = snapshot(WHOLE)
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                machine = restored(changed)
            except (MalformedSnapshot, UnsupportedSnapshot):
                continue
            assert snapshot(machine) == changed


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_without_harm(data: bytes) -> None:
    machine = restored(snapshot(WHOLE))
    for head in (b"", b"PXKV\x01\0\0\0", b"PXKV\x01\0\0\0" + bytes(8) + b"\2" + bytes(7)):
        try:
            KvStateMachine().restore(io.BytesIO(head + data))
        except (MalformedSnapshot, UnsupportedSnapshot):
            with pytest.raises((MalformedSnapshot, UnsupportedSnapshot)):
                machine.restore(io.BytesIO(head + data))
            assert snapshot(machine) == snapshot(WHOLE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PXKW" + bytes(20), "another state machine"),
        (struct.pack("<4sIqQ", b"PXKV", 1, -2, 0), "last instance is -2"),
        (struct.pack("<4sIqQBI", b"PXKV", 1, 0, 1, 1, 0xFFFFFFFF), "above the limit"),
        (struct.pack("<4sIqQBII", b"PXKV", 1, 0, 1, 1, 0, 0xFFFFFFFF), "above the limit"),
        (struct.pack("<4sIqQBII", b"PXKV", 1, 0, 1, 1, 0, 1 << 29), "ends at byte"),
        (struct.pack("<4sIqQBIQ", b"PXKV", 1, 0, 1, 2, 0, 1 << 63), "ends at byte"),
        (struct.pack("<4sIqQBIQ", b"PXKV", 1, 0, 1, 2, 0, 0), "empty"),
        (struct.pack("<4sIqQBI", b"PXKV", 1, 0, 1, 3, 0), "unknown kind 3"),
        (struct.pack("<4sIqQBIIBII", b"PXKV", 1, 0, 2, 1, 0, 0, 1, 0, 0), "not in order"),
        (struct.pack("<4sIqQ", b"PXKV", 1, 0, 1 << 63), "ends at byte"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedSnapshot, match=message):
            restored(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20  # no memory on the word of a length
    finally:
        tracemalloc.stop()


def test_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedSnapshot, match="version 2, this release knows 1"):
        restored(struct.pack("<4sIqQ", b"PXKV", 2, 0, 0))


def test_pieces_are_neither_tiny_nor_huge() -> None:
    out = Narrow()
    write_snapshot(out, 7, {b"k": [bytes(10)] * 100000, b"l": bytes(3 << 20)})
    assert out.largest == 3 << 20  # one value is one piece
    machine = restored(out.stream.getvalue())
    assert machine.apply(8, v.encode_key(v.OP_LLEN, b"k")) == 100000
