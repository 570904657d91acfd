"""The same API for threads."""

from __future__ import annotations

import concurrent.futures
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from paxos._engine import Engine
from paxos.config import NodeOptions, Options
from paxos.errors import NodeClosed, NotAvailable
from paxos.group import Group
from paxos.mastership import Master, lease_not_chosen, not_taken_over
from paxos.membership import Do, Members, Operation, member_address, member_id
from paxos.node import open_group
from paxos.reads import Consistency
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
        self._iterating: set[threading.Event] = set()
        self._closing = threading.Lock()
        self._stop_read, self._stop_write = os.pipe()
        group.on_ready = self._wake_ready
        group.changes.when_removed(self._close_soon)
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

    def read(
        self,
        query: Any,
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        timeout: float = 5.0,
        machine: int = 0,
    ) -> Any:
        """Reads from the state machine of this node, on the thread that applies, and waits; see :meth:`paxos.Node.read`."""
        return self._read((query,), True, consistency, max_staleness, timeout, machine)

    def read_many(
        self,
        queries: Sequence[Any],
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        timeout: float = 5.0,
        machine: int = 0,
    ) -> list[Any]:
        """As :meth:`read`, for many queries at one moment; see :meth:`paxos.Node.read_many`."""
        found: list[Any] = self._read(queries, False, consistency, max_staleness, timeout, machine)
        return found

    def _read(
        self,
        queries: Sequence[Any],
        single: bool,
        consistency: Consistency,
        max_staleness: float | None,
        timeout: float,
        machine: int,
    ) -> Any:
        self._not_here("read()")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._group.reads.submit(
            future, queries, single=single, machine=machine, consistency=consistency, max_staleness=max_staleness,
            timeout=timeout,
        )  # fmt: skip
        return future.result()

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
        master = self._group.mastership.now
        return master is not None and master.node_id == self._group.node_id

    def master(self) -> Master | None:
        """The master, as far as this node knows, with the version of its mastership; None where it knows of none."""
        return self._group.mastership.now

    def on_master_change(self, call: Callable[[Master | None], object]) -> Callable[[], None]:
        """Has ``call`` called, on the thread that applies, whenever the master changes; see the same of :class:`paxos.Node`."""
        return self._group.mastership.watch(call)

    def transfer(self, node_id: int, timeout: float = 5.0) -> Master:
        """Hands the mastership over to another node, and waits until that has taken over; see :meth:`paxos.Node.transfer`."""
        return self._hand_over("transfer()", node_id, timeout)

    def resign(self, timeout: float = 5.0) -> Master:
        """Hands the mastership over to the node that suits best; see :meth:`paxos.Node.resign`."""
        return self._hand_over("resign()", 0, timeout)

    def _hand_over(self, what: str, node_id: int, timeout: float) -> Master:
        self._not_here(what)
        future: concurrent.futures.Future[Master] = concurrent.futures.Future()
        self._group.hand_over(node_id, future)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise not_taken_over(node_id, timeout) from None

    def set_lease(self, seconds: float, timeout: float = 5.0) -> None:
        """Has leases last so many seconds from now on; see :meth:`paxos.Node.set_lease`."""
        self._not_here("set_lease()")
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._group.set_lease(seconds, future)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise lease_not_chosen(timeout) from None

    def members(self) -> Members:
        """The members of the cluster, as this node knows them at the moment; see :meth:`paxos.Node.members`."""
        return self._group.changes.present()

    def on_members_change(self, call: Callable[[Members], object]) -> Callable[[], None]:
        """Has ``call`` called, on the thread that applies, whenever the members change; see the same of :class:`paxos.Node`."""
        return self._group.changes.watch(call)

    def memberships(self) -> Iterator[Members]:
        """The members now, and whenever they have changed; waits for that. Ends when the node is closed."""
        self._not_here("memberships()")
        changed = threading.Event()
        stop = self._group.changes.watch(lambda _: changed.set())
        self._iterating.add(changed)
        try:
            last: Members | None = None
            while not self._group.closed:
                changed.clear()
                if self._group.changes.members != last:
                    last = self._group.changes.members
                    yield last
                elif not self._group.closed:
                    changed.wait()
        finally:
            stop()
            self._iterating.discard(changed)

    def add(self, node_id: int, address: str, *, follower: bool = False, timeout: float = 10.0) -> Members:
        """Takes a node in, and waits until it is a member; see :meth:`paxos.Node.add`."""
        do = Do.ADD_FOLLOWER if follower else Do.ADD
        return self._change("add()", Operation(do, member_id(node_id), address=member_address(address)), timeout)

    def remove(self, node_id: int, *, force: bool = False, timeout: float = 10.0) -> Members:
        """Removes a member, and waits until it is gone; see :meth:`paxos.Node.remove`."""
        do = Do.REMOVE_FORCED if force else Do.REMOVE
        return self._change("remove()", Operation(do, member_id(node_id)), timeout)

    def replace(self, old: int, new: int, address: str, *, timeout: float = 10.0) -> Members:
        """Has ``new`` come in the place of ``old``, and waits until it is a learner; see :meth:`paxos.Node.replace`."""
        operation = Operation(Do.REPLACE, member_id(new), member_id(old), member_address(address))
        return self._change("replace()", operation, timeout)

    def promote(self, node_id: int, *, timeout: float = 10.0) -> Members:
        """Has a follower become a voter when it is level, and waits until it is a learner; see :meth:`paxos.Node.promote`."""
        return self._change("promote()", Operation(Do.PROMOTE, member_id(node_id)), timeout)

    def move(self, node_id: int, address: str, *, timeout: float = 10.0) -> Members:
        """Gives a member another address, and waits until that is chosen; see :meth:`paxos.Node.move`."""
        operation = Operation(Do.MOVE, member_id(node_id), address=member_address(address))
        return self._change("move()", operation, timeout)

    def _change(self, what: str, operation: Operation, timeout: float) -> Members:
        self._not_here(what)
        future: concurrent.futures.Future[Members] = concurrent.futures.Future()
        self._group.changes.wish(future, operation, timeout)
        return future.result()

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
        """Stops the node; a master hands over first. Proposals under way here end with OutcomeUnknown. May be called again."""
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
        for changed in list(self._iterating):
            changed.set()
        self._wake_ready()

    def _close_soon(self) -> None:
        """On the thread that applies, which close() waits for."""
        threading.Thread(target=self.close, name=f"paxos-close-{self._group.node_id}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
