"""Reads the chosen values out of a log that another process writes."""

import os
from types import TracebackType
from typing import Self, final

@final
class LogReader:
    """The values of instances ``first`` to ``end - 1`` from the log of the data directory ``directory``, which is in use.

    :param node: whose log it is. :param incarnation: 32 hexadecimal digits, as in ``Engine.status()``.
    :param first: the first instance wanted. :param chain: the chain checksum before it (0 before instance 0).
    :param end: one past the last instance wanted. :param end_chain: the chain checksum there, as the node knows it.
    :raises StorageError: the log cannot be read, is not that node's, no longer holds ``first``, or is damaged.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        node: int,
        incarnation: str,
        *,
        first: int,
        chain: int,
        end: int,
        end_chain: int,
        group: int = 0,
    ) -> None: ...
    @property
    def directory(self) -> str: ...
    @property
    def chosen(self) -> int:
        """How far the walk has come: everything below has been found."""
    @property
    def chain(self) -> int:
        """The chain checksum at ``chosen``."""
    @property
    def done(self) -> bool:
        """Whether read() has given out everything below ``end``, and the checksum there is the right one."""
    @property
    def place(self) -> tuple[int, int]:
        """(segment, offset) of the next write."""
    def read(self) -> list[tuple[int, list[tuple[int, list[bytes]]]]]:
        """The next instances: (instance, [(state machine, values), …]), in order and without a gap.

        Empty where there is nothing new: ask again later, unless ``done``. Raises StorageError as above.
        """
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
