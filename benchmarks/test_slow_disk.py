"""Disks whose durable writes take 2 or 10 ms: on all nodes, or on one follower, which must cost the others nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench_nodes import NODES, Nodes, figures
from pytest_benchmark.fixture import BenchmarkFixture
from slow_disk import Delays


class SlowDisks:
    """Three nodes whose disks' delays can be set while they run."""

    def __init__(self, nodes: Nodes, delays: Delays) -> None:
        self.nodes = nodes
        self._delays = delays

    def set(self, **microseconds: int) -> None:
        """``all=``, ``follower=``: the delay of every disk, or of one that is not the master's; of the others none."""
        slow = set(self._delays.files)
        if "follower" in microseconds:
            slow = {max(slow - {self.nodes.master})}
        (delay,) = microseconds.values()
        for node in self._delays.files:
            self._delays.set(node, delay if node in slow else 0)

    def delays(self) -> dict[int, int]:
        return {node: self._delays.get(node) for node in self._delays.files}


@pytest.fixture(scope="module")
def slow_disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowDisks]:
    folder = tmp_path_factory.mktemp("slow")
    delays = Delays(folder, range(1, NODES + 1))
    with Nodes(folder, delays.environments) as nodes:
        yield SlowDisks(nodes, delays)


@pytest.mark.parametrize(("clients", "batch"), [(1, 1), (1000, 1), (10, 100)], ids=["1", "1000", "1000_by_100"])
@pytest.mark.parametrize("delay", [2000, 10_000], ids=["2ms", "10ms"])
@pytest.mark.parametrize("where", ["all", "follower"])
def test_slow_disk(
    benchmark: BenchmarkFixture, slow_disks: SlowDisks, tiny: bool, where: str, delay: int, clients: int, batch: int
) -> None:
    slow_disks.set(**{where: delay})
    windows = []

    def window() -> None:
        windows.append(
            slow_disks.nodes.load(
                clients=clients, batch=batch, seconds=0.1 if tiny else 1.5, warmup=0.02 if tiny else 0.5
            )
        )

    benchmark.group = f"disk of {delay // 1000} ms a sync, {where}"
    benchmark.pedantic(window, rounds=1)
    (found,) = windows
    benchmark.extra_info.update(figures(windows), elections=found["elections"])
    assert found["rtts_per_value"] == pytest.approx(1.0, abs=1e-9) or found["elections"], (
        "one round of messages a value"
    )
    for node, microseconds in slow_disks.delays().items():
        counts = found["counts"][node]
        if microseconds and counts["log_writes"] > 1:
            # The first write of the window may have begun under the delay of the benchmark before; a sleep is never shorter.
            assert counts["log_seconds"] >= (counts["log_writes"] - 1) * microseconds / 1e6, f"node {node}: {counts}"
