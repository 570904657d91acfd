"""The state machine of the key-value service and the values it is fed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_fakes import FakeNode
from paxos.kv import OK, ErrorReply, KvStateMachine, UnsupportedValue
from paxos.kv import values as v
from paxos.kv.commands import Local, Session, dispatch
from paxos.kv.machine import MALFORMED, WRONGTYPE, parse_int64


class Shell:
    """Commands as a client would type them, applied one instance each."""

    def __init__(self) -> None:
        self.machine = KvStateMachine()
        self.session = Session(1, "test:1", lambda sections: "", lambda: [], self.no_checkpoint, FakeNode())

    async def no_checkpoint(self) -> int:
        raise AssertionError("nobody asked for a checkpoint")

    def __call__(self, *words: bytes | int) -> object:
        entry = dispatch(self.session, [word if isinstance(word, bytes) else b"%d" % word for word in words])
        if isinstance(entry, Local):
            return entry.reply
        assert isinstance(entry, bytes)
        return self.machine.apply(self.machine.last_applied() + 1, entry)


@pytest.fixture
def run() -> Shell:
    return Shell()


def test_set_and_get(run: Shell) -> None:
    assert run(b"GET", b"k") is None
    assert run(b"SET", b"k", b"v") == OK
    assert run(b"get", b"k") == b"v"
    assert run(b"SET", b"k", b"") == OK
    assert run(b"GET", b"k") == b""


def test_set_options(run: Shell) -> None:
    assert run(b"SET", b"k", b"1", b"XX") is None
    assert run(b"GET", b"k") is None
    assert run(b"SET", b"k", b"1", b"NX") == OK
    assert run(b"SET", b"k", b"2", b"nx") is None
    assert run(b"GET", b"k") == b"1"
    assert run(b"SET", b"k", b"3", b"XX", b"GET") == b"1"
    assert run(b"SET", b"k", b"4", b"NX", b"GET") == b"3"
    assert run(b"SET", b"new", b"4", b"NX", b"GET") is None
    assert run(b"MGET", b"k", b"new", b"none") == [b"3", b"4", None]
    assert run(b"SET", b"k", b"4", b"NX", b"XX") == ErrorReply("ERR syntax error")
    assert run(b"SET", b"k", b"4", b"EX", b"10") == ErrorReply("ERR syntax error")
    run(b"RPUSH", b"l", b"x")
    assert run(b"SET", b"l", b"v", b"GET") == WRONGTYPE
    assert run(b"LLEN", b"l") == 1
    assert run(b"SET", b"l", b"v") == OK


def test_delete_and_exists(run: Shell) -> None:
    run(b"SET", b"a", b"1")
    run(b"RPUSH", b"b", b"1")
    assert run(b"EXISTS", b"a", b"a", b"b", b"c") == 3
    assert run(b"DBSIZE") == 2
    assert run(b"DEL", b"a", b"a", b"b", b"c") == 2
    assert run(b"DBSIZE") == 0
    run(b"SET", b"a", b"1")
    assert run(b"FLUSHDB", b"ASYNC") == OK
    assert run(b"DBSIZE") == 0
    assert run(b"FLUSHDB", b"NOW") == ErrorReply("ERR syntax error")


def test_append_does_not_change_replies_given_before(run: Shell) -> None:
    assert run(b"APPEND", b"k", b"ab") == 2
    assert run(b"APPEND", b"k", b"cd") == 4
    before = run(b"GET", b"k")
    old = run(b"SET", b"k", b"abcd", b"GET")
    assert run(b"APPEND", b"k", b"e") == 5
    many = run(b"MGET", b"k")
    assert run(b"APPEND", b"k", b"f") == 6
    assert (before, old, many, run(b"GET", b"k")) == (b"abcd", b"abcd", [b"abcde"], b"abcdef")
    assert run(b"STRLEN", b"k") == 6
    assert run(b"STRLEN", b"none") == 0


def test_numbers(run: Shell) -> None:
    assert run(b"INCR", b"n") == 1
    assert run(b"INCRBY", b"n", 41) == 42
    assert run(b"DECR", b"n") == 41
    assert run(b"DECRBY", b"n", 50) == -9
    assert run(b"GET", b"n") == b"-9"
    assert run(b"APPEND", b"n", b"0") == 3
    assert run(b"INCR", b"n") == -89
    run(b"SET", b"n", v.INT64_MAX)
    overflow = ErrorReply("ERR increment or decrement would overflow")
    assert run(b"INCR", b"n") == overflow
    assert run(b"GET", b"n") == b"%d" % v.INT64_MAX
    run(b"SET", b"n", v.INT64_MIN)
    assert run(b"DECR", b"n") == overflow
    not_integer = ErrorReply("ERR value is not an integer or out of range")
    for text in (b"x", b"", b"1.0", b" 1", b"+1", b"01", b"9223372036854775808", b"-"):
        run(b"SET", b"n", text)
        assert run(b"INCR", b"n") == not_integer, text
        assert run(b"INCRBY", b"m", text) == not_integer, text
    assert run(b"DECRBY", b"m", v.INT64_MIN) == ErrorReply("ERR decrement would overflow")


def test_lists(run: Shell) -> None:
    assert run(b"RPUSH", b"l", b"a", b"b") == 2
    assert run(b"RPUSH", b"l", b"c") == 3
    assert run(b"LLEN", b"l") == 3
    assert run(b"LLEN", b"none") == 0
    assert run(b"LRANGE", b"none", 0, -1) == []
    for start, stop, wanted in (
        (0, -1, [b"a", b"b", b"c"]),
        (1, 1, [b"b"]),
        (-2, -1, [b"b", b"c"]),
        (-100, 100, [b"a", b"b", b"c"]),
        (2, 1, []),
        (0, -4, []),
        (3, 5, []),
    ):
        assert run(b"LRANGE", b"l", start, stop) == wanted
    assert run(b"LRANGE", b"l", b"x", 1) == ErrorReply("ERR value is not an integer or out of range")


def test_a_reply_with_a_list_is_a_copy(run: Shell) -> None:
    run(b"RPUSH", b"l", b"a")
    before = run(b"LRANGE", b"l", 0, -1)
    run(b"RPUSH", b"l", b"b")
    assert before == [b"a"]


@pytest.mark.parametrize(
    "words",
    [(b"GET", b"l"), (b"APPEND", b"l", b"x"), (b"STRLEN", b"l"), (b"INCR", b"l"), (b"SET", b"l", b"x", b"GET"),
     (b"RPUSH", b"s", b"x"), (b"LRANGE", b"s", b"0", b"1"), (b"LLEN", b"s")],
)  # fmt: skip
def test_wrong_type(run: Shell, words: tuple[bytes, ...]) -> None:
    run(b"RPUSH", b"l", b"1")
    run(b"SET", b"s", b"1")
    assert run(*words) == WRONGTYPE
    assert run(b"LRANGE", b"l", 0, -1) == [b"1"]
    assert run(b"GET", b"s") == b"1"


def test_last_applied_counts_empty_instances_too() -> None:
    machine = KvStateMachine()
    assert machine.last_applied() == -1
    assert machine.apply_batch(0, []) == []
    assert machine.last_applied() == 0
    assert machine.apply_batch(1, [v.encode_set(b"a", b"1", 0), v.encode_key(v.OP_GET, b"a")]) == [OK, b"1"]
    assert machine.last_applied() == 1


def test_a_newer_encoding_stops_the_node_instead_of_being_passed_over() -> None:
    with pytest.raises(UnsupportedValue, match="encoding 2, this release knows 1"):
        KvStateMachine().apply(0, b"\x02\x01key")


@given(st.binary(max_size=64))
def test_any_bytes_are_applied_alike_and_never_raise(tail: bytes) -> None:
    one, two = KvStateMachine(), KvStateMachine()
    for operation in range(16):
        value = bytes((v.VERSION, operation)) + tail
        assert one.apply(operation, value) == two.apply(operation, value)


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x01\x00", b"\x01\x02", b"\x01\x02\x00\xff\xff\xff\xff", b"\x01\x07",
                                   b"\x01\x03\xff\xff\xff\xff", b"\x01\x03\x01\x00\x00\x00\x05\x00\x00\x00abc",
                                   b"\x01\x03\x01\x00\x00\x00\x01\x00\x00\x00abc"])  # fmt: skip
def test_malformed_values_are_answered(value: bytes) -> None:
    assert KvStateMachine().apply(0, value) == MALFORMED


@given(st.lists(st.binary(max_size=20), max_size=20), st.binary(max_size=20), st.binary(max_size=20))
def test_encodings_come_back(items: list[bytes], key: bytes, value: bytes) -> None:
    assert v.decode_many(v.encode_many(v.OP_DEL, items)) == items
    assert v.decode_set(v.encode_set(key, value, 5)) == (5, key, value)
    assert v.decode_append(v.encode_append(key, value)) == (key, value)


@given(st.integers(v.INT64_MIN, v.INT64_MAX), st.integers(v.INT64_MIN, v.INT64_MAX), st.binary(max_size=20))
def test_numbers_come_back(one: int, two: int, key: bytes) -> None:
    assert v.decode_incrby(v.encode_incrby(key, one)) == (key, one)
    assert v.decode_lrange(v.encode_lrange(key, one, two)) == (key, one, two)
    assert parse_int64(b"%d" % one) == one


def test_reads_are_what_the_log_would_answer_and_change_nothing() -> None:
    machine = KvStateMachine()
    machine.apply_batch(
        0, [v.encode_set(b"k", b"1", 0), v.encode_many(v.OP_RPUSH, [b"l", b"a", b"b"]), v.encode_append(b"k", b"2")]
    )
    queries = [
        v.encode_key(v.OP_GET, b"k"),
        v.encode_key(v.OP_GET, b"l"),
        v.encode_key(v.OP_STRLEN, b"k"),
        v.encode_key(v.OP_LLEN, b"l"),
        v.encode_lrange(b"l", 0, -1),
        v.encode_many(v.OP_MGET, [b"k", b"l"]),
        v.encode_many(v.OP_EXISTS, [b"k", b"l", b"m"]),
        v.encode_bare(v.OP_DBSIZE),
    ]
    answers = machine.read_batch(queries)
    assert answers == [b"12", WRONGTYPE, 2, 2, [b"a", b"b"], [b"12", None], 2, 2]
    assert [machine.read(query) for query in queries] == answers
    assert machine.last_applied() == 0
    assert machine.apply_batch(1, queries) == answers
    # What has been answered stays as it was.
    machine.apply_batch(2, [v.encode_append(b"k", b"3"), v.encode_many(v.OP_RPUSH, [b"l", b"c"])])
    assert answers == [b"12", WRONGTYPE, 2, 2, [b"a", b"b"], [b"12", None], 2, 2]


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"\x01",
        v.encode_set(b"k", b"1", 0),
        v.encode_bare(v.OP_FLUSHDB),
        b"\x02\x01k",
        b"\x01\xffk",
        b"\x01\x0b\xff",
    ],
)
def test_what_does_not_only_read_is_not_read(query: bytes) -> None:
    machine = KvStateMachine()
    machine.apply_batch(0, [v.encode_set(b"k", b"1", 0)])
    with pytest.raises(ValueError, match=r"only reads|shorter"):
        machine.read(query)
    assert len(machine) == 1
