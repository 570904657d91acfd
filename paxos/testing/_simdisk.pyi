"""A disk in memory that keeps only what was synced, and the data directory on it."""

from typing import final

from typing_extensions import disjoint_base

from paxos._folder import Folder

__test__: dict[str, str]

@disjoint_base
class SimFolder(Folder):
    """The data directory of a simulated node; made by the simulator, or by :meth:`MemoryDisk.folder`."""

    def replace(self, name: str, data: bytes | None, *, damaged: bool = False) -> None:
        """Puts other bytes, all durable, into a file that nobody has open; None: the file is gone. The judge counts what
        is written to this disk from then on for nothing, unless the bytes were only ``damaged``: then none of them must be
        believed."""

@final
class MemoryDisk:
    """A disk of its own. Everything that it decides follows from ``seed``; ``direct``: whether it can do O_DIRECT."""

    def __new__(cls, seed: int, *, direct: bool = True) -> MemoryDisk: ...
    def folder(self) -> SimFolder:
        """Its data directory, for a LogStore: one at a time."""
    def die(self, within: int) -> None:
        """The process that uses it ends in the call that comes after ``within`` others that change something; -1: in none."""
    @property
    def dead(self) -> bool:
        """Whether the process has ended in a call. What it does from there on fails."""
    def ended(self, power: bool) -> None:
        """The process is gone, and with ``power`` all that was not synced may go. Ends :attr:`dead`."""
    def fail(self, directory: bool = False, *, read: bool = False) -> None:
        """The next sync, or write that is its own sync, fails; or the next sync of the directory; or the next read."""
    def fill(self, full: bool, room: int = 0) -> None:
        """Files may grow by ``room`` bytes together and no more, or may again."""
    def flip(self, segment: int, offset: int, which: int) -> bool:
        """Flips a bit. False: there is no such byte."""
