"""``@simulate`` as users meet it: seeds, faults, failures that are shrunk, misuse."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import paxos
from paxos.errors import ConfigError
from paxos.testing import (
    Diverged,
    NothingChosen,
    SimCluster,
    SimulationFailed,
    Violation,
    simulate,
)
from paxos.testing.settings import Settings, current
from user_machines import Counter, Durable, clients

TOP = Path(__file__).resolve().parent.parent
MakeSimCluster = Callable[..., SimCluster]


# -- determinism of the simulation itself

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from paxos.testing import simulate
from user_machines import Counter, clients
simulation = simulate(Counter, seeds=5, seconds=5)(clients)
print([simulation.run(seed).hashes[seed] for seed in range(5)])
"""


@pytest.mark.processes
def test_a_seed_is_one_run_in_every_process() -> None:
    simulation = simulate(Counter, seeds=5, seconds=5)(clients)
    here = [[simulation.run(seed).hashes[seed] for seed in range(5)] for _ in range(2)]
    assert here[0] == here[1]
    assert len(set(here[0])) == 5
    for hash_seed in ("0", "17"):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(TOP / "tests")],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == str(here[0])


def test_global_random_follows_the_seed_and_is_given_back() -> None:
    drawn: list[float] = []

    @simulate(Counter, seeds=[3], faults="none")
    async def draws(cluster: SimCluster) -> None:
        await cluster.propose(b"1")
        drawn.append(random.random())

    random.seed(5)
    expected = random.Random(5).random()
    draws()
    draws()
    assert drawn[0] == drawn[1]
    assert random.random() == expected


# -- @simulate


def test_a_right_machine_passes() -> None:
    seen: set[int] = set()

    def invariant(cluster: SimCluster, node: int) -> bool:
        seen.add(node)
        return bool(cluster.machine(node).total >= 0)

    simulation = simulate(Counter, seeds=25, seconds=8, invariant=invariant)(clients)
    simulation()
    report = simulation.report
    assert report.seeds == 25
    assert report.seconds > 25 * 8
    assert report.faults.total() > 50
    assert len(report.faults) > 10
    assert report.values > 500
    assert seen == {1, 2, 3}
    assert re.fullmatch(r"25 seeds, [\d.,]+ simulated s, \d+ faults, [\d,]+ values chosen", str(report))


def test_a_right_durable_machine_passes() -> None:
    simulation = simulate(Durable, seeds=15, nodes=5, seconds=8, durable=True)(clients)
    simulation()
    assert simulation.report.values > 200


def planted(seeds: int = 40) -> Any:
    """A client that tries again what may have been done."""

    @simulate(Counter, seeds=seeds, faults="crash,partition", seconds=5)
    async def pays_twice(cluster: SimCluster) -> None:
        paid = 0
        while cluster.now < cluster.seconds:
            while True:
                try:
                    await cluster.propose(b"1", timeout=1)
                    break
                except paxos.PaxosError:
                    await cluster.sleep(0.1)
            paid += 1
            await cluster.sleep(0.05)
        await cluster.settle()
        assert cluster.machine(1).total == paid, "paid twice"

    return pays_twice


def test_a_planted_bug_is_found_shrunk_and_comes_back() -> None:
    pays_twice = planted()
    with pytest.raises(SimulationFailed, match="paid twice") as caught:
        pays_twice()
    failure = caught.value
    assert isinstance(failure.__cause__, AssertionError)
    whole = pays_twice.schedule(failure.seed)
    assert 1 <= len(failure.schedule) <= len(whole) // 2, "a few of them are enough"
    assert [whole[number] for number in failure.keep] == failure.schedule
    text = str(failure)
    assert f"pays_twice fails with seed {failure.seed}" in text
    assert all(str(fault) in text for fault in failure.schedule)
    assert f"--paxos-seed {failure.seed} --paxos-keep {','.join(map(str, failure.keep))}" in text.splitlines()[-1]
    with pytest.raises(SimulationFailed, match="paid twice") as again:
        pays_twice.run(failure.seed, keep=failure.keep)
    assert again.value.keep == failure.keep
    assert f"pays_twice.run({failure.seed}, keep={failure.keep})" in str(again.value)
    assert pays_twice.run(failure.seed, keep=[]).faults.total() == 0


def test_an_invariant_that_breaks_is_the_error() -> None:
    def small(cluster: SimCluster, node: int) -> bool:
        return bool(cluster.machine(node).total < 10)

    with pytest.raises(SimulationFailed, match=r"the invariant does not hold on node [123]") as caught:
        simulate(Counter, seeds=3, invariant=small)(clients)()
    assert caught.value.keep == []
    assert "It takes no faults." in str(caught.value)


class Local(Counter):
    """Answers by what is only in this process."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        Local.made += 1
        self.number = Local.made

    def apply(self, instance: int, value: bytes) -> int:
        return super().apply(instance, value) + (self.number % 3 == 0)


def test_replicas_that_answer_differently() -> None:
    with pytest.raises(SimulationFailed, match="Diverged: Local: replicas differ at instance") as caught:
        simulate(Local, seeds=3, faults="none")(clients)()
    assert isinstance(caught.value.__cause__, Diverged)


class Shared(paxos.StateMachine):
    """The state is by mistake the class's own: all replicas in a process change the same."""

    totals: list[int] = []  # noqa: RUF012  # that is the mistake

    def apply(self, instance: int, value: bytes) -> int:
        self.totals.append(int(value))
        return len(self.totals)


def test_state_that_replicas_share_is_found() -> None:
    with pytest.raises(SimulationFailed, match="Diverged: Shared"):
        simulate(Shared, seeds=3, faults="none")(clients)()


class Silent(Local):
    """The same, without a word."""

    def apply(self, instance: int, value: bytes) -> int:
        self.total += self.number % 3 == 0
        return 0


def test_replicas_that_end_in_different_states() -> None:
    with pytest.raises(SimulationFailed, match=r"Diverged: Silent: .*digest \d+ on node"):
        simulate(Silent, seeds=3, faults="none", seconds=2)(clients)()


def test_a_machine_that_raises() -> None:
    class Raises(Counter):
        def apply(self, instance: int, value: bytes) -> int:
            raise KeyError("no such account")

    with pytest.raises(SimulationFailed, match=r"the state machine of node [123] raised: KeyError"):
        simulate(Raises, seeds=1)(clients)()


def test_what_does_not_come_back_is_said() -> None:
    runs: list[int] = []

    @simulate(Counter, seeds=1)
    async def only_once(cluster: SimCluster) -> None:
        await cluster.propose(b"1")
        runs.append(1)
        assert len(runs) != 1

    with pytest.raises(SimulationFailed, match="it did not fail in this way"):
        only_once()


def test_a_failure_of_pytest_s_own_is_one() -> None:
    @simulate(Counter, seeds=1, faults="none")
    async def fails(cluster: SimCluster) -> None:
        pytest.fail("by hand")

    with pytest.raises(SimulationFailed, match="Failed: by hand"):
        fails()


def test_a_test_in_which_nothing_happens_fails() -> None:
    @simulate(Counter, seeds=3, faults="none")
    async def idle(cluster: SimCluster) -> None:
        await cluster.sleep(1)

    with pytest.raises(NothingChosen, match="idle: no value was chosen"):
        idle()


def test_a_timeline_is_written_of_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, int, int]] = []
    fake = ModuleType("paxos.testing.timeline")
    fake.write = lambda path, cluster, faults: written.append(  # type: ignore[attr-defined]
        (path, len(cluster.world.timeline()), faults.hits.total())
    )
    monkeypatch.setitem(sys.modules, "paxos.testing.timeline", fake)
    pays_twice = planted()
    token = current.set(Settings(trace="trace.json"))
    try:
        with pytest.raises(SimulationFailed) as caught:
            pays_twice()
    finally:
        current.reset(token)
    ((path, _, hits),) = written
    assert path == "trace.json"
    assert hits >= len(caught.value.keep), "(a link that flaps is cut more than once)"
    assert written[0][1] > 100


def test_a_body_that_hangs_fails() -> None:
    @simulate(Counter, seeds=1, faults="none", limit=5)
    async def hangs(cluster: SimCluster) -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationFailed, match=r"NotEnded: not ended within 5 simulated seconds; it waits in .*hangs"):
        hangs()


def test_settling_is_bounded(sim_cluster: MakeSimCluster) -> None:
    cluster = sim_cluster(Counter)

    async def story() -> None:
        await cluster.propose(b"1")
        cluster.cluster.world.pause(0, 50_000_000_000)
        await cluster.node(2).propose(b"1", timeout=30)
        await cluster.settle(within=5)

    with pytest.raises(Violation, match="the nodes are not level 5 s after the last fault: node 1"):
        cluster.run(story())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seeds": 0}, "seeds=0: give at least one seed"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [-1]}, "none below 0"),
        ({"seeds": True}, "must be a number of seeds"),
        ({"seeds": "12"}, "must be a number of seeds"),
        ({"faults": "crush"}, "unknown fault 'crush'; there are: all, none, the groups network, .*kill-in-call"),
        ({"faults": ["crash", "x"]}, "unknown fault 'x'"),
        ({"nodes": 0}, "1 to 31 nodes"),
        ({"seconds": -1}, "seconds=-1"),
        ({"window": 65}, "option window=65 is out of range"),
        ({"windows": 1}, "unknown option 'windows'"),
    ],
)
def test_misuse_is_seen_at_once(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(Counter, **parameters)


def test_misuse_of_the_rest(sim_cluster: MakeSimCluster) -> None:
    with pytest.raises(ConfigError, match="must be a class"):
        simulate(Counter())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async def"):
        simulate(Counter)(lambda cluster: None)  # type: ignore[arg-type, return-value]

    async def lonely() -> None: ...

    with pytest.raises(TypeError, match="the cluster as its first parameter"):
        simulate(Counter)(lonely)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no fault 9999"):
        simulate(Counter)(clients).run(1, keep=[9999])
    with pytest.raises(ConfigError, match="seed=-1"):
        sim_cluster(Counter, seed=-1)
    with pytest.raises(ConfigError, match="the factory made a int"):
        sim_cluster(int)
    cluster = sim_cluster(Counter)
    with pytest.raises(ConfigError, match="there is no node 4; there are 1 to 3"):
        cluster.node(4)
    for groups in ([[1]], [[1, 2], [2, 3]]):
        with pytest.raises(ConfigError, match="partition"):
            cluster.partition(*groups)


def test_names_are_loaded_when_asked_for() -> None:
    code = (
        "import sys, paxos\n"
        "assert 'paxos.testing' not in sys.modules\n"
        "import paxos.testing, paxos.testing.plugin\n"
        "assert 'paxos.testing._sim' not in sys.modules\n"
        "from paxos.testing import *\n"
        "assert callable(simulate) and callable(check_determinism)\n"
        "assert set(paxos.testing.__all__) <= set(dir(paxos.testing))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(TOP)})
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        paxos.testing.nonsense  # noqa: B018
