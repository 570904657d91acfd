"""Who makes a group's checkpoints: a mirror in a child process where that can be, else the node itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from paxos._handle import Handle
from paxos.background import Background
from paxos.checkpoint import CheckpointStore
from paxos.manifest import Manifest
from paxos.mirror import Mirror, MirrorJob, obstacle
from paxos.sessions import SESSIONS
from paxos.snapshot import Cut, Writing
from paxos.statemachine import StateMachine, StateMachineFactory, has_files

__all__ = ["InlineMaker", "Made", "MirrorMaker", "make_maker"]

logger = logging.getLogger("paxos")

#: Told of a checkpoint that is durable and was read again, or of why there is none.
Made = Callable[[Manifest | None, BaseException | None], object]

WORK: Final = "snapshot"
#: Bytes of state up to which no process is started.
SMALL: Final = 1 << 20


class InlineMaker:
    """Has the node's own state machines give their state, between two instances. What follows is done in the background."""

    def __init__(
        self, store: CheckpointStore, background: Background, machines: Mapping[int, StateMachine], work: Path
    ) -> None:
        self._store = store
        self._background = background
        self._machines = machines
        self._work = work

    def __call__(self, cut: Cut, done: Made, *, newest: Manifest | None, here: bool = False) -> None:
        writing = Writing(self._store, cut, self._work)
        try:
            writing.take(self._machines)
        except BaseException:
            writing.abort()
            raise

        def finish() -> Manifest:
            with writing:
                manifest = writing.commit()
            return self._store.prove(manifest)

        self._background.run(finish, done)

    def break_off(self) -> None:
        """Nothing is under way in another process."""

    def close(self) -> None:
        """Nothing is under way that would have to be broken off."""


class MirrorMaker:
    """Has a child process make them, which is fed from the log.

    A state that was small the last time is written here and now: that takes less time than a process takes to start.
    """

    def __init__(
        self,
        store: CheckpointStore,
        background: Background,
        engine: Handle,
        directory: str,
        factory: StateMachineFactory,
        rate: float | None,
        inline: InlineMaker,
        *,
        sessions: bool = True,
    ) -> None:
        self._inline = inline
        self._sessions = sessions
        self._store = store
        self._background = background
        self._engine = engine
        self._directory = directory
        self._factory = factory
        self._rate = rate
        self._mirror: Mirror | None = None

    def __call__(self, cut: Cut, done: Made, *, newest: Manifest | None, here: bool = False) -> None:
        status = self._engine.status()
        small = newest is not None and sum(entry.plain for entry in newest.entries) <= SMALL
        # Without a checkpoint from which the log goes on a mirror has nothing to begin with.
        cut_off = (newest.instance if newest is not None else 0) < status["first_kept"]
        if here or small or cut_off:
            self._inline(cut, done, newest=newest)
            return
        job = MirrorJob(
            self._directory, status["node_id"], status["incarnation"], cut, self._factory, self._rate, sessions=self._sessions
        )  # fmt: skip
        mirror = self._mirror = Mirror(job)

        self._background.run(lambda: self._store.prove(mirror.run()), done)

    def close(self) -> None:
        """No more of it."""
        self.break_off()

    def break_off(self) -> None:
        """Ends the child, if there is one."""
        if self._mirror is not None:
            self._mirror.cancel()


def make_maker(
    store: CheckpointStore,
    background: Background,
    engine: Handle,
    directory: str,
    factory: StateMachineFactory,
    machines: Mapping[int, StateMachine],
    *,
    mirror: bool,
    rate: float | None,
) -> InlineMaker | MirrorMaker:
    """A mirror, if it is wanted and can be had: for state machines in memory that another process can make."""
    inline = InlineMaker(store, background, machines, Path(directory, WORK))
    if not mirror or any(has_files(machine) or machine.last_applied() >= 0 for machine in machines.values()):
        return inline
    if (why := obstacle(factory)) is not None:
        logger.warning(
            "no mirror can be had, so checkpoints are made in this process, and nothing is applied meanwhile: %s", why
        )
        return inline
    return MirrorMaker(store, background, engine, directory, factory, rate, inline, sessions=SESSIONS in machines)
