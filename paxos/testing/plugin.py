"""The pytest plugin: options that pick a seed and its faults, and a fixture that makes simulated clusters.

pytest loads this for everybody who has the package installed, so it loads nothing that is not needed: the simulator comes
with the first test that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from paxos.testing.settings import Settings, current, parse_keep

if TYPE_CHECKING:
    from paxos.testing.simcluster import SimCluster
    from paxos.testing.simulation import Report

    MakeSimCluster: TypeAlias = Callable[..., SimCluster]

__all__: list[str] = []

SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("paxos", "paxos.testing: simulated clusters")
    group.addoption("--paxos-seed", type=int, metavar="N", help="run simulations with this seed only")
    group.addoption("--paxos-seeds", type=int, metavar="N", help="run simulations with so many seeds")
    group.addoption(
        "--paxos-keep",
        metavar="LIST",
        help="of the faults of --paxos-seed keep these only, by number (0,3), or none; a failed simulation says which",
    )
    group.addoption(
        "--paxos-trace",
        metavar="FILE",
        help="write the timeline of the run that fails, or of the only one, to this file",
    )


def pytest_configure(config: pytest.Config) -> None:
    option = config.getoption
    seed, seeds, keep = option("--paxos-seed"), option("--paxos-seeds"), option("--paxos-keep")
    if seed is not None and seed < 0:
        raise pytest.UsageError(f"--paxos-seed {seed}: a seed is a number from 0 on")
    if seeds is not None and seeds < 1:
        raise pytest.UsageError(f"--paxos-seeds {seeds}: give at least one")
    if seed is not None and seeds is not None:
        raise pytest.UsageError(
            "--paxos-seed and --paxos-seeds do not go together: one picks a seed, the other counts them"
        )
    if keep is not None and seed is None:
        raise pytest.UsageError("--paxos-keep wants --paxos-seed: each seed has faults of its own")
    try:
        numbers = None if keep is None else parse_keep(keep)
    except ValueError as error:
        raise pytest.UsageError(f"--paxos-keep {keep}: give numbers of faults, as in 0,3, or none ({error})") from error
    config.stash[SETTINGS] = Settings(seed=seed, seeds=seeds, keep=numbers, trace=option("--paxos-trace"))


# The old way to wrap a hook: it is to load with every pytest that somebody may have.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Tells the simulations in this test what the command line wants, and keeps what they report."""
    wanted = item.config.stash[SETTINGS]

    def report(name: str, what: Report) -> None:
        item.add_report_section("call", "paxos", f"{name}: {what}")
        item.user_properties.append(("paxos", f"{name}: {what}"))

    token = current.set(replace(wanted, test=item.nodeid, report=report))
    yield
    current.reset(token)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What happened in simulations that passed, with -v."""
    if terminalreporter.verbosity < 1:
        return
    lines = [
        str(value)
        for report in terminalreporter.getreports("passed")
        if report.when == "call"
        for name, value in report.user_properties
        if name == "paxos"
    ]
    if lines:
        terminalreporter.write_sep("-", "paxos simulations")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def sim_cluster() -> Iterator[MakeSimCluster]:
    """Makes simulated clusters, ``sim_cluster(MyMachine, nodes=3, seed=1)``, and closes them. See paxos.testing.SimCluster."""
    from paxos.testing.simcluster import SimCluster

    made: list[SimCluster] = []

    def make(*args: Any, **kwargs: Any) -> SimCluster:
        made.append(SimCluster(*args, **kwargs))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
