"""The files of one flat directory, for Python: what checkpoints are written with, on a real disk and on a simulated one."""

from types import TracebackType
from typing import Final, final

from typing_extensions import Buffer

__test__: dict[str, str]

LOG_ENDINGS: Final[tuple[str, ...]]
"""What names must not end in: on a simulated disk these files are the log's."""

@final
class Files:
    """The files of a flat directory; made by ``Folder.files()``, and closed with the folder.

    A name has at most 47 bytes, no slash, and none of :data:`LOG_ENDINGS`. Everything raises ``OSError`` with errno and path. The
    GIL is released in every call to the disk. Several threads may use it.
    """

    path: str
    def names(self) -> list[str]:
        """Those of :data:`LOG_ENDINGS` are left out."""
    def create(self, name: str) -> File:
        """A new file, open; ``FileExistsError`` where it is there. It survives a crash when it and the directory are synced."""
    def open(self, name: str, *, write: bool = False) -> File:
        """A file that is there, for reading, or for both."""
    def rename(self, old: str, new: str) -> None:
        """Takes the place of ``new`` where that is there."""
    def remove(self, name: str) -> None: ...
    def sync_directory(self) -> None:
        """Makes durable what was created, renamed and removed."""
    def close(self) -> None:
        """Closes it, and every file of it that is open. A call that is under way in another thread ends first."""

@final
class File:
    """An open file. For one thread at a time, but for close()."""

    name: str
    @property
    def size(self) -> int: ...
    def append(self, data: Buffer) -> None:
        """Writes behind the end. What failed in the midst is written over by the next append()."""
    def write(self, offset: int, data: Buffer) -> None:
        """Writes all of it. What was never written, below it, reads as zeros."""
    def read(self, offset: int, size: int) -> bytes:
        """That many bytes; ``OSError`` with EBADMSG where the file is too short for them."""
    def sync(self) -> None:
        """Makes what was written durable. After a failure nothing that was written since the last success may be trusted."""
    def close(self) -> None:
        """May be called again. What was not synced is not durable."""
    def __enter__(self) -> File: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
