"""Simulated lives of clusters whose members change all the time (``paxos.testing.moves``)."""

from __future__ import annotations

import os

import pytest

from paxos.testing.campaign import Outcome, Plan, run
from paxos.testing.faults import GROUPS

CHECKED = bool(os.environ.get("PAXOS_DEBUG"))  # this build is many times slower


def lives(plan: Plan, first: int, count: int) -> Outcome:
    total = Outcome()
    for seed in range(first, first + count):
        outcome = run(plan, seed)
        assert outcome.violation is None, f"seed {seed} of {plan}: {outcome.violation}"
        total.add(outcome)
    return total


def test_members_change_under_every_fault() -> None:
    """Judged at each step: who votes where, what they have promised and accepted; in the end: nothing acknowledged is lost."""
    count = 3 if CHECKED else 20
    total = lives(Plan(nodes=0, spares=3), 0, count)
    done = total.operations
    assert done["memberships"] > 15 * count  # (the first three, all that the checked build plays, have 51)
    assert done["answered"] > 50 * count
    for what in ("add", "remove", "set", "role", "replace", "address", "destroyed"):
        assert done[f"membership: {what}"] > count // 2, what
    if not CHECKED:
        assert min(total.faults[kind] for kind in ("kill", "power", "isolate", "wipe", "transfer")) > 0


@pytest.mark.parametrize(("nodes", "spares"), [(1, 3), (2, 2), (5, 5)])
def test_clusters_of_other_sizes(nodes: int, spares: int) -> None:
    """Of one, whose quorum is itself; of two, where each is needed; of so many that hardly one is left of the first nodes."""
    lives(Plan(nodes=nodes, spares=spares, seconds=15), 100, 1 if CHECKED else 6)


def test_changes_without_faults() -> None:
    total = lives(Plan(nodes=3, spares=3, kinds=(), seconds=15), 200, 2 if CHECKED else 10)
    assert total.operations["memberships"] > 40
    assert not total.faults


def test_changes_and_partitions() -> None:
    lives(
        Plan(nodes=0, spares=3, kinds=GROUPS["partition"] + GROUPS["election"], seconds=15), 300, 1 if CHECKED else 10
    )
