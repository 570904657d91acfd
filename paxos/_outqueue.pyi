"""What waits to be sent to one peer. For tests; the engine uses it from C."""

from typing import NoReturn, final

__test__: dict[str, str]

@final
class SendQueue:
    """Small frames in order, large ones in pieces behind them; heads copied, values shared. One thread at a time."""

    def push(self, head: bytes, value: bytes | None = None) -> None:
        """Appends a frame. ValueError: a large one needs a head of 64 bytes."""
    def holds(self, head: bytes) -> bool:
        """Whether a large frame with this head and the very value of the last push waits."""
    def front(self, parts: int) -> bytes:
        """The bytes that one system call with up to so many parts would be given."""
    def consume(self, size: int) -> None:
        """So many bytes are sent. ValueError: there are not so many."""
    @property
    def waiting(self) -> int:
        """Bytes that wait."""
    @property
    def memory(self) -> int:
        """Bytes held for heads and for the list of small frames, and for large ones; values are not counted."""
    def __reduce__(self) -> NoReturn: ...
