"""The parts of demo and bench that need no cluster: load, figures, floor, view."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import paxos
from kv_fakes import FakeNode
from paxos.cli.bench import BenchFailed, BenchOptions, summarise, target_p50_ms
from paxos.cli.bench_load import LoadOptions, percentile, run_load
from paxos.cli.demo_load import Load
from paxos.cli.demo_view import View
from paxos.cli.floor import Floor, time_round_trips, time_writes
from paxos.cli.resp_client import ReplyError, RespClient
from paxos.kv import KvServer

OPTIONS = BenchOptions(3, 1, 100, 1.0, 0.0, 1, 8, False, False, None, True, "asyncio")


def test_percentile() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert percentile(ordered, 0.5) == 50
    assert percentile(ordered, 0.99) == 99
    assert percentile(ordered, 1.0) == 100
    assert percentile([7.0], 0.5) == 7
    assert percentile([], 0.5) == 0


def status(**counts: int) -> dict[str, object]:
    names = ("commits", "log_writes", "fsyncs", "frames_sent", "bytes_sent", "log_bytes", "rounds", "proposed_values")
    return {"elections": 1, "log_mode": "direct", **dict.fromkeys(names, 0), **counts}


def test_figures_are_differences_per_value_of_each_node() -> None:
    before = {number: status(commits=10, log_writes=100, fsyncs=7, frames_sent=5) for number in (1, 2, 3)}
    after = {
        1: status(commits=110, log_writes=200, fsyncs=107, frames_sent=205, bytes_sent=20_000, log_bytes=4096,
                  rounds=50, proposed_values=100),
        2: status(commits=110, log_writes=200, fsyncs=107, frames_sent=105, bytes_sent=10_000, log_bytes=4096),
        # This one was looked at later and has seen twice as much.
        3: status(commits=210, log_writes=300, fsyncs=207, frames_sent=205, bytes_sent=20_000, log_bytes=8192),
    }  # fmt: skip
    measured = {"values": 100, "seconds": 2.0, "p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.0, "refused": 0}
    result = summarise(OPTIONS, measured, before, after, master=1)
    wanted = {
        "values_per_s": 50.0,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "rtts_per_value": 0.5,
        "messages_per_value": 4.0,
        "log_writes_per_value_per_node": 1.0,
        "syncs_per_value_per_node": 1.0,
        "bytes_per_value": 400.0,
        "elections": 0,
    }
    assert {name: result[name] for name in wanted} == wanted
    with pytest.raises(BenchFailed, match="node 2 committed nothing"):
        summarise(OPTIONS, measured, before, {**after, 2: before[2]}, master=1)


def test_the_target_of_one_client() -> None:
    assert target_p50_ms(Floor(0.1, 0.05, "direct")) == pytest.approx(0.255)


class EchoNode:
    """Answers after one turn of the loop."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    async def propose(self, value: bytes, *, timeout: float = 5.0) -> object:
        return (await self.propose_many([value], timeout=timeout))[0]

    async def propose_many(self, values: Sequence[bytes], *, timeout: float = 5.0) -> Sequence[object]:
        self.calls += 1
        await asyncio.sleep(0)
        if self.error is not None and self.calls > 10:
            raise self.error
        return [len(value) for value in values]


@pytest.mark.parametrize("batch", [1, 7])
def test_the_load_counts_what_ended_in_the_window(batch: int) -> None:
    events: list[tuple[str, int]] = []
    node = EchoNode()
    result = asyncio.run(
        run_load(
            node,
            LoadOptions(clients=3, value_size=10, batch=batch, seconds=0.1, warmup=0.05),
            opened=lambda: events.append(("opened", node.calls)),
            closed=lambda: events.append(("closed", node.calls)),
        )
    )
    (first, opened), (second, closed) = events
    assert (first, second) == ("opened", "closed")
    assert opened > 0
    assert abs(result.calls - (closed - opened)) <= 3, "a call under way at an end of the window counts or does not"
    assert result.values == result.calls * batch
    assert result.seconds >= 0.1
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms


def test_an_error_ends_the_load_and_is_told() -> None:
    node = EchoNode()
    node.error = paxos.OutcomeUnknown("lost")
    options = LoadOptions(clients=3, value_size=1, batch=1, seconds=600, warmup=0)
    with pytest.raises(paxos.OutcomeUnknown, match="lost"):
        asyncio.run(run_load(node, options, opened=lambda: None, closed=lambda: None))


def test_refused_calls_are_counted_and_made_again() -> None:
    node = EchoNode()
    node.error = paxos.Overloaded("full")
    options = LoadOptions(clients=1, value_size=1, batch=1, seconds=0.2, warmup=0)
    result = asyncio.run(run_load(node, options, opened=lambda: None, closed=lambda: None))
    assert result.refused > 0
    assert 0 < result.calls <= 10, "the first call may have ended before the window opened"


def test_the_demo_load_notes_what_was_acknowledged_and_goes_on_through_errors() -> None:
    async def main() -> None:
        nodes = [FakeNode(), FakeNode()]
        nodes[0].error = paxos.NotAvailable("no master")
        servers = [KvServer(node) for node in nodes]
        for server in servers:
            await server.start("127.0.0.1", 0)
        load = Load({1: servers[0].address[1], 2: servers[1].address[1]}, writers=4)
        load.start()
        async with asyncio.timeout(20):
            while not load.first_after(0.0) or load.unavailable < 2:
                await asyncio.sleep(0.001)
        nodes[1].error = paxos.OutcomeUnknown("timed out")
        async with asyncio.timeout(20):
            while load.unknown < 1:
                await asyncio.sleep(0.001)
        nodes[1].error = None
        mark = time.monotonic()
        fresh = Load({1: servers[1].address[1]}, writers=1)
        assert fresh.first_after(mark) is None
        await load.stop()
        assert load.acknowledged
        client = await RespClient.connect(servers[1].address[1])
        keys = list(load.acknowledged)
        assert await client.call("MGET", *keys) == list(load.acknowledged.values())
        with pytest.raises(ReplyError, match="syntax error") as caught:
            await client.call("SET", "k", "v", "EX", "1")
        assert caught.value.code == "ERR"
        assert (await client.info())["paxos_master_id"] == "1"
        client.close()
        port = servers[1].address[1]
        for server in servers:
            await server.close()
        with pytest.raises(ConnectionError):
            await RespClient.connect(port)

    asyncio.run(main())


def test_the_floor_of_this_machine(tmp_path: Path) -> None:
    write, mode = time_writes(str(tmp_path / "file"), 0.0)
    assert write > 0
    assert mode in ("direct", "sync")
    assert list(tmp_path.iterdir()) == []
    assert time_round_trips() > 0


def test_plain_view_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with View(live=False, silent=False) as view:
        view.say("a step")
        view.update({}, 1)
    assert capsys.readouterr().out.endswith("s  a step\n")
    with View(live=False, silent=True) as view:
        view.say("a step")
    assert capsys.readouterr().out == ""


def test_live_view_shows_nodes_up_and_down(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {
        "paxos_role": "master",
        "paxos_master_id": "2",
        "paxos_chosen": "1234",
        "paxos_applied": "1233",
        "paxos_commits": "9",
        "paxos_log_writes": "9",
    }
    with View(live=True, silent=False) as view:
        view.say("a step")
        view.update({2: fields}, 77)
        view.update({2: fields}, 78)
    out = capsys.readouterr().out
    for words in ("1,234", "1,233", "down", "master", "a step", "78 writes"):
        assert words in out
