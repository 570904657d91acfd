"""Proposals under tokens on real nodes: applied once, over copies, changes of master, restarts and checkpoints (rule 18)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import mirror_machines
import paxos
from nodes import DEADLINE, book, cluster, master_of, until
from paxos import sessions as s
from paxos.sessions import SESSIONS, SessionTable
from paxos.testing import SimCluster

SMALL = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


class Counted(mirror_machines.Counted):
    """... within reach of the test."""

    made: list[Counted]

    def __init__(self) -> None:
        super().__init__()
        type(self).made.append(self)


@pytest.fixture
def machine() -> type[Counted]:
    class Made(Counted):
        made: list[Counted] = []  # noqa: RUF012  # of this test

    return Made


def decided(node: paxos.Node | paxos.SyncNode) -> Any:
    table = node._group.machines[SESSIONS]
    assert isinstance(table, SessionTable)
    return table.decided()


async def level(nodes: dict[int, paxos.Node]) -> None:
    await until(lambda: len({node.status().applied for node in nodes.values()}) == 1, "all nodes level")


async def record(node: paxos.Node, data: bytes) -> Any:
    """Proposes bytes as a record, as another version might."""
    future = asyncio.get_running_loop().create_future()
    node._group.submit_record(future, data, DEADLINE)
    return await future


def test_copies_at_all_nodes_are_applied_once(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=machine) as nodes:
            session = await nodes[1].open_session(timeout=DEADLINE)
            for turn in range(20):
                token = session.token()
                results = await asyncio.gather(
                    *(nodes[i % 3 + 1].propose(b"%d" % turn, token=token, timeout=DEADLINE) for i in range(6))
                )
                assert results == [b"%d %d" % (turn, turn)] * 6
                if turn % 3 == 0:
                    session.acknowledge(token)
                assert await nodes[2].outcome(token, timeout=DEADLINE) == paxos.Outcome(True, b"%d %d" % (turn, turn))
            await level(nodes)
            assert decided(nodes[1]) == decided(nodes[2]) == decided(nodes[3]) != []

    asyncio.run(main())
    assert [made.values for made in machine.made] == [[b"%d" % turn for turn in range(20)]] * 3


def test_a_token_outlives_the_master(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=machine) as nodes:
            master = master_of(nodes)
            session = await master.open_session(timeout=DEADLINE)
            token = session.token()
            assert await master.propose(b"a", token=token, timeout=DEADLINE) == b"0 a"
            nodes.pop(master.status().node_id)
            await master.close()
            for node in nodes.values():
                assert await node.propose(b"a", token=token, timeout=DEADLINE) == b"0 a"
            assert await next(iter(nodes.values())).propose(b"b", timeout=DEADLINE) == b"1 b"
            await level(nodes)

    asyncio.run(main())
    assert sorted(made.values for made in machine.made)[-1] == [b"a", b"b"]


@pytest.mark.parametrize("how", ["log", "inline", "mirror"])
def test_a_token_outlives_all_nodes(tmp_path: Path, how: str) -> None:
    """They come back by a replay of the log, from a checkpoint of their own, and from one that a mirror has made."""
    addresses = book()
    options = {"mirror": how == "mirror", "log_hold": 0}
    kind = mirror_machines.Counted

    async def before() -> tuple[str, str]:
        async with cluster(tmp_path, machine=kind, addresses=addresses, **options) as nodes:
            session = await nodes[1].open_session(timeout=DEADLINE)
            done, void = session.token(), session.token()
            assert await nodes[2].propose(b"a", token=done, timeout=DEADLINE) == b"0 a"
            assert await nodes[3].outcome(void, timeout=DEADLINE) == paxos.Outcome(False, None)
            await level(nodes)
            if how != "log":
                for node in nodes.values():
                    assert await node.checkpoint() == node.status().checkpoint > 0
            return str(done), str(void)

    async def after(done: paxos.Token, void: paxos.Token) -> None:
        async with cluster(tmp_path, machine=kind, addresses=addresses, **options) as nodes:
            for node in nodes.values():
                assert await node.propose(b"a", token=done, timeout=DEADLINE) == b"0 a"
                assert await node.outcome(done, timeout=DEADLINE) == paxos.Outcome(True, b"0 a")
                with pytest.raises(paxos.Fenced):
                    await node.propose(b"late", token=void, timeout=DEADLINE)
            assert await nodes[1].propose(b"b", timeout=DEADLINE) == b"1 b"
            await level(nodes)
            for node in nodes.values():
                state = node._group.machines[0]
                assert isinstance(state, mirror_machines.Counted)
                assert state.values == [b"a", b"b"]
                assert (state.applied_before > 0) == (how != "log"), "it came from the checkpoint"
            assert decided(nodes[1]) == decided(nodes[2]) == decided(nodes[3])

    texts = asyncio.run(before())
    asyncio.run(after(*map(paxos.Token.parse, texts)))


def test_a_mirror_goes_on_from_a_checkpoint_with_sessions_in_it(tmp_path: Path) -> None:
    addresses = book(1)
    kind = mirror_machines.Counted

    async def before() -> tuple[paxos.Token, paxos.Token]:
        async with cluster(tmp_path, 1, machine=kind, addresses=addresses) as nodes:
            session = await nodes[1].open_session()
            first, second = session.token(), session.token()
            assert await nodes[1].propose(b"a", token=first) == b"0 a"
            for _ in range(2):  # a state above 1 MiB is not written by the node itself
                await nodes[1].propose(bytes(600_000))
            await nodes[1].checkpoint()
            assert await nodes[1].propose(b"b", token=second) == b"3 b"
            await nodes[1].checkpoint()
            return first, second

    async def after(first: paxos.Token, second: paxos.Token) -> None:
        async with cluster(tmp_path, 1, machine=kind, addresses=addresses) as nodes:
            state = nodes[1]._group.machines[0]
            assert isinstance(state, mirror_machines.Counted)
            assert state.applied_before == 1, "the mirror had the rest from the checkpoint before"
            assert await nodes[1].propose(b"a", token=first) == b"0 a"
            assert await nodes[1].propose(b"b", token=second) == b"3 b"
            assert len(state.values) == 4

    asyncio.run(after(*asyncio.run(before())))


def test_a_fence_comes_before_a_proposal_that_is_late(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=machine) as nodes:
            session = await nodes[1].open_session(timeout=DEADLINE)
            token = session.token()
            asked = [await nodes[i].outcome(token, timeout=DEADLINE) for i in nodes]
            assert asked == [paxos.Outcome(False, None)] * 3
            for node in nodes.values():
                with pytest.raises(paxos.Fenced, match=f"token {token}: outcome"):
                    await node.propose(b"late", token=token, timeout=DEADLINE)
            assert issubclass(paxos.Fenced, paxos.Refused), "certainly not executed, and never will be"

    asyncio.run(main())
    assert [made.values for made in machine.made] == [[], [], []]


def test_a_session_expires_at_the_same_instance_on_all_nodes(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=machine, window=1) as nodes:
            node = master_of(nodes)
            session = await node.open_session(lifetime=8, timeout=DEADLINE)
            used, unused = session.token(), session.token()
            assert await node.propose(b"a", token=used, timeout=DEADLINE) == b"0 a"
            for turn in range(7):  # one instance each, for each is waited for
                await node.propose(b"%d" % turn, timeout=DEADLINE)
            assert await node.propose(b"a", token=used, timeout=DEADLINE) == b"0 a", "the eighth instance"
            for turn in range(9):
                await node.propose(b"%d" % turn, timeout=DEADLINE)
            for each in nodes.values():
                for token in (used, unused):
                    with pytest.raises(paxos.SessionExpired, match="no such session"):
                        await each.propose(b"a", token=token, timeout=DEADLINE)
                    with pytest.raises(paxos.SessionExpired):
                        await each.outcome(token, timeout=DEADLINE)
            assert not issubclass(paxos.SessionExpired, paxos.Refused), "what came of earlier attempts is not known"
            await level(nodes)
            assert [decided(each) for each in nodes.values()] == [[], [], []]

    asyncio.run(main())
    assert [made.values.count(b"a") for made in machine.made] == [1, 1, 1]


def test_a_closed_session_is_gone_and_closing_again_is_nothing(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, machine=machine) as nodes:
            session = await nodes[1].open_session()
            token = session.token()
            await nodes[1].close_session(session)
            await nodes[1].close_session(token)
            with pytest.raises(paxos.SessionExpired):
                await nodes[1].propose(b"a", token=token)

    asyncio.run(main())
    assert machine.made[0].values == []


def test_what_is_acknowledged_is_not_executed_again(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, machine=machine) as nodes:
            session = await nodes[1].open_session()
            first = session.token()
            assert await nodes[1].propose(b"a", token=first) == b"0 a"
            session.acknowledge(first)
            assert await nodes[1].propose(b"b", token=session.token()) == b"1 b"
            with pytest.raises(paxos.SessionExpired, match="was acknowledged"):
                await nodes[1].propose(b"a", token=first)

    asyncio.run(main())
    assert machine.made[0].values == [b"a", b"b"]


def test_bytes_that_are_no_record_are_refused_and_all_nodes_go_on(tmp_path: Path, machine: type[Counted]) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=machine) as nodes:
            for data in (
                b"",
                b"\x01",
                b"\x02" * 60,
                bytes(60),
                s.pack_open(1, 0),
                s.pack_close(s.SessionId(1, 2, 3)) + b"x",
            ):
                assert (await record(nodes[1], data)).verdict is s.Verdict.MALFORMED
            token = (await nodes[2].open_session(timeout=DEADLINE)).token()
            assert await nodes[3].propose(b"a", token=token, timeout=DEADLINE) == b"0 a"
            await level(nodes)
            assert [node.status().state_machine_error for node in nodes.values()] == [None] * 3

    asyncio.run(main())


class Numbers(paxos.StateMachine):
    def apply(self, instance: int, value: bytes) -> int:
        return len(value)


def test_results_under_tokens_are_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Numbers) as nodes:
            token = (await nodes[1].open_session()).token()
            with pytest.raises(
                paxos.ResultNotKept, match="executed, once; its result is not there: Numbers answered with a int"
            ):
                await nodes[1].propose(b"abc", token=token)
            with pytest.raises(paxos.ResultNotKept, match="too long, or no bytes"):
                await nodes[1].propose(b"abc", token=token)
            assert await nodes[1].outcome(token) == paxos.Outcome(True, None)
            assert not issubclass(paxos.ResultNotKept, paxos.Refused | paxos.OutcomeUnknown)

    asyncio.run(main())


def test_a_state_machine_that_keeps_its_state_is_not_called_again(tmp_path: Path) -> None:
    """Its results from before the restart are known to other nodes only; that they are not there is said."""
    calls: list[tuple[int, bytes]] = []
    disk = {"last": -1}

    class Durable(paxos.StateMachine):
        def last_applied(self) -> int:
            return disk["last"]

        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            assert instance == disk["last"] + 1
            disk["last"] = instance
            calls.extend((instance, value) for value in values)
            return list(values)

    async def before() -> tuple[paxos.Session, paxos.Token]:
        async with cluster(tmp_path, 1, machine=Durable) as nodes:
            session = await nodes[1].open_session()
            token = session.token()
            assert await nodes[1].propose(b"a", token=token) == b"a"
            return session, token

    async def after(session: paxos.Session, token: paxos.Token) -> None:
        async with cluster(tmp_path, 1, machine=Durable) as nodes:
            with pytest.raises(paxos.ResultNotKept, match="known to other nodes only"):
                await nodes[1].propose(b"a", token=token)
            assert await nodes[1].outcome(token) == paxos.Outcome(True, None)
            new = session.token()
            assert [await nodes[1].propose(b"b", token=new) for _ in range(2)] == [b"b"] * 2

    asyncio.run(after(*asyncio.run(before())))
    assert [value for _, value in calls] == [b"a", b"b"]


def test_a_proposal_in_what_the_state_machine_claims_to_have_ends_applying(tmp_path: Path) -> None:
    """The proof that it is another cluster's also counts where the table of sessions has the log replayed (rule 16)."""

    class Ahead(Numbers):
        def last_applied(self) -> int:
            return 1000

    async def main() -> None:
        addresses = book(3)
        async with cluster(tmp_path, machine=Numbers, addresses=addresses) as nodes:
            master = master_of(nodes).status().node_id
            other = next(i for i in addresses if i != master)
            await nodes[other].close()
            nodes[other] = await paxos.Node.open(
                tmp_path / str(other), node_id=other, cluster=addresses, state_machine=Ahead,
                segment_bytes=16 << 20, max_value=1 << 20,
            )  # fmt: skip
            with pytest.raises(paxos.StateMachineFailed, match="belongs to another cluster"):
                await nodes[other].propose(b"x", timeout=DEADLINE)

    asyncio.run(main())


def test_what_cannot_be_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(paxos.ConfigError, match="belong to the library"):
        paxos.SyncNode.open(
            tmp_path / "x", node_id=1, cluster=book(1), state_machine={0: Numbers, SESSIONS: Numbers}, **SMALL
        )

    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Numbers, max_value=1000) as nodes:
            node = nodes[1]
            token = (await node.open_session()).token()
            for lifetime in (0, -1, 1.5, True, 1 << 63):
                with pytest.raises(paxos.ConfigError, match="lifetime="):
                    await node.open_session(lifetime=lifetime)  # type: ignore[arg-type]
            for id_ in (SESSIONS, s.RESERVED, 1):
                with pytest.raises(paxos.ConfigError, match=f"no state machine {id_} in this group"):
                    node.propose(b"x", machine=id_)
                with pytest.raises(paxos.ConfigError, match=f"no state machine {id_} in this group"):
                    node.propose(b"x", token=token, machine=id_)
            with pytest.raises(
                paxos.ValueTooLarge, match=r"961 bytes is above the limit of 960 \(option max_value, less 40"
            ):
                node.propose(bytes(961), token=token)
            with pytest.raises(paxos.ResultNotKept):
                await node.propose(bytes(960), token=token)
        with pytest.raises(paxos.NodeClosed):
            node.propose(b"x", token=token)
        with pytest.raises(paxos.NodeClosed):
            await node.outcome(token)

    asyncio.run(main())


def test_a_node_without_sessions_has_none_and_stops_where_others_have(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Numbers) as nodes:
            token = (await nodes[1].open_session()).token()
        async with cluster(tmp_path, 1, machine=Numbers, sessions=False) as nodes:
            for call in (lambda: nodes[1].open_session(), lambda: nodes[1].outcome(token)):
                with pytest.raises((paxos.ConfigError, paxos.NotAvailable)):
                    await call()
            await until(lambda: nodes[1].status().state_machine_error, "it meets the record")
            assert "sessions=False" in (nodes[1].status().state_machine_error or "")

    asyncio.run(main())
    with paxos.SyncNode.open(
        tmp_path / "other", node_id=1, cluster=book(1), state_machine=Numbers, sessions=False, **SMALL
    ) as node:
        node.wait_ready(DEADLINE)
        with pytest.raises(paxos.ConfigError, match="opened with sessions=False"):
            node.open_session()


def test_threads(tmp_path: Path, machine: type[Counted]) -> None:
    with paxos.SyncNode.open(tmp_path / "1", node_id=1, cluster=book(1), state_machine=machine, **SMALL) as node:
        node.wait_ready(DEADLINE)
        session = node.open_session()
        token = session.token()
        futures = [node.submit(b"a", token=token) for _ in range(5)]
        assert [future.result(DEADLINE) for future in futures] == [b"0 a"] * 5
        assert node.propose(b"a", token=token) == b"0 a"
        assert node.outcome(token) == paxos.Outcome(True, b"0 a")
        assert node.outcome(session.token()) == paxos.Outcome(False, None)
        node.close_session(session)
        with pytest.raises(paxos.SessionExpired):
            node.outcome(token)
        # What waits for the thread that it is called on would wait for ever.
        refused: list[BaseException] = []
        asked = threading.Event()

        def callback(_: object) -> None:
            for call in (node.open_session, lambda: node.outcome(token), lambda: node.close_session(session)):
                with pytest.raises(RuntimeError, match="would wait") as error:
                    call()  # type: ignore[operator]
                refused.append(error.value)
            asked.set()

        node.submit(b"b").add_done_callback(callback)
        assert asked.wait(DEADLINE)
        assert len(refused) == 3


def test_a_client_that_tries_again_pays_once() -> None:
    """What docs/testing.md shows to go wrong without tokens."""
    total = 0
    for seed in range(12):
        with SimCluster(mirror_machines.Counted, seed=seed, faults="crash,partition", seconds=5) as sim:

            async def body(sim: SimCluster = sim) -> int:
                session = None
                paid = 0
                while sim.now < sim.seconds:
                    try:
                        session = session or await sim.nodes[0].open_session(timeout=1)
                        await sim.propose(b"%d" % paid, token=session.token(), timeout=60)
                        paid += 1
                    except (IndexError, paxos.NotAvailable, paxos.OutcomeUnknown):
                        await sim.sleep(0.1)
                    await sim.sleep(0.05)
                return paid

            paid = sim.run(body())
            settled = sim.run(sim.settle())
            for node in settled:
                assert sim.machine(node).values == [b"%d" % number for number in range(paid)]
            total += paid
    assert total > 200


def test_no_session_before_the_cluster_has_a_name(tmp_path: Path) -> None:
    """A session's name has a part of the cluster's in it: without that, tokens of two clusters would be alike."""

    async def body() -> None:
        addresses = book(3)
        node = await paxos.Node.open(
            tmp_path / "1", node_id=1, cluster=addresses, state_machine=mirror_machines.Counted, **SMALL
        )
        async with node:  # alone of three: nothing is formed
            with pytest.raises(paxos.NotAvailable, match="has not been formed yet"):
                await node.open_session(timeout=30)

    asyncio.run(body())
