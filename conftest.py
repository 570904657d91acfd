"""What holds for tests and benchmarks alike: the option that tells which of the two a run of pytest is about."""

from __future__ import annotations

from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent


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
