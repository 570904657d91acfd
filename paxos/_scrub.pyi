"""Reads a segment of a log that is in use again, from the disk, and verifies every write in it."""

from typing import final

from paxos._folder import Folder

__test__: dict[str, str]

@final
class SegmentScrub:
    """One segment of the log in ``folder``, of ``size`` bytes; ``node``, ``incarnation``: the log's. One thread at a time."""

    def __init__(self, folder: Folder, number: int, size: int, node: int, incarnation: tuple[int, int]) -> None: ...
    @property
    def offset(self) -> int:
        """Up to where it has been verified."""
    @property
    def ended(self) -> bool:
        """Whether the write that ends the segment has been reached."""
    def step(self, end: int, size: int) -> int:
        """Verifies about ``size`` more bytes, and nothing beyond offset ``end``, up to which it must be durable; how many were
        read. DamagedLog names file and offset. It is no damage if the segment is no longer part of the log."""
    def close(self) -> None:
        """Lets go of the file. May be called again."""
