"""Requests off the wire: however the bytes are cut, whatever they are, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paxos.kv.requests import ProtocolError, RequestReader

LIMIT = 1 << 20


def wire(commands: list[list[bytes]]) -> bytes:
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words) for words in commands
    )


payloads = st.one_of(
    st.binary(max_size=40),
    # Payloads that look like the protocol, also like headers that the reader must look at twice.
    st.sampled_from([b"*1234567\r\n", b"\r\n*999999999999\r\n", b"%999999", b"$5\r\nhello\r\n", b"*1\r\n", b"*100000"]),
)
streams = st.lists(st.lists(payloads, min_size=1, max_size=4), max_size=8)


@given(streams, st.lists(st.integers(0, 1000), max_size=6))
def test_any_cut_gives_the_same_commands(commands: list[list[bytes]], cuts: list[int]) -> None:
    data = wire(commands)
    reader = RequestReader(LIMIT)
    got: list[list[bytes]] = []
    at = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        got += reader.feed(data[at:cut])
        at = cut
    assert got == commands


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_random_bytes_end_in_commands_or_in_a_protocol_error(chunks: list[bytes]) -> None:
    reader = RequestReader(LIMIT)
    for chunk in chunks:
        try:
            commands = reader.feed(chunk)
        except ProtocolError as error:
            commands = error.args[1]
            break
    else:
        return
    assert all(type(word) is bytes for words in commands for word in words)


@pytest.mark.parametrize("header", [b"*100000\r\n", b"*999999999\r\n", b"*99999999999999999999999999999\r\n",
                                    b"*1\r\n*999999999\r\n", b"*2\r\n$1\r\na\r\n%999999999\r\n",
                                    b"*1\r\n~999999999\r\n"])  # fmt: skip
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_header_that_announces_too_many_items_is_refused(header: bytes, step: int) -> None:
    reader = RequestReader(LIMIT)
    data = wire([[b"PING"]]) + header
    with pytest.raises(ProtocolError):  # noqa: PT012  # which of the pieces is refused depends on the step
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])


def test_commands_before_an_error_are_kept() -> None:
    with pytest.raises(ProtocolError) as caught:
        RequestReader(LIMIT).feed(wire([[b"PING"], [b"ECHO", b"x"]]) + b"*x\r\n")
    assert caught.value.args[1] == [[b"PING"], [b"ECHO", b"x"]]


@pytest.mark.parametrize("data", [b"*1\r\n:1\r\n", b"*1\r\n$-1\r\n", b"*1\r\n*1\r\n$1\r\na\r\n", b"*1\r\n-x\r\n",
                                  b"*1\r\n%1\r\n*1\r\n:1\r\n:2\r\n", b"*-5\r\n", b"'unbalanced\r\n"])  # fmt: skip
def test_what_is_no_command_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        RequestReader(LIMIT).feed(data)


def test_nothing_is_kept_beyond_the_limit() -> None:
    reader = RequestReader(LIMIT)
    reader.feed(b"*1\r\n$99999999999\r\n")
    fed = 0
    with pytest.raises(ProtocolError, match="at most"):  # noqa: PT012
        while True:
            reader.feed(b"x" * 65536)
            fed += 65536
            assert fed < 3 * LIMIT
    assert RequestReader(LIMIT).feed(b"*0\r\n*-1\r\n") == []


def test_a_value_of_the_full_size_passes() -> None:
    command = [b"SET", b"k", b"v" * LIMIT]
    data = wire([command]) * 3
    reader = RequestReader(LIMIT)
    got = [words for at in range(0, len(data), 50_000) for words in reader.feed(data[at : at + 50_000])]
    assert got == [command] * 3


def test_a_stream_that_is_never_at_a_start_of_a_command_keeps_little() -> None:
    one = wire([[b"SET", b"key", b"*1234567\r\n" * 10]])
    data = one * 20_000
    reader = RequestReader(LIMIT)
    step = 10 * len(one) - 1
    count = 0
    for at in range(0, len(data), step):
        count += len(reader.feed(data[at : at + step]))
        assert len(reader._kept) < 512 * 1024
    assert count == 20_000


def test_inline_commands() -> None:
    reader = RequestReader(LIMIT)
    assert reader.feed(b"PING\r\n\r\nset k 'a b'\nGE") == [[b"PING"], [b"set", b"k", b"a b"]]
    assert reader.feed(b"T k\r\n" + wire([[b"PING"]])) == [[b"GET", b"k"], [b"PING"]]
    with pytest.raises(ProtocolError, match="inline"):
        reader.feed(b"x" * 70_000)
