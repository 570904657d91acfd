"""10 MiB values beside small ones, on loopback and on links slower than the values come. See bench_large for the set-up.

What was found is in ``extra_info``. Timing decides nothing here; what is checked is that heartbeats come at all while a value
is on its way that takes longer than the window.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_large import LARGE, Pair
from pytest_benchmark.fixture import BenchmarkFixture

MIB = 1 << 20


@pytest.mark.parametrize("rate", [0, 50 * MIB, 10 * MIB, 2 * MIB], ids=["loopback", "50_mib_s", "10_mib_s", "2_mib_s"])
def test_large_beside_small(benchmark: BenchmarkFixture, tmp_path: Path, rate: int, tiny: bool) -> None:
    seconds = 0.5 if tiny else 4.0
    with Pair(tmp_path) as pair:
        benchmark.group = "large values"
        found = benchmark.pedantic(lambda: pair.measure(rate, seconds, warmup=0.2), rounds=1)
    benchmark.extra_info.update(found)
    if rate and LARGE / rate > seconds:
        assert found["heartbeats_per_s"] > 1, "heartbeats wait for a value"
