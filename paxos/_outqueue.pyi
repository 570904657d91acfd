"""What waits to be sent to one peer. For tests; the engine uses it from C."""

from typing import NoReturn, final

__test__: dict[str, str]

@final
class SendQueue:
    """Frames in order, heads copied, values shared. One thread at a time."""

    def push(self, head: bytes, value: bytes | None = None) -> None:
        """Appends a frame."""
    def front(self, pieces: int) -> bytes:
        """The bytes that one system call with up to so many pieces would be given."""
    def consume(self, size: int) -> None:
        """So many bytes are sent. ValueError: there are not so many."""
    @property
    def waiting(self) -> int:
        """Bytes that wait."""
    @property
    def memory(self) -> int:
        """Bytes held for heads and for the list of frames; values are not counted."""
    def __reduce__(self) -> NoReturn: ...
