"""The asyncio API on real engines: what a proposal ends with, what a state machine sees, what a restart replays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import paxos
from nodes import DEADLINE, Journal, book, cluster, master_of, until
from paxos.node import open_group

SMALL = {"segment_bytes": 4 << 20, "max_value": 1 << 20}


class Register(Journal):
    """Tells how many values it has, or which is at a place; what may be read is a number or None."""

    def read(self, query: int | None) -> object:
        return len(self.values) if query is None else self.values[query]


class Keeper:
    """Makes journals and keeps them within reach of the test."""

    def __init__(self) -> None:
        self.made: list[Journal] = []

    def __call__(self) -> Journal:
        self.made.append(Journal())
        return self.made[-1]


def test_any_node_takes_proposals_and_all_apply_the_same(tmp_path: Path) -> None:
    keeper = Keeper()

    async def main() -> None:
        async with cluster(tmp_path, machine=keeper) as nodes:
            for turn in range(30):
                result = await nodes[turn % 3 + 1].propose(b"%d" % turn, timeout=DEADLINE)
                assert result == turn, "the result of a value is the one of the node that proposed it, in order"
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
            assert len({n.status().checksum for n in nodes.values()}) == 1

    asyncio.run(main())
    assert [j.values for j in keeper.made] == [[b"%d" % i for i in range(30)]] * 3
    for journal in keeper.made:
        assert [i for i, _ in journal.instances] == list(range(len(journal.instances))), "every instance once, in order"


def test_propose_many_keeps_order_over_instances(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, batch_bytes=1000, batch_values=7) as nodes:
            assert await nodes[1].propose_many([]) == []
            results = await nodes[1].propose_many([b"%d" % i for i in range(100)], timeout=DEADLINE)
            assert results == list(range(100))
            assert nodes[1].status().chosen >= 100 // 7, "cut into pieces that fit an instance"

    asyncio.run(main())


def test_one_client_costs_one_round_and_one_write_per_value(tmp_path: Path) -> None:
    """Counted, not derived: 1 RTT, 1 log write and 1 sync per node and value (S11)."""

    async def main() -> None:
        async with cluster(tmp_path) as nodes:
            node = master_of(nodes)
            await node.propose(b"first", timeout=DEADLINE)
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
            before = {i: n.status() for i, n in nodes.items()}
            for _ in range(100):
                await node.propose(b"x" * 100, timeout=DEADLINE)
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
            after = {i: n.status() for i, n in nodes.items()}
            me = node.status().node_id
            assert after[me].rounds - before[me].rounds == after[me].proposed_values - before[me].proposed_values == 100
            for i in nodes:
                # At most a few more: seals of an idle log. A follower that is late may write two values at once.
                assert after[i].log_writes - before[i].log_writes <= 105
                assert after[i].fsyncs - before[i].fsyncs <= 105
                assert after[i].log_records - before[i].log_records >= 100
            assert after[me].log_writes - before[me].log_writes >= 100, "one value at a time was under way"

    asyncio.run(main())


def test_restart_replays_what_the_state_machine_does_not_have(tmp_path: Path) -> None:
    async def run(machine: Any, values: list[bytes]) -> int:
        async with cluster(tmp_path, 1, machine=machine) as nodes:
            for value in values:
                await nodes[1].propose(value, timeout=DEADLINE)
            return nodes[1].status().applied - 1

    last = asyncio.run(run(Journal, [b"a", b"b", b"c"]))

    for rolled_back in range(-1, last + 1):

        class Durable(Journal):
            def last_applied(self, to: int = rolled_back) -> int:
                return to

        made: list[Journal] = []

        def make(kind: type[Journal] = Durable, made: list[Journal] = made) -> Journal:
            made.append(kind())
            return made[-1]

        asyncio.run(run(make, []))
        assert made[0].instances[0][0] == rolled_back + 1
        assert [i for i, _ in made[0].instances] == list(
            range(rolled_back + 1, rolled_back + 1 + len(made[0].instances))
        )


def test_the_checksum_is_known_before_anything_is_applied(tmp_path: Path) -> None:
    """A durable state machine that has everything is replayed nothing, without sessions, and still has its place in the chain."""

    async def main() -> tuple[int, int]:
        async with cluster(tmp_path, 1) as nodes:
            await nodes[1].propose(b"a", timeout=DEADLINE)
            status = nodes[1].status()
            return status.applied, status.checksum

    applied, checksum = asyncio.run(main())

    class Durable(Journal):
        def last_applied(self) -> int:
            return applied - 1

    engine, group = open_group(tmp_path / "1", 1, book(1), None, Durable, paxos.Options(sessions=False, **SMALL))
    engine.stop()
    assert checksum != 0
    assert (group.applied, group.checksum) == (applied - 1, checksum)


def test_a_state_machine_ahead_of_the_cluster_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Ahead(Journal):
        def last_applied(self) -> int:
            return 1000

    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Ahead) as nodes:
            await until(lambda: nodes[1].status().state_machine_error, "the node notices")
            with pytest.raises(paxos.NotAvailable, match="1000"):
                await nodes[1].propose(b"x")

    caplog.set_level(logging.CRITICAL + 1, "paxos")
    asyncio.run(main())


def test_several_state_machines_in_one_group(tmp_path: Path) -> None:
    first, second = Keeper(), Keeper()

    async def main() -> None:
        async with cluster(tmp_path, 1, machine={1: first, 7: second}) as nodes:
            node = nodes[1]
            futures = [node.propose(b"%d" % i, machine=1 if i % 2 else 7, timeout=DEADLINE) for i in range(20)]
            assert await asyncio.gather(*futures) == [i // 2 for i in range(20)]
            with pytest.raises(paxos.ConfigError, match="no state machine 3"):
                node.propose(b"x", machine=3)

    asyncio.run(main())
    assert first.made[0].values == [b"%d" % i for i in range(1, 20, 2)]
    assert second.made[0].values == [b"%d" % i for i in range(0, 20, 2)]
    for keeper in (first, second):
        instances = [i for i, _ in keeper.made[0].instances]
        assert instances == list(range(len(instances))), "each machine is told of every instance"


def test_a_state_machine_that_raises_stops_applying_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Poisoned(Journal):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            if poisoned and b"poison" in values:
                raise ValueError("cannot digest this")
            return super().apply_batch(instance, values)

    poisoned = True

    async def main() -> None:
        nonlocal poisoned
        made = 0

        def make() -> Journal:
            nonlocal made
            made += 1
            return Poisoned() if made == 1 else Journal()  # node 1 has bad code, the others have not

        async with cluster(tmp_path, machine=make) as nodes:
            with pytest.raises(paxos.StateMachineFailed, match="cannot digest") as failure:
                await nodes[1].propose(b"poison", timeout=DEADLINE)
            assert isinstance(failure.value.__cause__, ValueError)
            assert "cannot digest" in (nodes[1].status().state_machine_error or "")
            with pytest.raises(paxos.NotAvailable, match="has failed"):
                await nodes[1].propose(b"more")
            await until(lambda: any(nodes[i].is_master() for i in (2, 3)), "another node is master")
            chosen = nodes[1].status().chosen
            await nodes[2].propose(b"goes on", timeout=DEADLINE)
            await until(lambda: nodes[1].status().chosen > chosen, "the node still votes and learns")

    caplog.set_level(logging.CRITICAL + 1, "paxos")
    asyncio.run(main())


def test_wrong_number_of_results_is_an_error_of_the_state_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgetful(paxos.StateMachine):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            return []

    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Forgetful) as nodes:
            with pytest.raises(paxos.StateMachineFailed, match="returned 0 results for 1 values"):
                await nodes[1].propose(b"x", timeout=DEADLINE)

    caplog.set_level(logging.CRITICAL + 1, "paxos")
    asyncio.run(main())


def test_without_a_quorum_a_proposal_ends_at_its_timeout_and_the_node_goes_on(tmp_path: Path) -> None:
    addresses = book()

    async def open_(i: int) -> paxos.Node:
        return await paxos.Node.open(tmp_path / str(i), node_id=i, cluster=addresses, state_machine=Journal, **SMALL)

    async def main() -> None:
        nodes = {i: await open_(i) for i in addresses}
        try:
            for node in nodes.values():
                await node.wait_ready(DEADLINE)
            assert await nodes[3].propose(b"before", timeout=DEADLINE) == 0
            await nodes.pop(1).close()
            await nodes.pop(2).close()
            await until(lambda: nodes[3].status().master_id == 0, "node 3 knows that it is alone")
            with pytest.raises(paxos.NotAvailable):
                await nodes[3].propose(b"alone", timeout=0.05)
            with pytest.raises(paxos.PartialOutcome) as many:
                await nodes[3].propose_many([b"a", b"b"], timeout=0.05)
            assert [type(o) for o in many.value.outcomes] == [paxos.NotAvailable] * 2
            nodes[1] = await open_(1)
            await nodes[3].wait_ready(DEADLINE)
            assert await nodes[3].propose(b"again", timeout=DEADLINE) == 1, (
                "what was refused for certain was not executed"
            )
        finally:
            for node in nodes.values():
                await node.close()

    asyncio.run(main())


def test_a_master_that_loses_its_quorum_says_unknown_for_what_was_under_way(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as nodes:
            master = master_of(nodes)
            await master.propose(b"x", timeout=DEADLINE)
            for node in nodes.values():
                if node is not master:
                    await node.close()
            with pytest.raises(paxos.OutcomeUnknown):
                await master.propose(b"under way", timeout=0.1)

    asyncio.run(main())


def test_bad_proposals_are_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, max_pending=4) as nodes:
            node = nodes[1]
            with pytest.raises(paxos.ValueTooLarge, match="1048577 bytes"):
                node.propose(b"x" * ((1 << 20) + 1))
            with pytest.raises(paxos.ValueTooLarge):
                node.propose_many([b"ok", b"x" * ((1 << 20) + 1)])
            assert await node.propose(b"x" * (1 << 20), timeout=DEADLINE) == 0, "the limit itself is fine"
            futures = [node.propose(b"%d" % i, timeout=DEADLINE) for i in range(4)]
            with pytest.raises(paxos.Overloaded):
                node.propose(b"one too many")
            assert await asyncio.gather(*futures) == [1, 2, 3, 4]
            with pytest.raises(TypeError):
                node.propose("text")  # type: ignore[arg-type]
        with pytest.raises(paxos.NodeClosed):
            node.propose(b"x")
        await node.close()

    asyncio.run(main())


def test_cancelled_and_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1) as nodes:
            node = nodes[1]
            cancelled = node.propose(b"cancelled", timeout=DEADLINE)
            cancelled.cancel()
            assert await node.propose(b"next", timeout=DEADLINE) == 1, "a cancelled proposal is still applied"
            under_way = node.propose(b"under way", timeout=DEADLINE)
            closing = asyncio.ensure_future(node.close())
            await asyncio.wait([under_way], timeout=DEADLINE)
            assert under_way.done()
            assert under_way.exception() is None or isinstance(under_way.exception(), paxos.OutcomeUnknown)
            await closing

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node_id": 9}, "node_id=9 is not in cluster="),
        ({"cluster": {1: "localhost"}}, "is not HOST:PORT"),
        ({"cluster": {1: "127.0.0.1:1", 2: "127.0.0.1:1"}}, "two nodes the same address"),
        ({"cluster": {}}, "1 to 31 nodes"),
        ({"cluster": {"one": "127.0.0.1:7001"}}, "node id 'one'"),
        ({"cluster": {1: "no.such.host.invalid:7001"}}, "does not resolve"),
        ({"window": 0}, "window=0 is out of range"),
        ({"windows": 1}, "unknown option 'windows'"),
        ({"heartbeat": 1.0}, "three times heartbeat"),
        ({"segment_bytes": 65536}, "must hold the largest value"),
        ({"state_machine": {}}, "empty mapping"),
        ({"state_machine": lambda: object()}, "must be a paxos.StateMachine"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"node_id": 1, "cluster": book(1), "state_machine": Journal, **SMALL, **change}

    async def main() -> None:
        node = await paxos.Node.open(tmp_path / "1", **arguments)
        await node.close()

    with pytest.raises(paxos.ConfigError, match=message):
        asyncio.run(main())


def test_directory_in_use_and_directory_of_another_node(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1):
            with pytest.raises(paxos.DirectoryInUse):
                await paxos.Node.open(tmp_path / "1", node_id=1, cluster=book(1), state_machine=Journal, **SMALL)
        with pytest.raises(paxos.WrongDirectory):
            await paxos.Node.open(tmp_path / "1", node_id=2, cluster=book(2), state_machine=Journal, **SMALL)

    asyncio.run(main())


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")

    async def main() -> None:
        await paxos.Node.open(tmp_path / "file" / "1", node_id=1, cluster=book(1), state_machine=Journal, **SMALL)

    with pytest.raises(paxos.StorageError, match="cannot be used"):
        asyncio.run(main())


def test_wait_ready_says_when_there_is_no_master(tmp_path: Path) -> None:
    async def main() -> None:
        node = await paxos.Node.open(tmp_path / "1", node_id=1, cluster=book(3), state_machine=Journal, **SMALL)
        with pytest.raises(paxos.NotAvailable, match="no master within"):
            await node.wait_ready(0.05)
        await node.close()
        with pytest.raises(paxos.NodeClosed):
            await node.wait_ready(0.05)

    asyncio.run(main())


# ---- reads ----


def test_every_node_reads_what_was_acknowledged_anywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Register) as nodes:
            for turn in range(30):
                await nodes[turn % 3 + 1].propose(b"%d" % turn, timeout=DEADLINE)
                reads = [node.read(turn, timeout=DEADLINE) for node in nodes.values()]
                assert await asyncio.gather(*reads) == [b"%d" % turn] * 3
            for node in nodes.values():
                assert await node.read_many([None, 0, 29], timeout=DEADLINE) == [30, b"0", b"29"]
                assert await node.read_many([], timeout=DEADLINE) == []
                with pytest.raises(IndexError):
                    await node.read(30, timeout=DEADLINE)
            assert [node.status().reads for node in nodes.values()] == [33] * 3

    asyncio.run(main())


def test_reads_cost_no_log_write_and_share_their_rounds(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Register) as nodes:
            await master_of(nodes).propose(b"x", timeout=DEADLINE)
            await until(lambda: len({n.status().applied for n in nodes.values()}) == 1, "all nodes level")
            before = {i: n.status() for i, n in nodes.items()}
            for _ in range(10):
                reads = [node.read(0, timeout=DEADLINE) for node in nodes.values() for _ in range(100)]
                assert await asyncio.gather(*reads) == [b"x"] * 300
            after = {i: n.status() for i, n in nodes.items()}
            for i in nodes:
                assert after[i].reads - before[i].reads == 1000
                assert after[i].log_writes - before[i].log_writes <= 2, "but for the seal of the last value"
                assert after[i].chosen == before[i].chosen
            # At each node the first read of a turn asks at once, and those behind it together.
            assert 0 < sum(after[i].read_rounds - before[i].read_rounds for i in nodes) <= 10 * 3 * 2

    asyncio.run(main())


def test_a_cluster_of_one_reads(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 1, machine=Register) as nodes:
            await nodes[1].propose(b"x", timeout=DEADLINE)
            assert await nodes[1].read(0, timeout=DEADLINE) == b"x"
            assert nodes[1].status().read_rounds == 0, "there is nobody to ask"

    asyncio.run(main())


def test_reads_after_the_master_is_gone_and_without_a_quorum(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, machine=Register) as nodes:
            master = master_of(nodes)
            await master.propose(b"x", timeout=DEADLINE)
            gone = master.status().node_id
            left = [node for i, node in nodes.items() if i != gone]
            await master.close()
            # Asked while there is no master: they wait for the next.
            assert await asyncio.gather(*(node.read(0, timeout=DEADLINE) for node in left)) == [b"x"] * 2
            await left[0].close()
            alone = left[1]
            with pytest.raises(paxos.NotAvailable, match="nothing was read"):
                await alone.read(0, timeout=0.3)
            assert await alone.read(0, consistency="stale") == b"x"
            assert await alone.read_many([0, None], consistency="stale") == [b"x", 1]
            assert await alone.read(0, consistency="stale", max_staleness=3600) == b"x"
            with pytest.raises(paxos.NotAvailable):
                await alone.read(0, consistency="stale", max_staleness=0, timeout=0.1)

    asyncio.run(main())


def test_reads_before_there_is_a_cluster_wait_for_it(tmp_path: Path) -> None:
    addresses = book()

    async def open_(i: int) -> paxos.Node:
        return await paxos.Node.open(tmp_path / str(i), node_id=i, cluster=addresses, state_machine=Register, **SMALL)

    async def main() -> None:
        nodes = [await open_(1)]
        try:
            early = nodes[0].read(None, timeout=DEADLINE)
            with pytest.raises(paxos.NotAvailable):
                await nodes[0].read(None, timeout=0.05)
            nodes += [await open_(2), await open_(3)]
            assert await early == 0
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(main())


def test_reads_that_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Poisoned(Register):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            if b"poison" in values:
                raise ValueError("cannot digest this")
            return super().apply_batch(instance, values)

    async def main() -> None:
        async with cluster(tmp_path, 1, machine={1: Poisoned, 7: Journal}) as nodes:
            node = nodes[1]
            with pytest.raises(paxos.ConfigError, match="'linearizable', 'lease', 'stale'"):
                node.read(0, consistency="strong", machine=1)  # type: ignore[arg-type]
            with pytest.raises(paxos.ConfigError, match="for consistency='stale' only"):
                node.read(0, max_staleness=1.0, machine=1)
            with pytest.raises(paxos.ConfigError, match="no state machine 0"):
                node.read(0)
            with pytest.raises(NotImplementedError, match=r"Journal has no read\(\)"):
                await node.read(0, machine=7, timeout=DEADLINE)
            assert await node.read(None, machine=1, timeout=DEADLINE) == 0
            with pytest.raises(paxos.StateMachineFailed):
                await node.propose(b"poison", machine=1, timeout=DEADLINE)
            for consistency in ("linearizable", "stale"):
                with pytest.raises(paxos.NotAvailable, match="read at another node"):
                    node.read(None, consistency=consistency, machine=1)  # type: ignore[arg-type]
        with pytest.raises(paxos.NodeClosed):
            node.read(None, machine=1)

    caplog.set_level(logging.CRITICAL + 1, "paxos")
    asyncio.run(main())


def test_close_ends_reads_that_wait(tmp_path: Path) -> None:
    async def main() -> None:
        node = await paxos.Node.open(tmp_path / "1", node_id=1, cluster=book(3), state_machine=Register, **SMALL)
        waiting = [node.read(None, timeout=DEADLINE), node.read_many([0], timeout=DEADLINE)]
        await node.close()
        for read in waiting:
            with pytest.raises(paxos.NodeClosed):
                await read

    asyncio.run(main())


def test_a_read_from_within_apply_waits_for_the_end_of_the_instance(tmp_path: Path) -> None:
    """A state machine with the node at hand: half of an instance is no state that the cluster was ever in."""
    node: paxos.Node
    reads: list[asyncio.Future[Any]] = []

    class Curious(Register):
        def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
            results = super().apply_batch(instance, values)
            if values:
                reads.append(node.read(None, consistency="stale"))
                assert not reads[-1].done()
                self.values += [b"and more"]
            return results

    async def main() -> None:
        nonlocal node
        async with cluster(tmp_path, 1, machine=Curious) as nodes:
            node = nodes[1]
            await node.propose(b"x", timeout=DEADLINE)
            assert await reads[0] == 2
            read = node.read(None, consistency="stale")
            assert read.done(), "elsewhere it is answered at once"
            assert await read == 2

    asyncio.run(main())


def test_a_follower_whose_state_machine_is_ahead_of_the_cluster_finds_out_by_a_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a quorum confirms after the start of the process is all that was chosen before: who claims more belongs elsewhere."""
    ahead = -1

    class Ahead(Register):
        def __init__(self) -> None:
            super().__init__()
            self.ahead = ahead

        def last_applied(self) -> int:
            return self.ahead

    async def main() -> None:
        nonlocal ahead
        addresses = book()
        async with cluster(tmp_path, addresses=addresses, machine=Ahead) as nodes:
            await nodes[1].propose(b"x", timeout=DEADLINE)
            follower = next(i for i, node in nodes.items() if not node.is_master())
            await nodes[follower].close()
            ahead = 1000
            nodes[follower] = node = await paxos.Node.open(
                tmp_path / str(follower), node_id=follower, cluster=addresses, state_machine=Ahead, max_value=1 << 20,
                segment_bytes=16 << 20,
            )  # fmt: skip
            with pytest.raises(paxos.NotAvailable, match="applied instance 1000"):
                await node.read(None, timeout=DEADLINE)
            assert "belongs to another cluster" in (node.status().state_machine_error or "")

    caplog.set_level(logging.CRITICAL + 1, "paxos")
    asyncio.run(main())
