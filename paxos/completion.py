"""What a call is settled with: the future that its caller waits for."""

from __future__ import annotations

import contextlib
from concurrent.futures import InvalidStateError
from typing import Any, Protocol

__all__ = ["Completion", "complete", "complete_with"]


class Completion(Protocol):
    """An asyncio or a concurrent future."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


def complete(completion: Completion, result: object) -> None:
    """Settles it, unless its owner has cancelled it."""
    if not completion.done():
        # Its owner may cancel it in another thread just now: then he does not want to know.
        with contextlib.suppress(InvalidStateError):
            completion.set_result(result)


def complete_with(completion: Completion, error: BaseException) -> None:
    """Settles it with an error, unless its owner has cancelled it."""
    if not completion.done():
        with contextlib.suppress(InvalidStateError):
            completion.set_exception(error)
