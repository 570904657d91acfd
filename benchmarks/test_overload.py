"""Ten times as much as can be done: how much of it is done, how long that takes, and how much is refused.

The peak is measured with as many calls under way as are done fastest; then ten times as many come, at a rate of their own, and
both take turns. Calls are made in the processes of the nodes, as in a service that embeds the library, so who offers takes
his share of the processor from who works: as a refusal costs a few microseconds, ten times the peak can be offered where a
call carries 100 values, or where the disk is the limit. ``tests/test_overload.py`` judges times, simulated ones.

What is judged here holds at any speed: what was taken is done; each refusal says that it would have been too long; what waits is
bounded by the time that it may wait.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from bench_overload import NODES, Overloaded
from pytest_benchmark.fixture import BenchmarkFixture
from slow_disk import Delays

from paxos.cli.bench_load import percentile

SIZE = 100
TIMES = 10
TRIES = 5


@dataclass(frozen=True)
class Case:
    """``delay``: µs that each durable write takes longer. ``clients``: of these numbers the fastest makes the peak."""

    batch: int
    max_wait: float
    clients: tuple[int, ...]
    delay: int = 0
    everywhere: bool = False
    options: dict[str, Any] = field(default_factory=dict)


# Twenty values an instance and two instances in flight: some thousand values a second, which one Python can offer tenfold.
SMALL = {"window": 2, "batch_values": 20}
CASES = {
    "batches": Case(100, 0.2, (10, 40)),
    "batches_default": Case(100, 1.0, (10, 40)),
    "disk": Case(1, 0.2, (100, 400), 5000, options=SMALL),
    "disk_at_all_nodes": Case(1, 0.2, (40, 130), 5000, everywhere=True, options=SMALL),
}


class Turns:
    """A peak and a load, over and over."""

    def __init__(self, nodes: Overloaded, case: Case, tiny: bool) -> None:
        self.nodes = nodes
        self.case = case
        self.peak_seconds = 0.3 if tiny else 2.0
        self.seconds = 3 * case.max_wait if tiny else max(5.0, 8 * case.max_wait)
        self.found: list[dict[str, Any]] = []
        self.clients = case.clients[0] if tiny else max(case.clients, key=lambda clients: self.peak(clients)[0])

    def at(self) -> list[int]:
        return list(self.nodes.processes) if self.case.everywhere else [self.nodes.master()]

    def peak(self, clients: int) -> tuple[float, int]:
        """Values a second, and calls refused."""
        found = self.nodes.tell(
            self.at(), do="peak", size=SIZE, batch=self.case.batch, clients=clients,
            seconds=self.peak_seconds,
        )  # fmt: skip
        return sum(one["per_s"] for one in found), sum(one["refused"] for one in found)

    def turn(self) -> None:
        for _ in range(TRIES):
            before = self._elections()
            peak, refused = self.peak(self.clients)
            at = self.at()
            loads = self.nodes.tell(
                at, do="offer", size=SIZE, batch=self.case.batch, rate=TIMES * peak / len(at),
                seconds=self.seconds,
            )  # fmt: skip
            # What is under way when the master changes may end with an unknown outcome: not what is to be looked at.
            if self._elections() == before and not refused:
                self.found.append(self._judged(peak, loads))
                return
        pytest.fail(f"no turn without an election, or a refusal at the peak, in {TRIES}")

    def _elections(self) -> int:
        return sum(int(status["elections"]) for status in self.nodes.statuses().values())

    def _judged(self, peak: float, loads: list[dict[str, Any]]) -> dict[str, Any]:
        case = self.case
        for load in loads:
            assert not load["ended"], f"what was taken must be done: {load['ended']}"
            assert load["pending"] == 0
            # More than comes, or can be done, in twice max_wait is never under way, however slowly it is done.
            rate = max(load["offered"] / load["seconds"], peak / case.batch / len(loads))
            bound = 2 * case.max_wait * rate
            assert load["most"] <= bound, f"{load['most']} calls under way; more than in 2 max_wait: {bound:.0f}"
            least = load["least_expected"]
            if least is not None:
                assert least > case.max_wait, f"refused for {least} s, with {load['most']} under way at most"
        offered = sum(load["offered"] for load in loads)
        waits = sorted(wait for load in loads for wait in load["waits"])
        return {
            "peak": peak,
            "offered": sum(load["offered"] * case.batch / load["seconds"] for load in loads) / peak,
            "goodput": sum(load["done"] * case.batch / load["seconds"] for load in loads) / peak,
            "p50": percentile(waits, 0.5) / case.max_wait,
            "p99": percentile(waits, 0.99) / case.max_wait,
            "refused": sum(load["refused"] for load in loads) / offered,
            "most": max(load["most"] for load in loads),
        }


@pytest.mark.parametrize("name", CASES)
def test_ten_times_the_peak(benchmark: BenchmarkFixture, tmp_path: Path, tiny: bool, name: str) -> None:
    case = CASES[name]
    if tiny:
        case = replace(case, max_wait=min(case.max_wait, 0.2))
    delays = Delays(tmp_path, range(1, NODES + 1))
    options = {"max_wait": case.max_wait, **case.options}
    with Overloaded(tmp_path, options, delays.environments) as nodes:
        nodes.master()
        for node in nodes.processes:
            delays.set(node, case.delay)
        turns = Turns(nodes, case, tiny)
        benchmark.group = "overload"
        benchmark.pedantic(turns.turn, rounds=1 if tiny else 5, iterations=1)
    found = turns.found
    benchmark.extra_info.update(
        max_wait=case.max_wait,
        peak_per_s=statistics.median(one["peak"] for one in found),
        offered_over_peak=statistics.median(one["offered"] for one in found),
        goodput_over_peak=statistics.median(one["goodput"] for one in found),
        goodput_over_peak_worst=min(one["goodput"] for one in found),
        p50_over_max_wait=statistics.median(one["p50"] for one in found),
        p99_over_max_wait=statistics.median(one["p99"] for one in found),
        p99_over_max_wait_worst=max(one["p99"] for one in found),
        refused_share=statistics.median(one["refused"] for one in found),
        most_calls_under_way=max(one["most"] for one in found),
        turns=len(found),
    )
