"""Fixtures shared by the tests: the power-loss library, and clusters of real processes that are always ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import mounts
import netns
import shim
from cluster import Cluster, MakeCluster

# How long an example takes is no verdict. The checked build traces every line: fewer examples, of the same kinds.
settings.register_profile("paxos", deadline=None)
settings.register_profile("paxos-debug", deadline=None, max_examples=8)
settings.load_profile("paxos-debug" if os.environ.get("PAXOS_DEBUG") else "paxos")

LEFT_OUT = pytest.StashKey[list[str]]()


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, with a word, the tests for which this machine gives no networks or file systems of their own."""
    words = config.stash[LEFT_OUT] = []
    for marker, what, missing in (
        ("namespaces", "network partitions", netns.missing),
        ("mounts", "small file systems", mounts.missing),
    ):
        wanting = [item for item in items if item.get_closest_marker(marker)]
        if wanting and (reason := missing()) is not None:
            items[:] = [item for item in items if item not in wanting]
            config.hook.pytest_deselected(items=wanting)
            words.append(f"left out: {len(wanting)} tests with {what}: {reason}")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return config.stash.get(LEFT_OUT, [])
