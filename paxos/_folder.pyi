"""The data directory of a node, as the log opens it."""

from collections.abc import Sequence
from typing import final

from typing_extensions import Buffer, disjoint_base

from paxos._files import Files

__test__: dict[str, str]

def segment_number(name: str) -> int | None:
    """The number of the segment that lies in a file of this name, or None: it is none."""

def damage(path: str, offset: int, why: str) -> str:
    """What is said of data that was acknowledged and does not verify."""

@disjoint_base
class Folder:
    """The data directory ``path``. ``open()`` first; ``close()`` gives the lock up. Names are those of files in ``log/``."""

    path: str
    log: str
    threads: bool
    def __init__(self, path: str) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def where(self, name: str) -> str: ...
    def names(self) -> list[str]: ...
    def segments(self) -> list[int]:
        """The numbers of the segments that are there, in order."""
    def size(self, name: str) -> int: ...
    def view(self, name: str) -> Buffer: ...
    def views(self, names: Sequence[str]) -> list[Buffer]: ...
    def settle(self, name: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def quarantine(self, why: str) -> str:
        """Sets the whole log aside, durably, with a note that says why. Where it is now."""
    def lived(self) -> bool:
        """Whether there is more here than a log: one that was set aside, or checkpoints."""
    def files(self) -> Files:
        """The files in ``checkpoints/``; close() closes them, and what is open of them. Needs no open(), and so no lock: a child
        process that writes a checkpoint for the holder of the lock has a Folder of its own."""
    def entropy(self, size: int) -> bytes: ...

@final
class StoppedFolder(Folder):
    """The data directory of a stopped node, to be looked at. ``open()`` makes nothing and takes part in the lock, so that no node
    starts here meanwhile; DirectoryInUse where one runs, NotADirectoryError where there is no ``log/``. What would change
    something is a PermissionError, and files() a FileNotFoundError where there are no checkpoints.

    ``log``: where the segments lie, if they are those of a log that was set aside.
    """

    def __init__(self, path: str, log: str | None = None) -> None: ...
