"""How much simulated time a real second buys: what decides how many seeds a campaign can afford."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from paxos.testing.campaign import Outcome, Plan, run

pytestmark = pytest.mark.benchmark(group="simulation")


@pytest.mark.parametrize("faults", ["all", "none"])
def test_campaign(benchmark: BenchmarkFixture, tiny: bool, faults: str) -> None:
    """Three nodes, the workload of ``paxos sim``; judged to the end, linearizability included. One core."""
    plan = Plan(nodes=3) if faults == "all" else Plan(nodes=3, kinds=())
    total = Outcome()
    seeds = iter(range(1_000_000))

    def some() -> None:
        for _ in range(1 if tiny else 20):
            outcome = run(plan, next(seeds))
            assert outcome.violation is None
            total.add(outcome)

    benchmark.pedantic(some, rounds=1 if tiny else 5, warmup_rounds=0 if tiny else 1)
    assert total.chosen > 0
    benchmark.extra_info["simulated_seconds_per_s"] = total.seconds / total.wall
    benchmark.extra_info["events_per_s"] = total.events / total.wall
    benchmark.extra_info["values_chosen_per_s"] = (
        total.operations["answered"] + total.operations["of bursts"]
    ) / total.wall
