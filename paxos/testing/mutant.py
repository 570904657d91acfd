"""A bug put in on purpose; which there are: mutants.py."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutant"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug."""

    name: str
    rule: str
    """Of docs/testing-rules, the design's section 5: the number, and what goes wrong."""
    file: str
    """Below ``paxos/``."""
    old: str
    new: str
    seeds: int = 300
    """How many seeds may pass until it is caught."""
    hunt: str = "cluster"
    """``cluster``: lives of whole clusters; ``leases``: those of them that have leases; ``idle``: idle clusters, whose
    master stands still, is cut off, and so on; ``log``: lives of a log on its disk;
    ``moves``: lives of clusters whose members change;
    ``explore SCOPE``: every order of events in a small scope of the bare core. (In a host that writes its log before it reads on,
    some bugs of the core cannot show.) ``test FILE::NAME``: one test below ``tests/``, for what takes an order of events that
    hardly any life of a cluster comes by."""
    more: tuple[tuple[str, str, str], ...] = ()
    """Further replacements: file, old, new. Where a rule has several defences, each of which would do, all are taken down."""
