"""What the benchmarks share: a tiny mode that only keeps them from rotting, and a table of the figures they counted.

The figures that matter here (round trips, log writes, syncs, messages and bytes per value, latencies seen by a caller) are
in each benchmark's ``extra_info``, which pytest-benchmark keeps in its JSON but does not print; so they are printed here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Helpers are plain modules beside the benchmarks; with --import-mode=importlib nobody else makes them importable.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_nodes import Nodes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark-tiny",
        action="store_true",
        default=os.environ.get("PAXOS_BENCH_TINY", "") not in ("", "0"),
        help="run each benchmark as shortly as it can: the figures mean nothing, the checks on counts hold all the same "
        "(also PAXOS_BENCH_TINY=1, and with --benchmark-disable)",
    )


def _tiny(config: pytest.Config) -> bool:
    return bool(config.getoption("--benchmark-tiny") or config.getoption("benchmark_disable"))


# Before pytest-benchmark makes its session of these options.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if _tiny(config):
        config.option.benchmark_min_rounds = 1
        config.option.benchmark_min_time = 0.0001
        config.option.benchmark_max_time = 0.01


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    found = [bench for bench in session.benchmarks if bench.extra_info] if session is not None else []
    if not found:
        return
    terminalreporter.section("figures" + (" (tiny run: they mean nothing)" if _tiny(config) else ""))
    for bench in found:
        terminalreporter.write_line(bench.name)
        for name, value in bench.extra_info.items():
            shown = f"{value:,.4g}" if isinstance(value, float) and value < 1000 else value
            shown = f"{value:,.0f}" if isinstance(value, float) and value >= 1000 else shown
            terminalreporter.write_line(f"    {name:34} {shown}")


@pytest.fixture(scope="session")
def tiny(pytestconfig: pytest.Config) -> bool:
    """Whether this run is only about keeping the benchmarks alive."""
    return _tiny(pytestconfig)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three node processes with a master; all loads of a module run on the same ones."""
    with Nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started
