"""Tools that try to break a replicated state machine: simulation, exploration, and the judges of both.

For tests of your own state machine: :func:`simulate`, :class:`SimCluster`, :func:`check_determinism`. All names are loaded
when they are first asked for: the simulator is of no use to who only runs a node.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paxos.testing.cluster import Diverged, Violation
    from paxos.testing.determinism import Nondeterministic, UnsupportedResult, check_determinism
    from paxos.testing.faults import Fault
    from paxos.testing.loop import NotEnded, NotSimulated, SimLoop
    from paxos.testing.simcluster import SimCluster
    from paxos.testing.simulation import NothingChosen, Report, SimulationFailed, simulate

__all__ = [
    "Diverged",
    "Fault",
    "Nondeterministic",
    "NotEnded",
    "NotSimulated",
    "NothingChosen",
    "Report",
    "SimCluster",
    "SimLoop",
    "SimulationFailed",
    "UnsupportedResult",
    "Violation",
    "check_determinism",
    "simulate",
]

_HOMES = {
    "cluster": ("Diverged", "Violation"),
    "determinism": ("Nondeterministic", "UnsupportedResult", "check_determinism"),
    "faults": ("Fault",),
    "loop": ("NotEnded", "NotSimulated", "SimLoop"),
    "simcluster": ("SimCluster",),
    "simulation": ("NothingChosen", "Report", "SimulationFailed", "simulate"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
