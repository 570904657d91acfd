"""Large values between real engines and nodes: they arrive, once, and nothing small waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import frames
import paxos
from engines import HOUR, PATIENCE, Engines
from frames import ACCEPT, FORWARD, HEARTBEAT, HEARTBEAT_REPLY, HELLO, PIECE
from nodes import Journal, book, cluster, master_of, until
from paxos._codec import check_frame
from paxos._pieces import Assembly
from test_engine_network import connect, hello, incarnation, refused, signature, still_works, until_closed

MIB = 1 << 20
SIZE = 4 * MIB
MAX_FRAME = 8 * MIB
BUFFER = 65_536


class Slow:
    """Takes the place of node 2 in a cluster of two: reads what node 1 sends it at the pace of its own choice, and keeps it
    master by answering its heartbeats."""

    def __init__(self, c: Engines) -> None:
        self.c = c
        self.told = dict(sig=signature(c), inc=incarnation(c, 2))
        c.stop(2)
        self.listening = socket.socket()
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.listening.bind(c.addresses[2])
        self.listening.listen()
        self.out = connect(c)
        self.out.sendall(hello(c, **self.told))
        self.listening.settimeout(PATIENCE)
        self.conn, _ = self.listening.accept()
        self.conn.settimeout(PATIENCE)
        self.stream = b""
        self.bytes = 0
        self.assembly = Assembly(MAX_FRAME)
        self.frames: list[tuple[int, int, bytes]] = []  # bytes of the stream before its end, type, frame

    def send(self, kind: int, **fields: Any) -> None:
        sig = signature(self.c) & (2**64 - 1)
        self.out.sendall(frames.frame(kind, 2, signature=sig, inc=self.told["inc"], **fields))

    def read(self) -> None:
        """What one call gives."""
        data = self.conn.recv(BUFFER)
        assert data, "the master hung up"
        self.stream += data
        self.bytes += len(data)
        while True:
            code, need = check_frame(self.stream)
            if code == 1:
                return
            assert code == 0
            frame, self.stream = self.stream[:need], self.stream[need:]
            self.frames.append((self.bytes - len(self.stream), frame[13], frame))
            if frame[13] == HEARTBEAT:
                self.send(HEARTBEAT_REPLY, ballot=self.ballot(frame), sent_at=0)
            elif frame[13] == PIECE and (whole := self.assembly.take(frame)) is not None:
                self.frames.append((self.bytes - len(self.stream), whole[13], whole))

    @staticmethod
    def ballot(frame: bytes) -> frames.Ballot:
        round_, inc_hi, inc_lo, node, _ = frames.BALLOT.unpack_from(frame, frames.HEAD.size)
        return (round_, node, inc_hi, inc_lo)

    def of(self, *kinds: int) -> list[bytes]:
        return [frame for _, kind, frame in self.frames if kind in kinds]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for s in (self.conn, self.out, self.listening):
            s.close()


def two(path: Path) -> Engines:
    """Nodes 1 and 2, and node 1 is the master."""
    c = Engines(
        path,
        2,
        max_value=SIZE,
        segment_size=16 * MIB,
        heartbeat_ns=10**7,
        election_min_ns=10**9,
        election_max_ns=2 * 10**9,
    )
    c.start()
    c.wait_master()
    if c.master() == 2:
        c.running[2].resign(False)
        c.until(lambda: c.master() == 1)
    return c


def test_heartbeats_pass_between_the_pieces_and_a_value_is_sent_once(tmp_path: Path) -> None:
    """However slowly the peer reads: no heartbeat waits for a value, and no Accept is sent again that has not even left."""
    c = two(tmp_path)
    try:
        with Slow(c) as peer:
            value = os.urandom(SIZE)
            seq = c.running[1].submit(0, [value], c.running[1].now() + HOUR)
            while not peer.of(ACCEPT):
                # The master has had something else to send in the meantime: two heartbeats, one every 10 ms. So this takes
                # more than a second, and an Accept of this size may be sent again after 230 ms.
                sent = c.running[1].status()["frames_sent"]
                c.until(lambda sent=sent: c.running[1].status()["frames_sent"] > sent + 1)  # type: ignore[misc]
                peer.read()
            (accept,) = peer.of(ACCEPT)
            assert accept.endswith(value)
            at = [end for end, kind, _ in peer.frames if kind == HEARTBEAT]
            gaps = [after - before for before, after in zip([0, *at], at, strict=False)]
            assert len(at) > 20
            assert max(gaps) < SIZE // 4, f"bytes between two heartbeats: {gaps}"
            assert {kind for _, kind, _ in peer.frames} == {HELLO, HEARTBEAT, PIECE, ACCEPT}
            assert peer.frames[0][1] == HELLO, "first, whatever waits"
            assert sum(kind == PIECE for _, kind, _ in peer.frames) == -(-len(accept) // 130_992)
            peer.send(frames.ACCEPTED, ballot=peer.ballot(accept), **dict.fromkeys(("first", "last"), instance(accept)))
            c.until(lambda: seq in c.settled(1))
            assert c.settled(1)[seq] == [value]
            while len(peer.of(HEARTBEAT)) < len(at) + 100:
                peer.read()
            # It may have been sent again just when the last of it had left, and the answer was on its way.
            assert len([f for f in peer.of(PIECE) if f[80:84] == b"PXF1"]) <= 2, "how many transfers were begun"
    finally:
        c.stop()


def instance(accept: bytes) -> int:
    found: int = struct.unpack_from("<Q", accept, frames.HEAD.size + frames.BALLOT.size)[0]
    return found


def test_news_that_overtake_a_value_do_not_make_it_come_twice(tmp_path: Path) -> None:
    """The slow node hears that an instance is chosen while its Accept is still coming, in pieces: it does not ask for it."""
    c = two(tmp_path)
    try:
        with Slow(c) as peer:
            value = os.urandom(SIZE)
            seq = c.running[1].submit(0, [value], c.running[1].now() + HOUR)
            while not peer.of(ACCEPT):
                peer.read()
            (accept,) = peer.of(ACCEPT)
            # Now node 1 stands for the slow node: the same Accept, of a master that is node 2 and stands above its ballot.
            round_, *_ = peer.ballot(accept)
            mine = (round_ + 1, 2, *peer.told["inc"])
            where = instance(accept)
            later = frames.frame(
                ACCEPT, 2, data=accept[128:], value=(1, 1), ballot=mine, instance=where, own_from=where, chosen=where,
                signature=signature(c) & (2**64 - 1), inc=peer.told["inc"],
            )  # fmt: skip
            later = resealed(later, chain=c.running[1].status()["chain"])
            parts = [later[at : at + 65_536] for at in range(0, len(later), 65_536)]
            tell = dict(ballot=mine, own_from=where, settled=where + 1, chosen=where + 1)
            chain = frames.chain([(1, accept[128:])], where, c.running[1].status()["chain"])
            peer.send(HEARTBEAT, **(tell | {"chosen": where}), chain=c.running[1].status()["chain"])
            for number, part in enumerate(parts):
                peer.send(PIECE, data=part, transfer=1, total=len(later), offset=number * 65_536)
                peer.send(HEARTBEAT, **tell, chain=chain)
            # The answer to this heartbeat comes behind everything that those before it have brought about.
            peer.send(HEARTBEAT, **tell, chain=chain, sent_at=77)
            while not peer.of(HEARTBEAT_REPLY):
                peer.read()
            assert not peer.of(frames.LEARN)
            c.until(lambda: c.values(1) == [value])
            assert seq in c.settled(1)
            # A later Accept shows that the one before it was lost: then it does ask.
            lost = resealed(later, chain=chain, chosen=where + 1, instance=where + 2)
            peer.send(PIECE, data=lost[:65_536], transfer=2, total=len(lost), offset=0)
            peer.send(HEARTBEAT, **(tell | {"chosen": where + 2}), chain=1, sent_at=78)
            while len(peer.of(HEARTBEAT_REPLY)) < 2:
                peer.read()
            assert len(peer.of(frames.LEARN)) == 1
    finally:
        c.stop()


def resealed(frame: bytes, *, chain: int, chosen: int | None = None, instance: int | None = None) -> bytes:
    raw = bytearray(frame)
    raw[56:60] = struct.pack("<I", chain)
    if chosen is not None:
        raw[48:56] = struct.pack("<Q", chosen)
    if instance is not None:
        raw[96:104] = struct.pack("<Q", instance)
    raw[8:12] = struct.pack("<I", frames.crc(bytes(raw[12:])))
    return bytes(raw)


def test_a_new_master_takes_a_large_value_over(tmp_path: Path) -> None:
    """It is reported to the candidate, in pieces like an Accept."""
    c = two(tmp_path)
    try:
        value = os.urandom(SIZE)
        with Slow(c):
            records = c.running[1].status()["log_records"]
            c.running[1].submit(0, [value], c.running[1].now() + HOUR)
            c.until(lambda: c.running[1].status()["log_records"] > records)
            c.running[1].resign(False)
        sent = c.running[1].status()["bytes_sent"]
        c.start(2)
        c.until(lambda: c.master() == 2)
        c.until(lambda: c.values(1) == c.values(2) == [value])
        assert c.running[1].status()["bytes_sent"] - sent > SIZE
    finally:
        c.stop()


# ---- pieces that are refused ----


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Any:
    c = Engines(tmp_path_factory.mktemp("engines"))
    c.start()
    c.wait_master()
    yield c
    c.stop()


def whole(c: Engines, *, sender: int = 2) -> bytes:
    data = frames.chunk(2, 1, [bytes(200_000)])
    sig = signature(c) & (2**64 - 1)
    return frames.frame(FORWARD, sender, data=data, count=1, signature=sig, inc=incarnation(c, sender))


def part(c: Engines, frame: bytes, at: int, size: int = 65_536, transfer: int = 1) -> bytes:
    sig = signature(c) & (2**64 - 1)
    return frames.frame(
        PIECE, 2, data=frame[at : at + size], transfer=transfer, total=len(frame), offset=at, signature=sig,
        inc=incarnation(c, 2),
    )  # fmt: skip


WRONG = {
    "offset": ("piece", lambda c: part(c, whole(c), 0) + part(c, whole(c), 100_000)),
    "interleaved": ("piece", lambda c: part(c, whole(c), 0) + part(c, whole(c), 0, transfer=2)),
    "sender": ("piece", lambda c: part(c, whole(c, sender=3), 0)),
    "total": ("length", lambda c: part(c, whole(c) + bytes(4 * MIB), 0)),
    "crc": ("crc", lambda c: b"".join(part(c, whole(c)[:-1] + b"?", at) for at in range(0, 200_000, 65_536))),
    "whole": ("length", whole),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_pieces_ends_the_connection(engines: Engines, what: str) -> None:
    reason, make = WRONG[what]
    before = refused(engines, reason)

    def refuses() -> bool:
        # (Node 2 itself is there, too. When it dials again before all of this has come, this connection ends without a word.)
        with contextlib.suppress(ConnectionError), connect(engines) as s:
            s.sendall(hello(engines) + make(engines))
            assert until_closed(s) == b""
        return refused(engines, reason) > before

    engines.until(refuses)
    still_works(engines)


def test_a_piece_is_no_handshake(engines: Engines) -> None:
    before = refused(engines, "no_hello")
    with connect(engines) as s:
        s.sendall(part(engines, whole(engines), 0, 1000))
        assert until_closed(s) == b""
    engines.until(lambda: refused(engines, "no_hello") == before + 1)


def test_a_transfer_that_ends_half_way_harms_nobody(engines: Engines) -> None:
    with connect(engines) as s:
        s.sendall(hello(engines) + part(engines, whole(engines), 0))
    still_works(engines)
    assert engines.running[1].status()["core_refused"] == 0


# ---- nodes ----


def test_small_values_go_on_while_large_ones_are_under_way(tmp_path: Path) -> None:
    """40 MiB: proposed at the master, forwarded by another node, and fetched by one that was away."""

    async def body() -> None:
        addresses = book()
        options: dict[str, Any] = {"max_value": 40 * MIB, "segment_bytes": 64 * MIB, "election_timeout": 5.0}
        async with cluster(tmp_path, addresses=addresses, **options) as nodes:
            master = master_of(nodes)
            other, away = (node for node in nodes.values() if node is not master)
            number = away.status().node_id
            await away.close()
            ended = False
            done = 0

            async def small() -> None:
                nonlocal done
                while not ended:
                    await other.propose(b"small", timeout=60)
                    done += 1

            task = asyncio.create_task(small())
            for at in (master, other):
                await at.propose(os.urandom(40 * MIB), timeout=60)
                await until(lambda before=done: done > before + 10, "small values go on")  # type: ignore[misc]
            ended = True
            await task
            nodes[number] = await paxos.Node.open(
                tmp_path / str(number), node_id=number, cluster=addresses, state_machine=Journal, **options
            )
            last = master.status().chosen
            await until(lambda: all(node.status().applied >= last for node in nodes.values()), "all nodes have it")
            status = [node.status() for node in nodes.values()]
            # Two Accepts, one Forward, two values for the node that was away. On a very slow disk some may be sent again.
            assert sum(s.bytes_sent for s in status) < 2 * 5 * 40 * MIB
            assert len({s.checksum for s in status if s.applied == status[0].applied}) == 1
            assert sum(s.elections for s in status) == 1

    asyncio.run(body())


def test_values_of_64_mib_are_the_largest(tmp_path: Path) -> None:
    options = paxos.Options.make(max_value=64 * MIB, segment_bytes=128 * MIB)
    assert options.max_value == 64 * MIB
    with pytest.raises(paxos.ConfigError, match="give a number from 1 to 67108864"):
        paxos.Options.make(max_value=64 * MIB + 1, segment_bytes=128 * MIB)
    with pytest.raises(paxos.ConfigError, match="must hold the largest value: make it at least 67178496"):
        paxos.Options.make(max_value=64 * MIB)

    async def body() -> None:
        async with cluster(tmp_path, 1, max_value=64 * MIB, segment_bytes=128 * MIB) as nodes:
            value = bytes(64 * MIB)
            assert await nodes[1].propose(value, timeout=60) == 0
            with pytest.raises(paxos.ValueTooLarge):
                await nodes[1].propose(value + b"x")

    asyncio.run(body())
