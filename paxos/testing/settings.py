"""What somebody wants of the simulations that he is about to run, beside what is written in them. Filled in by the pytest plugin.

A module of its own, so that the plugin need not load the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from paxos.testing.simulation import Report

__all__ = ["Settings", "current", "parse_keep"]


@dataclass(frozen=True, slots=True)
class Settings:
    """``None`` where nothing is wanted."""

    seed: int | None = None
    """Only this seed."""
    seeds: int | None = None
    """So many seeds."""
    keep: tuple[int, ...] | None = None
    """Only these faults of the seed's schedule, by number."""
    trace: str | None = None
    """File for the timeline of the run that failed, or of the only one."""
    test: str | None = None
    """How to name the test to pytest."""
    report: Callable[[str, Report], None] | None = None
    """Is told what happened in a simulation, by its name."""


current: Final[ContextVar[Settings]] = ContextVar("paxos.testing.settings", default=Settings())  # noqa: B039  # frozen


def parse_keep(text: str) -> tuple[int, ...]:
    """Numbers with commas between them, or "none". Raises ValueError."""
    if text.strip() == "none":
        return ()
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 0:
        raise ValueError(f"{min(numbers)} is below 0")
    return numbers
