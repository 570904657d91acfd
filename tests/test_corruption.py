"""A node whose files were damaged: it gets well or refuses; it never serves a wrong value, and never hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from paxos.testing import corruption

LIMIT = 240


def played(nodes: int) -> dict[str, Any]:
    """A sample of the campaign, in a process that nothing else runs in: it forks."""
    command = [sys.executable, "-m", "paxos.testing.corruption", "--nodes", str(nodes), "--json"]
    command += ["--every", "150", "--scan", "61", "--jobs", "2"]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=LIMIT, check=False
    )
    report: dict[str, Any] = json.loads(run.stdout)
    assert report["wrong"] == []
    assert run.returncode == 0
    return report


def verdicts(report: dict[str, Any], file: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in report["counts"]:
        if row["file"] == file:
            total.update({name: count for name, count in row.items() if name not in ("file", "what")})
    return total


def test_with_others_it_gets_well() -> None:
    report = played(3)
    # All that can stand in a log did.
    assert set(report["types"]) == {
        "identity",
        "formation",
        "formed",
        "promise",
        "accept",
        "learn",
        "watermark",
        "base",
    }
    assert {row["file"] for row in report["counts"]} == {"segment", "spare", "manifest", "checkpoint data"}
    assert {row["what"] for row in report["counts"]} > set(report["types"])
    assert set(verdicts(report, "segment")) == {corruption.ASIDE, corruption.ANEW, corruption.CUT}
    assert set(verdicts(report, "spare")) == {corruption.UNTOUCHED}
    assert set(verdicts(report, "checkpoint data")) == {corruption.FETCHED, corruption.OLDER}
    assert sum(report["scanned"].values()) > 2000


def test_alone_it_refuses_with_a_message() -> None:
    report = played(1)
    assert set(verdicts(report, "segment")) == {corruption.REFUSED, corruption.CUT}
    assert set(verdicts(report, "checkpoint data")) == {corruption.REFUSED, corruption.OLDER}
    assert "restore a backup" in report["messages"][corruption.REFUSED]


def test_recovery_that_swallows_damage_is_found() -> None:
    """The judge of the scan: told of a record more than there is, it must say so."""
    scene = corruption.Scene(1)
    try:
        scene.records.append(scene.records[-1])
        # The first byte of each segment, and its last, which is behind the end.
        with pytest.raises(AssertionError, match="other records than were written"):
            corruption.scan(scene, corruption.SEGMENT - 1)
    finally:
        scene.cluster.close()
