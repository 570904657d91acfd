"""The server on a real socket, before a node that is a fake: order, errors, bounds, and what clients send first."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import pytest
import redis
import redis.asyncio

import paxos
from cluster import MakeCluster, wait_until
from kv_fakes import FakeNode
from paxos.kv import KvServer, Map, replies, server
from paxos.kv.values import OP_DBSIZE, OP_GET, encode_append, encode_bare, encode_key

DEADLINE = 20.0


class Wire:
    """A raw connection: bytes out, replies in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.parser = hiredis.Reader(replyError=lambda text: ("error", text))

    def send(self, *commands: str) -> None:
        self.writer.write(b"".join([hiredis.pack_command(tuple(command.split(" "))) for command in commands]))

    async def reply(self) -> object:
        while (reply := self.parser.gets()) is False:
            data = await asyncio.wait_for(self.reader.read(65536), DEADLINE)
            if not data:
                raise EOFError
            self.parser.feed(data)
        return reply

    async def replies(self, count: int) -> list[object]:
        return [await self.reply() for _ in range(count)]


def with_server(
    body: Callable[[FakeNode, KvServer, Callable[[], Awaitable[Wire]]], Awaitable[None]], **options: Any
) -> None:
    async def main() -> None:
        node = FakeNode()
        kv = KvServer(node, **options)
        await kv.start("127.0.0.1", 0)
        wires: list[Wire] = []

        async def connect() -> Wire:
            wires.append(Wire(*await asyncio.open_connection(*kv.address)))
            return wires[-1]

        try:
            await asyncio.wait_for(body(node, kv, connect), DEADLINE)
        finally:
            node.release()
            await kv.close()
            for wire in wires:
                wire.writer.close()
            await asyncio.gather(*(wire.writer.wait_closed() for wire in wires), return_exceptions=True)

    asyncio.run(main())
    gc.collect()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition`` holds; the deadline of the test ends it otherwise."""
    while not condition():
        await asyncio.sleep(0.001)


def test_replies_come_in_order_with_local_ones_between() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("ECHO a", "SET k 1", "ECHO b", "INCR k", "NOSUCH x", "GET k", "PING")
        assert await wire.reply() == b"a"
        await until(lambda: bool(node.held))
        wire.send("INCR k", "ECHO c")
        await until(lambda: kv.commands == 9)
        assert len(node.calls) == 1, "a connection has one batch under way"
        node.release()
        unknown = ("error", "ERR unknown command 'NOSUCH', with args beginning with: 'x'")
        assert await wire.replies(8) == [b"OK", b"b", 2, unknown, b"2", b"PONG", 3, b"c"]

    with_server(body)


def test_what_only_reads_is_not_put_into_the_log() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("SET k 12345", "RPUSH l a b c")
        assert await wire.replies(2) == [b"OK", 3]
        for command, reply in {
            "GET k": b"12345", "EXISTS k l k no": 3, "STRLEN k": 5, "LRANGE l 1 -1": [b"b", b"c"], "LLEN l": 3,
            "MGET k no l": [b"12345", None, None], "DBSIZE": 2,
        }.items():  # fmt: skip
            wire.send(command)
            assert await wire.reply() == reply
        wire.send("GET l", "LLEN k")
        assert (
            await wire.replies(2)
            == [("error", "WRONGTYPE Operation against a key holding the wrong kind of value")] * 2
        )
        assert len(node.calls) == 1
        assert [len(queries) for _, queries in node.reads] == [1] * 7 + [2]
        assert {consistency for consistency, _ in node.reads} == {"linearizable"}
        assert (node.reads[0][1], node.reads[6][1]) == ([encode_key(OP_GET, b"k")], [encode_bare(OP_DBSIZE)])
        for change in ("SET k v GET", "DEL k", "APPEND k v", "INCR n", "FLUSHDB"):
            wire.send(change)
            await wire.reply()
        assert (len(node.calls), len(node.reads)) == (6, 8)

    with_server(body)


def test_reads_and_writes_of_a_connection_keep_their_order() -> None:
    """A read behind a write sees it, a write behind a read is not seen; a read waits for the write before it, and so on."""

    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("SET k 1", "GET k", "SET k 2", "MGET k", "ECHO x", "GET k")
        assert await wire.replies(6) == [b"OK", b"1", b"OK", [b"2"], b"x", b"2"]
        assert ([len(call) for call in node.calls], node.reads) == ([5], []), "one trip for a pipeline with both"
        node.hold = True
        wire.send("SET k 3")
        await until(lambda: len(node.held) == 1)
        wire.send("GET k", "GET k")
        await until(lambda: kv.commands == 9)
        assert node.reads == [], "the write before it is under way"
        node.held.pop().set_result(None)
        await until(lambda: len(node.held) == 1)
        assert [len(queries) for _, queries in node.reads] == [2]
        wire.send("SET k 4")
        await until(lambda: kv.commands == 10)
        assert len(node.calls) == 2, "the read before it is under way"
        node.release()
        assert await wire.replies(4) == [b"OK", b"3", b"3", b"OK"]

    with_server(body)


def test_connections_share_one_call_for_their_reads_and_one_for_their_writes() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wires = [await connect() for _ in range(20)]
        await until(lambda: len(kv.connections) == 20)
        for number, wire in enumerate(wires):
            for connection in kv.connections:
                if connection.session.address == "{}:{}".format(*wire.writer.get_extra_info("sockname")):
                    words = ("SET", "k", f"v{number}") if number % 2 else ("STRLEN", f"k{number}")
                    connection.data_received(hiredis.pack_command(words))
        assert [await wire.reply() for wire in wires] == [0, b"OK"] * 10
        assert [len(call) for call in node.calls] == [10]
        assert [len(queries) for _, queries in node.reads] == [10]

    with_server(body)


def test_stale_reads_are_asked_for_as_such() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("GET k")
        assert await wire.reply() is None
        assert node.reads == [("stale", [encode_key(OP_GET, b"k")])]

    with_server(body, reads="stale")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (paxos.NotAvailable("no master has confirmed it"), "UNAVAILABLE no master has confirmed it"),
        (paxos.Overloaded("too many"), "UNAVAILABLE too many"),
        (paxos.NodeClosed("closed"), "UNAVAILABLE closed"),
        (RuntimeError("a bug"), "ERR internal error: RuntimeError"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_errors_of_reads(error: Exception, text: str, count: int) -> None:
    """Never UNKNOWN: a read that failed has changed nothing."""

    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.error = error
        wire.send(*["GET k"] * count, "PING")
        assert await wire.replies(count + 1) == [("error", text)] * count + [b"PONG"]
        node.error = None
        wire.send("DBSIZE")
        assert await wire.reply() == 0

    with_server(body)


def test_close_answers_reads_that_are_under_way() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("GET k")
        await until(lambda: bool(node.held))
        closing = asyncio.create_task(kv.close(grace=DEADLINE))
        await asyncio.sleep(0)
        node.release()
        assert await wire.reply() is None
        await closing

    with_server(body)


def test_connections_share_one_call_into_the_node() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wires = [await connect() for _ in range(20)]
        await until(lambda: len(kv.connections) == 20)
        for number, wire in enumerate(wires):
            for connection in kv.connections:
                if connection.session.address == "{}:{}".format(*wire.writer.get_extra_info("sockname")):
                    connection.data_received(hiredis.pack_command(("SET", f"k{number}", "v")))
        assert [await wire.reply() for wire in wires] == [b"OK"] * 20
        assert [len(call) for call in node.calls] == [20]

    with_server(body)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (paxos.NotAvailable("no majority"), "UNAVAILABLE no majority"),
        (paxos.Overloaded("queue full"), "UNAVAILABLE queue full"),
        (paxos.NodeClosed("closed"), "UNAVAILABLE closed"),
        (paxos.OutcomeUnknown("timed out\r\n+OK"), "UNKNOWN timed out  +OK"),
        (paxos.StateMachineFailed("apply raised"), "UNKNOWN apply raised"),
        (paxos.ValueTooLarge("too large"), "ERR too large"),
        (RuntimeError("a bug"), "UNKNOWN internal error: RuntimeError"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_errors_of_the_node(error: Exception, text: str, count: int) -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.error = error
        wire.send(*["INCR k"] * count, "PING")
        assert await wire.replies(count + 1) == [("error", text)] * count + [b"PONG"]
        node.error = None
        wire.send("INCR k")
        assert await wire.reply() == 1

    with_server(body)


def test_a_partial_outcome_is_told_for_each_command() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.error = paxos.PartialOutcome(
            "some", [replies.OK, paxos.NotAvailable("gone"), paxos.OutcomeUnknown("lost"), 4]
        )
        wire.send("SET a 1", "SET b 1", "SET c 1", "INCR d")
        assert await wire.replies(4) == [b"OK", ("error", "UNAVAILABLE gone"), ("error", "UNKNOWN lost"), 4]

    with_server(body)


def test_garbage_ends_its_own_connection_only() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        good, bad, large = await connect(), await connect(), await connect()
        bad.writer.write(hiredis.pack_command(("SET", "k", "v")) + b"*999999999\r\n")
        first, second = await bad.replies(2)
        assert first == b"OK"
        assert isinstance(second, tuple)
        assert second[1].startswith("ERR Protocol error")
        with pytest.raises(EOFError):
            await bad.reply()
        large.writer.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$90000000\r\n")
        for _ in range(16):
            large.writer.write(b"x" * 65536)
        third = await large.reply()
        assert isinstance(third, tuple)
        assert third[1].startswith("ERR Protocol error")
        good.send("GET k")
        assert await good.reply() == b"v"

    with_server(body, max_value=1000)


def test_a_command_above_the_limit_is_refused_before_it_is_proposed() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("SET k " + "v" * 1000, "SET k v")
        first, second = await wire.replies(2)
        assert first == ("error", "ERR command of 1008 bytes exceeds the maximum of 1000")
        assert second == b"OK"

    with_server(body, max_value=1000)


def test_reading_pauses_while_too_much_is_unanswered_and_goes_on_after() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        total = 200_000
        wire.writer.write(hiredis.pack_command(("INCR", "k")) * total)
        connection = next(iter(kv.connections))
        await until(lambda: not connection._reading)
        assert kv.commands < total, "everything was read although nothing was answered"
        node.release()
        assert await wire.replies(total) == list(range(1, total + 1))

    with_server(body)


def test_replies_wait_while_the_client_does_not_read() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        value = "v" * 1_000_000
        wire.send(f"SET k {value}")
        assert await wire.reply() == b"OK"
        wire.send(*["GET k"] * 100)
        connection = next(iter(kv.connections))
        await until(lambda: len(connection._ready) > 0)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 4_000_000
        assert await wire.replies(100) == [value.encode()] * 100

    with_server(body)


def test_a_client_that_goes_away_harms_nobody() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        gone, stays = await connect(), await connect()
        node.hold = True
        gone.send(*["INCR k"] * 10)
        await until(lambda: bool(node.held))
        gone.writer.transport.abort()
        await until(lambda: any(connection._closing for connection in kv.connections))
        node.release()
        await until(lambda: len(kv.connections) == 1)
        stays.send("GET k")
        assert await stays.reply() == b"10"

    with_server(body)


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("INCR k", "INCR k")
        wire.writer.write_eof()
        await until(lambda: bool(node.held))
        node.release()
        assert await wire.replies(2) == [1, 2]
        with pytest.raises(EOFError):
            await wire.reply()

    with_server(body)


def test_too_many_connections_are_turned_away() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        first = await connect()
        first.send("PING")
        assert await first.reply() == b"PONG"
        second = await connect()
        assert await second.reply() == ("error", "ERR max number of clients reached")
        with pytest.raises(EOFError):
            await second.reply()

    with_server(body, max_clients=1)


def test_close_answers_what_is_under_way() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("SET k v")
        await until(lambda: bool(node.held))
        closing = asyncio.create_task(kv.close(grace=DEADLINE))
        await asyncio.sleep(0)
        node.release()
        assert await wire.reply() == b"OK"
        await closing
        assert not kv.connections

    with_server(body)


def test_a_checkpoint_has_its_turn_among_the_commands() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("SET k v", "PAXOS.CHECKPOINT", "APPEND k w", "PING", "paxos.checkpoint", "ECHO end")
        await until(lambda: bool(node.held))
        assert len(node.calls) == 1
        node.held.pop().set_result(None)
        await until(lambda: bool(node.held))  # the checkpoint is under way
        assert len(node.calls) == 1, "what is behind it waits"
        node.release()
        assert await wire.replies(6) == [b"OK", 1, 2, b"PONG", 2, b"end"]

    with_server(body)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (paxos.StorageError("the disk is full"), "ERR the disk is full"),
        (paxos.NodeClosed("closed"), "ERR closed"),
        (ZeroDivisionError("of the snapshot"), "ERR ZeroDivisionError: of the snapshot"),
    ],
)
def test_a_checkpoint_that_is_not_made_says_why(error: Exception, words: str) -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.error = error
        wire.send("PAXOS.CHECKPOINT", "PAXOS.CHECKPOINT x", "PING")
        assert await wire.replies(3) == [
            ("error", words),
            ("error", "ERR wrong number of arguments for 'paxos.checkpoint' command"),
            b"PONG",
        ]

    with_server(body)


def test_close_does_not_wait_for_a_checkpoint_for_ever() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.hold = True
        wire.send("PAXOS.CHECKPOINT")
        await until(lambda: bool(node.held))
        await kv.close(grace=0.01)
        assert not kv.working
        with pytest.raises(EOFError):
            await wire.reply()

    with_server(body)


def test_quit_reset_and_arity() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("GET", "SET k", "PING a b", "RESET", "SELECT 0", "SELECT 1", "CONFIG SET save x", "QUIT", "SET k v")
        wrong = "ERR wrong number of arguments for '{}' command"
        assert await wire.replies(8) == [
            ("error", wrong.format("get")),
            ("error", wrong.format("set")),
            ("error", wrong.format("ping")),
            b"RESET",
            b"OK",
            ("error", "ERR DB index is out of range"),
            ("error", "ERR unknown subcommand 'SET'. Try CONFIG HELP."),
            b"OK",
        ]
        with pytest.raises(EOFError):
            await wire.reply()
        assert node.calls == []

    with_server(body)


def test_the_protocol_changes_with_its_own_reply_and_not_before() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        wire.send("GET none", "HELLO 3", "GET none", "HELLO 4", "HELLO 2", "GET none")
        got = b""
        while got.count(b"\r\n") < 1 or not got.endswith(b"$-1\r\n") or got.count(b"$-1\r\n") < 2:
            got += await asyncio.wait_for(wire.reader.read(65536), DEADLINE)
        assert got.startswith(b"$-1\r\n%7\r\n")
        assert b"\r\n_\r\n-NOPROTO unsupported protocol version\r\n*14\r\n" in got

    with_server(body)


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_is_a_client_unchanged(protocol: int) -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        host, port = kv.address
        client = redis.asyncio.Redis(host=host, port=port, protocol=protocol, client_name="tester")
        try:
            assert await client.ping()
            assert await client.set("k", "v")
            assert await client.set("k", "w", nx=True) is None
            assert await client.get("k") == b"v"
            assert await client.incrby("n", 5) == 5
            assert await client.rpush("l", "a", "b") == 2
            assert await client.lrange("l", 0, -1) == [b"a", b"b"]
            assert await client.mget("k", "none") == [b"v", None]
            assert await client.delete("k") == 1
            assert await client.client_getname() in ("tester", b"tester")
            assert (await client.config_get("save"))["save"] == ""
            info = await client.info()
            assert (info["redis_mode"], info["role"], info["loading"]) == ("standalone", "master", 0)
            only = await client.info("paxos")
            kept = ("paxos_checkpoint", "paxos_first_kept", "paxos_log_segments", "paxos_votes")
            assert [only[name] for name in kept] == [50, 40, 3, 1]
            assert (only["paxos_reads"], only["paxos_read_rounds"]) == (60, 6)
            assert only["paxos_alarms"] == {"disk-full": 2, "log-damaged": 1}
            assert "redis_mode" not in only
            assert (only["paxos_node_id"], only["paxos_master_id"], only["paxos_checksum"]) == (1, 1, 12345)
            for name in ("chosen", "applied", "commits", "fsyncs", "log_writes", "log_bytes"):
                assert f"paxos_{name}" in only
            pipe = client.pipeline(transaction=False)
            for _ in range(1000):
                pipe.incr("p")
            assert await pipe.execute() == list(range(1, 1001))
            with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
                await client.get("l")
            node.error = paxos.OutcomeUnknown("timed out")
            with pytest.raises(redis.ResponseError, match="UNKNOWN timed out"):
                await client.incr("n")
        finally:
            await client.aclose()

    with_server(body)


def test_replies_in_both_protocols() -> None:
    value = Map([(b"a", [1, None, b"x" * 20_000])])
    for protocol, head, null in ((2, b"*2", b"$-1"), (3, b"%1", b"_")):
        out: list[bytes] = []
        size = replies.encode(value, protocol, out)
        data = b"".join(out)
        assert data == head + b"\r\n$1\r\na\r\n*3\r\n:1\r\n" + null + b"\r\n$20000\r\n" + b"x" * 20_000 + b"\r\n"
        assert size == len(data)
    with pytest.raises(TypeError):
        replies.encode(1.5, 2, [])


def test_a_result_without_reply_does_not_end_the_connection() -> None:
    async def body(node: FakeNode, kv: KvServer, connect: Callable[[], Awaitable[Wire]]) -> None:
        wire = await connect()
        node.error = paxos.PartialOutcome("odd", [1.5, b"x"])
        wire.send("APPEND a x", "APPEND b x")
        first, second = await wire.replies(2)
        assert isinstance(first, tuple)
        assert first[1].startswith("UNKNOWN")
        assert second == b"x"
        assert node.calls == [[encode_append(b"a", b"x"), encode_append(b"b", b"x")]]

    with_server(body)
    assert server.error_reply(paxos.OutcomeUnknown()).text == "UNKNOWN OutcomeUnknown"


# -- leases


@pytest.mark.processes
def test_reads_on_the_strength_of_a_lease_ask_nobody(make_cluster: MakeCluster) -> None:
    """The master sets the length of leases; then a GET there needs no round of messages, and still shows the newest write."""
    cluster = make_cluster(arguments=["--reads", "lease", "--lease", "0.2"])
    master = cluster.wait_ready()
    client = master.client()

    def rounds() -> int:
        info = master.info()
        assert info is not None
        return int(info["paxos_read_rounds"])

    def without_a_round() -> bool:
        before = rounds()
        for number in range(100):
            client.set("key", number)
            assert client.get("key") == b"%d" % number
        return rounds() == before

    wait_until(without_a_round, "a hundred reads that ask nobody")
