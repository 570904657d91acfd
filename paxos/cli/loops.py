"""The choice of the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from paxos import ConfigError

T = TypeVar("T")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop called ``asyncio`` or ``uvloop``. Raises :class:`paxos.ConfigError` where it is missing."""
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ModuleNotFoundError:
        raise ConfigError("--loop uvloop needs uvloop: pip install uvloop, or leave the option out") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def cancel_on_sigterm() -> None:
    """Make SIGTERM cancel the task that calls this, as Ctrl-C does, so that it ends what it has started."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("to be called from a task")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def run(main: Coroutine[Any, Any, T], name: str = "asyncio") -> T:
    """Run ``main`` on a new loop of that kind."""
    try:
        factory = loop_factory(name)
    except ConfigError:
        main.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
