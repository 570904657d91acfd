"""Large frames put together from their pieces. For tests; the engine uses it from C."""

from typing import NoReturn, final

__test__: dict[str, str]

@final
class Assembly:
    """The transfers of one connection, one after the other. One thread at a time."""

    def __init__(self, max_frame: int) -> None: ...
    def take(self, frame: bytes) -> bytes | None:
        """The whole frame, once its last piece is there. ValueError: the connection would be closed for it."""
    @property
    def memory(self) -> int:
        """Bytes held."""
    def __reduce__(self) -> NoReturn: ...
