"""The same API for threads."""

from __future__ import annotations

import concurrent.futures
import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from paxos._engine import Engine
from paxos.config import NodeOptions, Options
from paxos.errors import NodeClosed, NotAvailable
from paxos.group import Group
from paxos.node import open_group
from paxos.statemachine import StateMachineFactory
from paxos.status import NodeStatus
from paxos.tokens import LIFETIME, Outcome, Session, Token, close_session, open_session, outcome, propose

__all__ = ["SyncNode"]


class SyncNode:
    """One node of a cluster, for threads: what :class:`paxos.Node` is for asyncio. All methods may be called on any thread.

    State machines are applied on one thread that the node owns.
    """

    def __init__(self, engine: Engine, group: Group) -> None:
        self._engine = engine
        self._group = group
        self._ready = threading.Condition()
        self._closing = threading.Lock()
        self._stop_read, self._stop_write = os.pipe()
        group.on_ready = self._wake_ready
        self._thread = threading.Thread(target=self._run, name=f"paxos-apply-{engine.status()['node_id']}", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        node_id: int,
        cluster: Mapping[int, str],
        state_machine: StateMachineFactory,
        bind: str | None = None,
        **options: Unpack[NodeOptions],
    ) -> Self:
        """Opens a node; parameters and errors as for :meth:`paxos.Node.open`."""
        return cls(*open_group(path, node_id, cluster, bind, state_machine, Options.make(**options)))

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._engine.fileno(), select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._stop_read in ready:
                return
            self._group.drain()

    def submit(
        self, value: bytes, *, timeout: float = 5.0, machine: int = 0, token: Token | None = None
    ) -> concurrent.futures.Future[Any]:
        """Proposes a value and returns at once, with a future of the result."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        if token is None:
            self._group.submit(future, value, timeout, machine)
        else:
            propose(self._group, future, value, token, timeout, machine)
        return future

    def propose(self, value: bytes, *, timeout: float = 5.0, machine: int = 0, token: Token | None = None) -> Any:
        """Proposes a value and waits for what ``apply`` returned here; see :meth:`paxos.Node.propose`."""
        self._not_here("propose()")
        return self.submit(value, timeout=timeout, machine=machine, token=token).result()

    def propose_many(self, values: Sequence[bytes], *, timeout: float = 5.0, machine: int = 0) -> list[Any]:
        """Proposes values in order and waits for their results; see :meth:`paxos.Node.propose_many`."""
        self._not_here("propose_many()")
        future: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        self._group.submit_many(future, values, timeout, machine)
        return future.result()

    def open_session(self, *, lifetime: int = LIFETIME, timeout: float = 5.0) -> Session:
        """Opens a session, for proposals under tokens; see :meth:`paxos.Node.open_session`."""
        self._not_here("open_session()")
        future: concurrent.futures.Future[Session] = concurrent.futures.Future()
        open_session(self._group, future, lifetime, timeout)
        return future.result()

    def outcome(self, token: Token, *, timeout: float = 5.0) -> Outcome:
        """Settles what became of a proposal, for good; see :meth:`paxos.Node.outcome`."""
        self._not_here("outcome()")
        future: concurrent.futures.Future[Outcome] = concurrent.futures.Future()
        outcome(self._group, future, token, timeout)
        return future.result()

    def close_session(self, session: Session | Token, *, timeout: float = 5.0) -> None:
        """Forgets a session and what came of its tokens; see :meth:`paxos.Node.close_session`."""
        self._not_here("close_session()")
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        close_session(self._group, future, session, timeout)
        future.result()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Returns when a master is known that has taken over. Raises NotAvailable after ``timeout`` seconds."""
        self._not_here("wait_ready()")
        end = None if timeout is None else time.monotonic() + timeout
        with self._ready:
            while not self._group.settled and self._group.error is None:
                if self._group.closed:
                    raise NodeClosed("the node has been closed")
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise NotAvailable(
                        f"no master within {timeout} s; are a majority of the nodes running, and do they reach one another?"
                    )
                self._ready.wait(left)

    def _not_here(self, what: str) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                f"{what} would wait for the thread that it was called on, which applies and settles (in apply() or in a "
                "future's callback); use submit(), or another thread"
            )

    def _wake_ready(self) -> None:
        with self._ready:
            self._ready.notify_all()

    def is_master(self) -> bool:
        """Whether this node takes itself for the master. For speed, never for safety: another may have taken over."""
        return self._group.settled and self._group.master_id == self.status().node_id

    def checkpoint(self) -> int:
        """Makes a checkpoint of what is applied now, and waits for it; see :meth:`paxos.Node.checkpoint`."""
        self._not_here("checkpoint()")
        if self._group.closed:
            raise NodeClosed("the node has been closed")
        self._engine.status()  # in a forked child it says that the node is not here
        future: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._group.checkpoint(future)
        return future.result()

    def status(self) -> NodeStatus:
        """What this node knows at the moment."""
        return self._group.status()

    def close(self) -> None:
        """Stops the node. Proposals under way end with OutcomeUnknown. May be called again."""
        self._not_here("close()")
        with self._closing:
            if self._stop_write < 0:
                return
            self._group.closed = True
            os.write(self._stop_write, b"x")
            self._thread.join()
            self._group.stop()
            self._engine.stop()
            self._group.close()
            os.close(self._stop_read)
            os.close(self._stop_write)
            self._stop_write = -1
        self._wake_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
