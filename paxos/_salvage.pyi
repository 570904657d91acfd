"""What a damaged log still knows to be chosen."""

from collections.abc import Iterable
from typing import final

from paxos._folder import Folder

__test__: dict[str, str]

@final
class Salvage:
    """What a log that was set aside had recorded as chosen: instances ``first`` to ``end`` - 1.

    Its values stay on the disk. One thread at a time."""

    why: str
    """Why there is nothing; "" where there is something."""

    def __new__(cls, folder: Folder, segments: Iterable[int], node: int, below: int) -> Salvage:
        """Goes through what ``folder``, which is open, has just put into quarantine: segments of these numbers, in order, of a
        log of ``node``. No instance from ``below`` on is taken."""
    @property
    def first(self) -> int:
        """The first instance that is there."""
    @property
    def end(self) -> int:
        """One behind the last; ``first`` where there is none."""
    def value(self, instance: int) -> tuple[int, int, bytes] | None:
        """(kind, count, bytes) of an instance, read from the disk; None where that is no longer possible. IndexError where the
        instance is not there."""
