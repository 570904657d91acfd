"""An asyncio event loop that lives in simulated time: where a real loop would sleep, the simulated world goes on.

It is asyncio's own selector loop; only what it waits with is replaced. ``select(timeout)`` lets the world happen until a node's
Python side is wanted or the timeout has passed in simulated time, so nothing ever sleeps, and a run depends on nothing but
the seed of its world. There are no threads (``asyncio.to_thread`` runs its function at once) and no real descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

from paxos.errors import PaxosError
from paxos.testing._sim import World

__all__ = ["Blocking", "NotEnded", "NotSimulated", "SimLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SECOND: Final = 1_000_000_000
#: A turn of the loop in which nothing waits takes this long (ns): who polls with ``sleep(0)`` sees time go by, as in earnest.
TURN: Final = 1_000
#: Descriptors of simulated nodes begin here, beyond what an operating system gives.
FIRST_DESCRIPTOR: Final = 1 << 30


class NotEnded(AssertionError):
    """What was to be run has not ended within its simulated time."""


class NotSimulated(RuntimeError):
    """Something of the real world (a socket, a pipe, a thread) was asked of the simulated one."""


class Blocking(asyncio.Future[Any]):
    """What a function that would block its thread returns, in place of blocking: ``to_thread`` waits for it."""


class _Selector(selectors.BaseSelector):
    """Waits for simulated nodes, by letting their world go on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys: dict[int, selectors.SelectorKey] = {}
        self.ready: dict[int, None] = {}  # a set that keeps its order
        self.woken = False
        self.horizon = world.now
        self.look: Callable[[], None] = lambda: None
        self.open_for_self_pipe = True
        self.frozen = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if not isinstance(fileobj, int) or fileobj < FIRST_DESCRIPTOR:
            if not self.open_for_self_pipe:
                raise NotSimulated(
                    "a simulated event loop has no sockets, pipes or processes: nodes are those of the cluster "
                    "(cluster.node(1)), and whatever else a test needs stays in memory"
                )
            fileobj = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self.keys[fileobj] = key = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self.ready.pop(number, None)
        return self.keys.pop(number)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # Not as unregister() and register(): what is ready stays so.
        self.keys[fileobj] = key = self.keys[fileobj]._replace(events=events, data=data)
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.keys

    def close(self) -> None:
        self.keys.clear()
        self.ready.clear()

    def interrupted(self) -> bool:
        return self.woken or bool(self.ready)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.frozen:
            if timeout is None or timeout > 0:
                raise NotEnded("this simulation is over: no more time will pass in it")
            return []
        self.look()
        world = self.world
        if not self.ready:
            until = self.horizon
            if timeout is not None:
                until = min(until, world.now + max(TURN, math.ceil(timeout * SECOND)))
            self.woken = False
            late = not world.run(until, self.interrupted) and until >= self.horizon
            self.look()
            if late:
                raise NotEnded
        found = [(self.keys[number], selectors.EVENT_READ) for number in self.ready]
        self.ready.clear()
        return found


class SimLoop(asyncio.SelectorEventLoop):
    """The event loop of one simulated world. Single use: whoever made it closes it.

    Errors that nobody is there to see (in a callback, in a task that nobody waits for) are kept in ``failure``; but for
    those of this library, which are the ordinary lot of a proposal that nobody waits for.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sim = _Selector(world)
        self._numbers = itertools.count(FIRST_DESCRIPTOR)
        self.failure: BaseException | None = None
        super().__init__(self._sim)
        self._sim.open_for_self_pipe = False
        self.set_exception_handler(self._unseen)

    def time(self) -> float:
        """Simulated seconds."""
        return self._world.now / SECOND

    def on_turn(self, look: Callable[[], None]) -> None:
        """Calls ``look`` before and after each time that the world goes on; what it raises ends the run."""
        self._sim.look = look

    def run_for(self, work: asyncio.Future[Any], seconds: float) -> Any:
        """``run_until_complete`` with a bound in simulated seconds; :class:`NotEnded` says where the work hangs."""
        self._sim.horizon = self._world.now + int(seconds * SECOND)
        try:
            return self.run_until_complete(work)
        except NotEnded as error:
            if error.args:
                raise
            raise NotEnded(f"not ended within {seconds:g} simulated seconds{_place(work)}") from None

    def abandon(self) -> None:
        """Cancels all tasks and closes. What a task does about it must take no time: there is none any more."""
        self._sim.frozen = True
        # By their names, which count up: a set of tasks has an order of its own in each process.
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name()))
        for task in tasks:
            task.cancel()

        async def end() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.shutdown_asyncgens()

        with contextlib.suppress(NotEnded):
            self.run_until_complete(end())
        self.close()

    # -- descriptors of simulated nodes

    def descriptor(self) -> int:
        """A new descriptor, for ``add_reader``."""
        return next(self._numbers)

    def mark_ready(self, number: int) -> None:
        """The descriptor is readable: its reader is called in the next turn, once."""
        if number in self._sim.keys:
            self._sim.ready[number] = None

    def wake(self) -> None:
        """Called while the world goes on: something has been put into the loop, which is to look at it now."""
        self._sim.woken = True

    # -- what is different here

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs the function at once: a thread of its own would run in real time, and in an order that no seed decides."""
        future: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            if isinstance(result, Blocking):
                return result
            future.set_result(result)
        return future

    def _unseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            self.default_exception_handler(context)
        elif self.failure is None and not isinstance(error, PaxosError):
            self.failure = error


def _place(work: asyncio.Future[Any]) -> str:
    """Where a task is waiting, in words."""
    if not isinstance(work, asyncio.Task):
        return ""
    frame = next(iter(work.get_stack(limit=1)), None)
    if frame is None:
        return ""
    return f"; it waits in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"
