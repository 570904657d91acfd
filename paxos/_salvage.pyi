"""What a damaged log still knows to be chosen."""

from typing import final

from paxos._folder import Folder
from paxos._recovery import Recovered

__test__: dict[str, str]

@final
class Salvage:
    """The instances ``first`` to ``end`` - 1 of a log that is set aside: what it had recorded as chosen before the damage. Holds
    the bytes of that log. One thread at a time."""

    def __init__(self) -> None: ...
    @property
    def first(self) -> int: ...
    @property
    def end(self) -> int: ...
    def value(self, instance: int) -> tuple[int, int, bytes]:
        """(kind, count, bytes) of an instance; IndexError where it is not there."""
    def judge(self, found: Recovered, below: int) -> None:
        """Goes through the legible records, once. No instance from ``below`` on is taken."""

def salvage(folder: Folder, below: int) -> Salvage:
    """What the log in ``folder``, which is damaged, knows to be chosen, below instance ``below``. The folder is open; nothing is
    changed."""
