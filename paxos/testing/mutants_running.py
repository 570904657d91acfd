"""Bugs put into what looks after a running node: the scrub, and the comparison with the others."""

from __future__ import annotations

from typing import Final

from paxos.testing.mutant import Mutant

__all__ = ["RUNNING"]

RUNNING: Final[tuple[Mutant, ...]] = (
    Mutant(
        "scrub-looks-away",
        "S18: what has rotted under a running node is read, and nothing follows from it",
        "scrub.py",
        "            self._damaged_segment(error)\n",
        "            pass\n",
    ),
    Mutant(
        "damaged-segment-kept",
        "S18: the log stays for others, though a segment of it is damaged",
        "_prune.pyx",
        "    if not _over_budget(h) and not _damaged(h):\n",
        "    if not _over_budget(h):\n",
        1500,
    ),
    Mutant(
        "compared-at-another-instance",
        "19: the chain checksums of two different instances are compared",
        "reconcile.py",
        "        self._want(self._instance, lambda",
        "        self._want(max(self._instance - 1, 0), lambda",
    ),
)
