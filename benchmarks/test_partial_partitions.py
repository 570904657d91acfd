"""Networks that are cut in part, while clients that reach every node write all the time: how long until somebody who reaches a
majority acknowledges writes again, and how often the mastership moves until it rests.

The first three are those of OmniPaxos (EuroSys 2023, section 2); then links that carry one way only. Real processes, each in a
network namespace, everything at its default. ``tests/test_partial_partitions.py`` is the same in simulated time, and judges.

What is judged here holds at any speed: writes go on and the mastership comes to rest, however late; it rests at a node that
reaches a majority; each acknowledged write was done, and once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cluster import Cluster, Node
from netns import Network
from paxos import Options
from paxos.cli.resp_client import ReplyError, RespClient

ELECTION_TIMEOUT = Options().election_timeout
GOAL = 4 * ELECTION_TIMEOUT
EVERY = 0.02  # seconds between two writes at a node
ESTABLISHED_OR_CONNECTING = ("01", "02")  # in /proc/…/net/tcp
DEADLINE = 60.0  # for what must come about at any speed
Links = set[tuple[int, int]]  # (from, to): what is cut
Cut = Callable[[int, list[int]], Links]


def _apart(*nodes: int) -> Links:
    return set(itertools.permutations(nodes, 2))


def quorum_loss(master: int, others: list[int]) -> Links:
    """Everybody reaches one node, and nobody else."""
    return _apart(master, *others[1:])


def constrained(master: int, others: list[int]) -> Links:
    """As before, and the master is gone altogether."""
    return quorum_loss(master, others) | {(master, others[0]), (others[0], master)}


def chained(master: int, others: list[int]) -> Links:
    """Each reaches its neighbours in a row only; the master stands at the end of it."""
    row = [master, *others]
    place = {node: i for i, node in enumerate(row)}
    return {(a, b) for a, b in _apart(*row) if abs(place[a] - place[b]) > 1}


def master_is_not_heard(master: int, others: list[int]) -> Links:
    """A majority does not hear the master, which hears everybody."""
    return {(master, other) for other in others[: 1 + len(others) // 2]}


def master_does_not_hear(master: int, others: list[int]) -> Links:
    """... or it is heard, and does not hear a majority."""
    return {(other, master) for other in others[: 1 + len(others) // 2]}


def one_link_out(master: int, others: list[int]) -> Links:
    """One node does not hear the master."""
    return {(master, others[0])}


def one_link_in(master: int, others: list[int]) -> Links:
    """The master does not hear one node."""
    return {(others[0], master)}


def connected(nodes: int, cut: Links) -> set[int]:
    """Those that reach a majority, there and back."""
    both = {a: {b for b in range(1, nodes + 1) if not cut & {(a, b), (b, a)}} for a in range(1, nodes + 1)}
    return {a for a, reached in both.items() if len(reached) > nodes // 2}  # (it reaches itself)


class Clients:
    """At each node a write every 20 ms, whatever became of those before it. All count one number up."""

    def __init__(self, nodes: Mapping[int, Node], key: str) -> None:
        self.key = key
        self.nodes = nodes
        self.acknowledged: list[tuple[float, float, int]] = []  # (sent, answered, node)
        self.outcomes: Counter[str] = Counter()
        self._idle: dict[int, list[RespClient]] = {node: [] for node in nodes}
        self._all: list[RespClient] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        while True:
            for node in self.nodes:
                task = asyncio.create_task(self._write(node))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(EVERY)

    async def _write(self, node: int) -> None:
        sent = time.monotonic()
        try:
            client = await self.client(node)
        except OSError:
            self.outcomes["unreachable"] += 1
            return
        try:
            await client.call("INCR", self.key)
        except ReplyError as error:
            self.outcomes[error.code] += 1
        except (OSError, TimeoutError) as error:
            self.outcomes[type(error).__name__] += 1
            return
        else:
            self.outcomes["acknowledged"] += 1
            self.acknowledged.append((sent, time.monotonic(), node))
        self._idle[node].append(client)

    async def client(self, node: int) -> RespClient:
        if self._idle[node]:
            return self._idle[node].pop()
        self._all.append(await RespClient.connect(self.nodes[node].resp, self.nodes[node].host))
        return self._all[-1]

    async def info(self) -> dict[int, dict[str, str]]:
        found = {}
        for node in self.nodes:
            try:
                client = await self.client(node)
                found[node] = await client.info()
            except OSError:
                self.nodes[node].check_alive()
                raise
            self._idle[node].append(client)
        return found

    def first(self, behind: float, nodes: set[int]) -> dict[int, float]:
        """When each of these nodes acknowledged a write that was sent then or later."""
        found: dict[int, float] = {}
        for sent, answered, node in reversed(self.acknowledged):
            if answered < behind:
                break
            if sent >= behind and node in nodes:
                found[node] = answered
        return found

    async def check(self) -> None:
        """Lets what is under way end, and sees that what was acknowledged was done, once."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        client = await self.client(min(self.nodes))
        count = int(await client.call("GET", self.key))
        client.close()
        done = self.outcomes["acknowledged"]
        # What was refused, or never sent, was not done; of the rest nobody knows.
        unknown = self.outcomes.total() - done - self.outcomes["UNAVAILABLE"] - self.outcomes["unreachable"]
        assert done <= count <= done + unknown, f"counted {count} of {dict(self.outcomes)}"

    async def close(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for client in self._all:
            client.close()
        await asyncio.sleep(0)  # they are closed in the loop's next turn


@dataclass(frozen=True)
class Found:
    """Of one cut, in seconds from its first link on."""

    cutting: float  # until the last link was cut
    first: float  # until a node that reaches a majority has acknowledged a write that was sent behind the cut
    all: float  # until each such node has
    settled: float  # until the last ballot was raised; 0: none was
    ballots: int
    masters: int  # changes of the master, as the nodes that reach a majority know it


class Trial:
    """Nodes in namespaces."""

    def __init__(self, network: Network, cluster: Cluster) -> None:
        self.network = network
        self.cluster = cluster
        self.turn = 0

    def flows(self) -> bool:
        """Whether no node waits to send again what was lost: that may last for seconds, as TCP doubles its pauses."""
        for node in self.cluster:
            assert node.process is not None
            table = Path(f"/proc/{node.process.pid}/net/tcp").read_text().splitlines()[1:]
            for _, _, _, state, _, _, again, *_ in map(str.split, table):
                if state in ESTABLISHED_OR_CONNECTING and int(again, 16):
                    return False
        return True

    async def calm(self, clients: Clients, *, links: bool = True) -> int:
        """Until all know the same master, have what the others have, and reach one another (``links``). Returns the master."""
        end = time.monotonic() + DEADLINE
        before = -1
        while True:
            infos = await clients.info()
            masters = {info["paxos_master_id"] for info in infos.values()}
            applied = [int(info["paxos_applied"]) for info in infos.values()]
            linked = not links or (self.flows() and all("down" not in info["paxos_peers"] for info in infos.values()))
            ballots = _ballots(infos)
            if len(masters) == 1 and "0" not in masters and max(applied) - min(applied) < 50 and linked:
                if ballots == before:
                    return int(masters.pop())
                before = ballots
            assert time.monotonic() < end, f"not calm: {infos}"
            await asyncio.sleep(0.15)

    async def cut(self, cut: Cut, peace: float) -> Found:
        """Cuts, and looks until no ballot has been raised for ``peace`` seconds; heals behind that."""
        self.turn += 1
        clients = Clients(self.cluster.nodes, f"count{self.turn}")
        load = asyncio.create_task(clients.run())
        try:
            master = await self.calm(clients)
            others = [node for node in self.cluster.nodes if node != master]
            others = others[self.turn % len(others) :] + others[: self.turn % len(others)]
            links = cut(master, others)
            able = connected(len(self.cluster.nodes), links)
            assert able
            ballots = _ballots(await clients.info())
            begun = time.monotonic()
            await asyncio.to_thread(self.network.cut_all, links)
            cutting = time.monotonic() - begun
            found = await self._look(clients, able, ballots, begun, cutting, peace, master)
            await asyncio.to_thread(self.network.heal)
            load.cancel()
            await self.calm(clients, links=False)
            await clients.check()
            return found
        finally:
            load.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await load
            await clients.close()
            self.network.heal()

    async def _look(
        self, clients: Clients, able: set[int], ballots: int, begun: float, cutting: float, peace: float, master: int
    ) -> Found:
        behind = begun + cutting
        raised, last, masters, known = ballots, begun, 0, master
        while True:
            infos = await clients.info()
            now = time.monotonic()
            if (raised_now := _ballots(infos)) != raised:
                raised, last = raised_now, now
            named = {infos[node]["paxos_master_id"] for node in able}
            if len(named) == 1 and "0" not in named:
                (name,) = named
                masters += known != int(name)
                known = int(name)
            served = clients.first(behind, able)
            if now - max(last, behind) >= peace and clients.first(max(last, behind), able).keys() == able:
                break
            if now - begun > DEADLINE:
                assert served, f"nobody who reaches a majority acknowledges a write: {clients.outcomes}"
                assert served.keys() == able, (
                    f"of nodes {able} only {set(served)} acknowledge writes: {clients.outcomes}"
                )
                assert now - last >= peace, f"the mastership does not come to rest: {raised - ballots} ballots, {infos}"
                raise AssertionError(f"the mastership rests, and not all of {able} acknowledge writes: {infos}")
            await asyncio.sleep(0.02)
        leading = [node for node, info in infos.items() if info["paxos_role"] == "master" and node in able]
        assert len(leading) == 1, f"{leading} of {able} lead"
        return Found(
            cutting, min(served.values()) - begun, max(served.values()) - begun, last - begun, raised - ballots, masters
        )


def _ballots(infos: Mapping[int, Mapping[str, str]]) -> int:
    return sum(int(info["paxos_elections"]) for info in infos.values())


@pytest.fixture(scope="module")
def trial_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Trial]]:
    """So many nodes; the same ones as long as it is the same number."""
    stack = contextlib.ExitStack()
    running: dict[int, Trial] = {}

    def of(size: int) -> Trial:
        if size not in running:
            stack.close()
            running.clear()
            network = stack.enter_context(Network(size))
            base = tmp_path_factory.mktemp("partitions") / "cluster"
            cluster = Cluster(base, size=size, hosts=network.hosts, prefixes=network.prefixes)
            stack.callback(cluster.close)
            cluster.start()
            cluster.wait_ready()
            running[size] = Trial(network, cluster)
        return running[size]

    with stack:
        yield of


# As in the paper: five nodes, and three in a row.
CASES = [
    (5, quorum_loss),
    (5, constrained),
    (3, chained),
    (3, master_is_not_heard),
    (3, master_does_not_hear),
    (3, one_link_out),
    (3, one_link_in),
]


@pytest.mark.namespaces
@pytest.mark.parametrize(("size", "cut"), CASES, ids=lambda of: str(getattr(of, "__name__", of)))
def test_cut_in_part(
    benchmark: BenchmarkFixture, trial_of: Callable[[int], Trial], tiny: bool, size: int, cut: Cut
) -> None:
    peace, times = (0.3, 1) if tiny else (3.0, 7)
    benchmark.group = "partial partitions"
    if tiny and cut in (constrained, master_does_not_hear, one_link_out):
        # Seconds each; those beside them are of the same kind.
        benchmark.pedantic(time.perf_counter, rounds=1)
        return
    trial = trial_of(5 if tiny else size)  # (in a tiny run the same for all)
    found: list[Found] = []
    benchmark.pedantic(lambda: found.append(asyncio.run(trial.cut(cut, peace))), rounds=times, iterations=1)
    figures: dict[str, Any] = {"times": times, "goal ms": GOAL * 1000}
    for name, values in (
        ("writes go on", [one.first for one in found]),
        ("... at all who reach a majority", [one.all for one in found]),
        ("last ballot", [one.settled for one in found]),
        ("cutting took", [one.cutting for one in found]),
    ):
        figures[f"{name}: p50 ms"] = round(statistics.median(values) * 1000)
        figures[f"{name}: worst ms"] = round(max(values) * 1000)
    figures["changes of the master: p50"] = statistics.median(one.masters for one in found)
    figures["changes of the master: most"] = max(one.masters for one in found)
    figures["ballots raised: most"] = max(one.ballots for one in found)
    figures["last ballot behind the goal: times"] = sum(one.settled > GOAL for one in found)
    benchmark.extra_info.update(figures)
