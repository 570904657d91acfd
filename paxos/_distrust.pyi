"""A mark that a node leaves for its next start: what it has in its log was not what the cluster has chosen."""

from typing import Final

from paxos._files import Files

__test__: dict[str, str]

MARK: Final[str]
NEW: Final[str]
ASIDE: Final[str]

def mark(files: Files, first: int, why: str) -> None:
    """Leaves the mark, durably; one that is there is replaced."""

def distrusted(files: Files) -> tuple[int, str] | None:
    """(first instance that is wrong, why), or None where there is no mark."""

def set_aside(files: Files) -> None:
    """The log has been set aside. Does so with the checkpoints that hold an instance which is wrong, and takes the mark away."""
