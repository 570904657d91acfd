"""Breadth-first search over all states of three real cores in a small scope; ``paxos.testing.explore`` is the door to it."""

from collections.abc import Sequence
from typing import Self, TypeAlias, final

_Step: TypeAlias = tuple[int, str, int, bytes | None, list[tuple[int, bytes]], dict[int, bytes], bool]

WRONGS: dict[int, str | None]

@final
class Explorer:
    """One search, in portions."""

    def __new__(
        cls,
        *,
        window: int,
        instances: int,
        carried: int,
        elections: Sequence[int],
        values: Sequence[int],
        expiries: Sequence[int],
        crashes: Sequence[int],
        all_crashes: int,
        voters: int,
        alpha: int,
        changes: Sequence[Sequence[int]],
        losses: Sequence[int],
        tables: bool,
        plain: bool = False,
    ) -> Self: ...
    def run(self, states: int) -> bool:
        """Expands so many states. True: all are expanded, or something is wrong."""

    def counts(self) -> dict[str, int]: ...
    def wrong(self) -> str | None:
        """What is wrong, or None."""

    def schedule(self) -> list[_Step]:
        """The shortest way to what is wrong."""
