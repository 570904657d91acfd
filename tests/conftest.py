"""Fixtures shared by the tests: the power-loss library, and clusters of real processes that are always ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shim
from cluster import Cluster, MakeCluster


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled LD_PRELOAD library (see tests/shim/shim.h)."""
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters of ``paxos serve`` processes below the test's directory; ends them all afterwards."""
    made: list[Cluster] = []

    def make(*, start: bool = True, **options: Any) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster{len(made)}", **options)
        made.append(cluster)
        if start:
            cluster.start()
        return cluster

    yield make
    for cluster in made:
        cluster.close()
