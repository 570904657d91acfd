"""Steps of the core, called from Python as tests and the simulator do; the engine makes the same steps from C.

The time per value therefore has a large share of Python in it: a call, a list, and a tuple with a copy of the bytes for
each effect. ``empty_call_ns`` is a step with no effect, which is the least that each of ``calls_per_value`` costs;
docs/benchmarks.md says what a profile finds of the rest.
"""

from __future__ import annotations

import timeit
from typing import Any

import pytest
from bench_cores import Call, Core, Step, Trio, replay
from pytest_benchmark.fixture import BenchmarkFixture

VALUE = b"v" * 100
# The record of the run is a few ten thousand objects: a collection in a timed round would be most of it.
pytestmark = pytest.mark.benchmark(disable_gc=True)

RECORD_ACCEPT = 6
MASTER, ACCEPTOR = 1, 2


def go(core: Core, steps: list[Step]) -> Core:
    for step, args in steps:
        step(*args)
    return core


def run(benchmark: BenchmarkFixture, node: int, batch: int, tiny: bool) -> list[tuple[Any, ...]]:
    """Times the calls on one core of a trio through which so many values went; returns its effects."""
    values = 20 if tiny else 500
    trio = Trio()
    before: list[Call] = list(trio.calls[node])
    first = trio.cores[node].state()["chosen"]
    since = len(trio.effects[node])
    for _ in range(values):
        trio.propose([VALUE] * batch)
    then = trio.calls[node][len(before) :]
    reached: list[Core] = []

    def setup() -> tuple[tuple[Core, list[Step]], dict[str, Any]]:
        return replay(node, before, then), {}

    def timed(core: Core, steps: list[Step]) -> None:
        reached[:] = [go(core, steps)]

    benchmark.group = "core"
    benchmark.pedantic(timed, setup=setup, rounds=2 if tiny else 40)
    state = reached[0].state()
    recorded = trio.cores[node].state()
    assert (state["chosen"], state["chain"]) == (recorded["chosen"], recorded["chain"]), "the replay is the same run"
    # The last value is known chosen to an acceptor with the next message of the master.
    assert state["chosen"] - first >= values - 1

    idle, count = reached[0], 1000 if tiny else 100_000
    now = trio.now
    benchmark.extra_info["calls_per_value"] = len(then) / values
    benchmark.extra_info["empty_call_ns"] = timeit.timeit(lambda: idle.pump(now), number=count) / count * 1e9
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_value"] = benchmark.stats.stats.median / (values * batch) * 1e9
    effects = trio.effects[node][since:]
    accepts = [effect for effect in effects if effect[0] == "log" and effect[2] == RECORD_ACCEPT]
    assert len(accepts) == values, "one record a node and instance"
    benchmark.extra_info["records_per_value"] = len(accepts) / (values * batch)
    if node == MASTER:
        assert state["rounds"] == state["proposed"], "one message round a value"
        benchmark.extra_info["rtts_per_value"] = state["rounds"] / state["proposed"]
    return effects


def test_accept_on_an_acceptor(benchmark: BenchmarkFixture, tiny: bool) -> None:
    """An Accept comes in: it is checked and logged, the record becomes durable, the answer leaves."""
    effects = run(benchmark, ACCEPTOR, 1, tiny)
    sends = [effect for effect in effects if effect[0] == "send"]
    logs = [effect for effect in effects if effect[0] == "log"]
    assert len(sends) == len(logs)
    assert [send[2] for send in sends] == [log[1] for log in logs], "each answer waits for its own record"


@pytest.mark.parametrize("batch", [1, 100])
def test_value_through_a_master(benchmark: BenchmarkFixture, tiny: bool, batch: int) -> None:
    """A value from the proposal to chosen at a master whose followers answer at once; and 100 values in one proposal."""
    effects = run(benchmark, MASTER, batch, tiny)
    chosen = [effect for effect in effects if effect[0] == "chosen"]
    sends = [effect for effect in effects if effect[0] == "send"]
    assert [effect[3] for effect in chosen] == [batch] * len(chosen)
    assert len(sends) == len(chosen), "one send, to both followers, a value"
