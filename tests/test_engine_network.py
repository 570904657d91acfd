"""What comes in on a node's port that should not: counted by its reason, answered or cut off, and no harm to the rest."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines import PATIENCE, Engines
from paxos._codec import checksum

HELLO, REFUSE, FORM, PIECE, ACCEPT, HEARTBEAT = 1, 2, 3, 6, 22, 24


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    c = Engines(tmp_path_factory.mktemp("engines"))
    c.start()
    c.wait_master()
    yield c
    c.stop()


def frame(
    kind: int,
    body: bytes,
    *,
    sender: int = 2,
    version: int = 1,
    length: int | None = None,
    group: int = 0,
    signature: int = 0,
    incarnation: tuple[int, int] = (0, 0),
) -> bytes:
    rest = struct.pack("<BBHIIQQQQII", version, kind, 0, group, sender, signature, *incarnation, 0, 0, 0) + body
    return struct.pack("<III", 0x31465850, 12 + len(rest) if length is None else length, checksum(rest)) + rest


def incarnation(c: Engines, node: int) -> tuple[int, int]:
    text = c.running[node].status()["incarnation"]
    return int(text[:16], 16), int(text[16:], 16)


def signature(c: Engines) -> int:
    return int(c.running[1].status()["signature"], 16)


def hello(
    c: Engines,
    *,
    sender: int = 2,
    to: int = 1,
    sig: int | None = None,
    state: int = 2,
    inc: tuple[int, int] | None = None,
    config: int = 0,
) -> bytes:
    whole = signature(c) if sig is None else sig
    body = struct.pack("<QQIIII", whole >> 64, whole & (2**64 - 1), to, 1, state, config)
    return frame(HELLO, body, sender=sender, signature=whole & (2**64 - 1), incarnation=inc or incarnation(c, sender))


def refused(c: Engines, reason: str) -> int:
    return c.running[1].status()["frames_refused"][reason]


def connect(c: Engines) -> socket.socket:
    s = socket.create_connection(c.addresses[1], PATIENCE)
    s.settimeout(PATIENCE)
    return s


def until_closed(s: socket.socket) -> bytes:
    """What the other side says before it hangs up."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := s.recv(65536):
            said += data
    return said


def still_works(c: Engines) -> None:
    c.wait_master()
    c.propose(1, b"still")
    c.wait_level()


GARBAGE = {
    "magic": b"GET / HTTP/1.1\r\n" * 8,
    "version": frame(HELLO, bytes(32), version=2),
    "length": frame(HELLO, bytes(32), length=0x7FFFFFFF),
    "crc": frame(HELLO, bytes(32))[:-1] + b"\1",
    "type": frame(99, bytes(32)),
    "body": frame(HELLO, bytes(33)),
    "no_hello": frame(FORM, bytes(20) + b"\1\0\0\0" + bytes(24)),
}


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_is_counted_and_cut_off(cluster: Engines, reason: str) -> None:
    before = refused(cluster, reason)
    with connect(cluster) as s:
        s.sendall(GARBAGE[reason])
        assert until_closed(s) == b""
    cluster.until(lambda: refused(cluster, reason) == before + 1)
    still_works(cluster)


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_behind_a_good_handshake_is_cut_off_too(cluster: Engines, reason: str) -> None:
    """And the member whose name was borrowed gets its connection back."""
    name = "sender" if reason == "no_hello" else reason
    before = refused(cluster, name)
    with connect(cluster) as s:
        data = GARBAGE[reason] if name != "sender" else frame(HEARTBEAT, bytes(56), sender=3)
        s.sendall(hello(cluster) + data)
        assert until_closed(s) == b""
    cluster.until(lambda: refused(cluster, name) == before + 1)
    still_works(cluster)


@pytest.mark.parametrize("kind", ["hello", "piece", "heartbeat"])
def test_of_a_stranger_nothing_is_taken_but_who_the_members_are(cluster: Engines, kind: str) -> None:
    """It knows newer members, it says; of a large frame nothing is kept."""
    stranger = {"sender": 9, "inc": (1, 2)}
    first = hello(cluster, **stranger, config=7)  # type: ignore[arg-type]
    head = struct.pack("<III", 0x31465850, 1 << 20, 0) + struct.pack("<BBHII", 1, ACCEPT, 0, 0, 9) + bytes(40)
    data = {
        "hello": first,
        "piece": frame(PIECE, struct.pack("<QII", 1, 1 << 20, 0) + head + bytes(1000), sender=9),
        "heartbeat": frame(HEARTBEAT, bytes(56), sender=9),
    }[kind]
    before = cluster.running[1].status()["frames_refused"]
    with connect(cluster) as s:
        s.sendall(first + data)
        assert (b"node 9 is no member" in until_closed(s)) == (kind == "hello")
    cluster.until(lambda: refused(cluster, "not_member") == before["not_member"] + 1)
    assert cluster.running[1].status()["frames_refused"] == {**before, "not_member": before["not_member"] + 1}
    still_works(cluster)


REFUSALS = {
    "not_for_me": ({"to": 3}, "this is node 1"),
    "other_cluster": ({"sig": 12345 << 64 | 678}, "another cluster"),
    "not_member": ({"sender": 9, "inc": (1, 2)}, "node 9 is no member"),
    "other_incarnation": ({"inc": (1, 2)}, "another incarnation"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refused_handshake_is_told_why(cluster: Engines, reason: str) -> None:
    options, text = REFUSALS[reason]
    if reason == "other_incarnation":  # in the place of one that is heard: the master, or who answers it
        master = cluster.wait_master()
        options = {"sender": master if master != 1 else 2, **options}
    before = refused(cluster, reason)
    with connect(cluster) as s:
        s.sendall(hello(cluster, **options))  # type: ignore[arg-type]
        s.shutdown(socket.SHUT_WR)
        said = until_closed(s)
    assert said[13] == REFUSE
    assert checksum(said[12:]) == struct.unpack("<I", said[8:12])[0]
    assert text in said[72:].decode()
    cluster.until(lambda: refused(cluster, reason) == before + 1)
    still_works(cluster)


def test_frames_of_another_cluster_behind_the_handshake_are_refused(cluster: Engines) -> None:
    before = refused(cluster, "not_admitted")
    with connect(cluster) as s:
        s.sendall(hello(cluster) + frame(HEARTBEAT, bytes(56), signature=1, incarnation=incarnation(cluster, 2)))
        assert until_closed(s) == b""
    cluster.until(lambda: refused(cluster, "not_admitted") == before + 1)
    still_works(cluster)


def test_frames_of_an_unknown_group_are_refused(cluster: Engines) -> None:
    before = refused(cluster, "group")
    with connect(cluster) as s:
        s.sendall(
            hello(cluster)
            + frame(
                HEARTBEAT,
                bytes(56),
                group=7,
                signature=signature(cluster) & (2**64 - 1),
                incarnation=incarnation(cluster, 2),
            )
        )
        assert until_closed(s) == b""
    cluster.until(lambda: refused(cluster, "group") == before + 1)
    still_works(cluster)


def test_a_frame_may_come_byte_by_byte(cluster: Engines) -> None:
    before = cluster.running[1].status()
    with connect(cluster) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in hello(cluster, to=3):  # a refusal shows that it was understood
            s.sendall(bytes([byte]))
        said = until_closed(s)
    assert said[13] == REFUSE
    assert cluster.running[1].status()["frames_refused"]["length"] == before["frames_refused"]["length"]


def test_who_never_says_anything_is_cut_off(cluster: Engines) -> None:
    before = refused(cluster, "no_hello")
    with connect(cluster) as s:
        assert until_closed(s) == b""
    cluster.until(lambda: refused(cluster, "no_hello") == before + 1)


def test_a_crowd_of_strangers_does_not_keep_members_out(cluster: Engines) -> None:
    crowd = [connect(cluster) for _ in range(100)]
    try:
        cluster.until(lambda: refused(cluster, "too_many") > 0)
        cluster.stop(2)
        cluster.start(2)
        cluster.until(lambda: all(cluster.running[2].status()["peers"].values()))
        cluster.until(lambda: all(cluster.running[1].status()["peers"].values()))
        still_works(cluster)
    finally:
        for s in crowd:
            s.close()


def test_refusals_are_logged_but_not_each(cluster: Engines) -> None:
    seen = len(cluster.events[1])
    before = refused(cluster, "magic")
    started = time.monotonic()
    for _ in range(50):
        with connect(cluster) as s:
            s.sendall(b"x" * 64)
            until_closed(s)
    cluster.until(lambda: refused(cluster, "magic") == before + 50)
    seconds = time.monotonic() - started
    lines = [e for e in cluster.events[1][seen:] if e[0] == 3 and "bad magic" in e[2]]
    assert len(lines) <= seconds + 2


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_comes_in_the_node_lives(cluster: Engines, data: st.DataObject) -> None:
    """Random bytes, and valid frames with a few bytes changed, in front of and behind the handshake."""
    good = hello(cluster) + frame(HEARTBEAT, bytes(56), sender=2, incarnation=incarnation(cluster, 2))
    stream = bytearray(data.draw(st.one_of(st.just(good), st.binary(max_size=300)), label="stream"))
    for _ in range(data.draw(st.integers(0, 4), label="changes")):
        if stream:
            at = data.draw(st.integers(0, len(stream) - 1))
            stream[at] = data.draw(st.integers(0, 255))
    with connect(cluster) as s:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            s.sendall(bytes(stream))
            s.shutdown(socket.SHUT_WR)
        until_closed(s)
    cluster.pump(0.0)
    assert cluster.running[1].status()["formed"]


def test_after_all_that_the_cluster_chooses(cluster: Engines) -> None:
    still_works(cluster)
    assert cluster.chosen(1) == cluster.chosen(3)


def test_a_wiped_node_is_taken_in_anew_when_the_old_one_is_not_heard_any_more(tmp_path: Path) -> None:
    c = Engines(tmp_path)
    try:
        c.start()
        c.wait_master()
        c.propose(1, b"v")
        c.stop(3)
        (c.directory / "3").rename(c.directory / "3.gone")
        c.start(3)
        c.until(lambda: "empty data directory" in c.logs(3))
        c.wait_master([1, 2])  # node 3 may have been the master: then what is proposed meanwhile may end unknown
        c.propose(1, b"w")
        c.until(lambda: c.values(3) == c.values(1) and c.running[3].status()["votes"])
        assert c.running[3].status()["membership_version"] == 1
        # It has a vote: with one of the others gone there is a majority all the same.
        c.stop(2)
        c.wait_master([1, 3])
        c.propose(3, b"x")
    finally:
        c.stop()


def test_other_members_are_named_in_a_warning(tmp_path: Path) -> None:
    c = Engines(tmp_path)
    try:
        c.start()
        c.wait_master()
        c.stop()
        c.addresses[4] = ("127.0.0.1", 1)
        c.start(1, 2, 3)
        c.until(lambda: "the members are the nodes [1, 2, 3]" in c.logs(1))
        c.propose(c.wait_master(), b"v")
    finally:
        c.stop()


def test_empty_nodes_with_different_lists_do_not_form(tmp_path: Path) -> None:
    c = Engines(tmp_path, 2)
    try:
        c.start(1)
        c.addresses[3] = ("127.0.0.1", 1)
        c.start(2)
        c.until(lambda: c.running[1].status()["frames_refused"]["other_config"] > 0)
        c.until(lambda: "refused this node: node 1 was given other members" in c.logs(2))
        assert not c.running[1].status()["formed"]
    finally:
        c.stop()
