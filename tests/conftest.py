"""Fixtures shared by the tests: the power-loss library, and clusters of real processes that are always ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import shim
from cluster import Cluster, MakeCluster
from hunts import Hunts

# How long an example takes is no verdict. The checked build traces every line: fewer examples, of the same kinds.
settings.register_profile("paxos", deadline=None)
settings.register_profile("paxos-debug", deadline=None, max_examples=8)
settings.load_profile("paxos-debug" if os.environ.get("PAXOS_DEBUG") else "paxos")


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


def mutant_of(item: pytest.Item) -> str | None:
    """The name of the mutant that a test asks for; those tests have it as their parameter."""
    if item.get_closest_marker("mutants") is None or not isinstance(item, pytest.Function):
        return None
    return item.callspec.params.get("mutant") if hasattr(item, "callspec") else None


@pytest.fixture(scope="session", autouse=True)
def hunts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hunts]:
    """The hunts of the mutants that this session asks for: under way from its beginning, beside all other tests."""
    names = dict.fromkeys(filter(None, map(mutant_of, request.session.items)))
    hunts = Hunts(list(names), tmp_path_factory.mktemp("mutants"))
    yield hunts
    hunts.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts hunts last."""
    # (They get the more time for themselves.)
    items.sort(key=lambda item: mutant_of(item) is not None)
