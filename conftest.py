"""What holds for tests and benchmarks alike: the option that tells which of the two a run of pytest is about, and what is left
out where this machine gives no networks or file systems of their own."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent
LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark",
        action="store_true",
        default=False,
        help="run the benchmarks (and only those); without it only the tests run",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keeps benchmarks out of a run of the tests and the other way round, whatever paths were named."""
    other = "tests" if config.getoption("--benchmark") else "benchmarks"
    unwanted = TOP / other
    return True if collection_path == unwanted or unwanted in collection_path.parents else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, with a word, what needs networks or file systems of its own that this machine does not give."""
    words = config.stash[LEFT_OUT] = []
    kind = "benchmarks" if config.getoption("--benchmark") else "tests"
    for marker, module, what in (
        ("namespaces", "netns", "network partitions"),
        ("mounts", "mounts", "small file systems"),
    ):
        wanting = [item for item in items if item.get_closest_marker(marker)]
        if wanting and (reason := importlib.import_module(module).missing()) is not None:
            items[:] = [item for item in items if item not in wanting]
            config.hook.pytest_deselected(items=wanting)
            words.append(f"left out: {len(wanting)} {kind} with {what}: {reason}")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return config.stash.get(LEFT_OUT, [])
