"""The asyncio API: a node of a replicated service, embedded in the service's own process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, Unpack

from paxos._engine import Engine
from paxos.alarm import Alarm, Alarms
from paxos.background import Threads
from paxos.checkpoint import CheckpointStore
from paxos.config import NodeOptions, Options, parse_address, parse_cluster
from paxos.errors import NodeClosed, NotAvailable, PaxosError
from paxos.group import Group
from paxos.keeper import CheckpointPolicy, Keeper
from paxos.making import WORK, make_maker
from paxos.mastership import Master, lease_not_chosen, not_taken_over
from paxos.membership import Do, Members, Operation, address_text, member_address, member_id
from paxos.mirror import refuse_in_child
from paxos.reads import Consistency
from paxos.reconcile import Reconcile
from paxos.results import Results
from paxos.scrub import Scrub
from paxos.statemachine import StateMachineFactory
from paxos.status import NodeStatus
from paxos.tokens import LIFETIME, Outcome, Session, Token, close_session, open_session, outcome, propose

__all__ = ["Node", "open_group"]

T = TypeVar("T")


def open_group(
    path: str | os.PathLike[str],
    node_id: int,
    cluster: Mapping[int, str],
    bind: str | None,
    state_machine: StateMachineFactory,
    options: Options,
    call: Callable[[Callable[[Alarm], None], Alarm], object] | None = None,
) -> tuple[Engine, Group]:
    """Opens and recovers the data directory, makes the state machines, starts the engine. Blocks; runs in any thread.
    ``call``: who calls ``on_alarm``, see :class:`Alarms`."""
    refuse_in_child()
    book = parse_cluster(node_id, cluster)
    election_min = int(options.election_timeout * 1e9)
    engine = Engine(
        os.fspath(path), node_id, book, bind=parse_address(bind) if bind is not None else None,
        window=options.window, batch_bytes=options.batch_bytes, batch_values=options.batch_values,
        heartbeat_ns=int(options.heartbeat * 1e9), election_min_ns=election_min, election_max_ns=2 * election_min,
        stuck_limit_ns=int(options.stuck_limit * 1e9), max_value=options.max_value, segment_size=options.segment_bytes,
        direct=options.direct_io, max_pending=options.max_pending, max_pending_bytes=options.max_pending_bytes,
        log_budget=options.log_budget, log_hold=options.log_hold, quarantine=options.quarantine,
        priority=int(options.priority), follow=tuple(options.follow), max_wait_ns=int(options.max_wait * 1e9),
    )  # fmt: skip
    background = Threads(engine.poke)
    try:
        alarms = Alarms(node_id, options.on_alarm, call)
        group = Group(engine, state_machine, alarms, max_value=options.max_value, batch_bytes=options.batch_bytes,
                      batch_values=options.batch_values, sessions=options.sessions,
                      addresses={node: address_text(*address) for node, address in book.items()},
                      close_removed=options.when_removed == "close")  # fmt: skip
        store = CheckpointStore(engine.files())
        policy = CheckpointPolicy(
            budget=options.log_budget, instances=options.checkpoint_instances, seconds=options.checkpoint_seconds,
            kept=options.checkpoints_kept, fetch_rate=options.fetch_rate,
        )  # fmt: skip
        directory = os.path.abspath(path)
        maker = make_maker(
            store, background, engine, directory, state_machine, group.machines,
            mirror=options.mirror, rate=options.checkpoint_rate or None,
        )  # fmt: skip
        keeper = Keeper(engine, store, background, group.machines, policy, maker, Path(directory, WORK), alarms)
        scrub = Scrub(engine, store, background, keeper, options.scrub_rate, alarms)
        results = Results(engine, group.machines) if options.check_results else None
        reconcile = Reconcile(engine, background, alarms, results=results, heal=options.heal_divergence)
        group.start(keeper, scrub, reconcile, background, engine.start)
    except BaseException:
        background.close()
        engine.stop()
        raise
    return engine, group


class _Process(Protocol):
    """What runs a node: its engine, or a simulator's process."""

    def fileno(self) -> int: ...
    def stop(self) -> object: ...
    def status(self) -> Any: ...


class Node:
    """One node of a cluster, for asyncio. Make it with :meth:`open`; close it with :meth:`close` or ``async with``.

    All methods are to be called on the thread of the event loop that opened it. The engine behind it runs on a thread of its own
    that needs no GIL: votes, heartbeats and log writes go on while Python is busy.
    """

    def __init__(self, engine: _Process, group: Group, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._group = group
        self._loop = loop
        self._ready: list[asyncio.Future[None]] = []
        self._iterating: set[asyncio.Event] = set()
        self._closing: asyncio.Task[None] | None = None
        group.on_ready = self._wake_ready
        group.changes.when_removed(self._begin_to_close)
        loop.add_reader(engine.fileno(), group.drain)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        node_id: int,
        cluster: Mapping[int, str],
        state_machine: StateMachineFactory,
        bind: str | None = None,
        **options: Unpack[NodeOptions],
    ) -> Self:
        """Opens a node: recovers its data directory (made if it is not there), listens, and joins the cluster.

        Returns as soon as the node runs; whether the cluster can be reached shows in :meth:`wait_ready`.

        :param path: data directory of this node alone.
        :param node_id: this node's id, one of those in ``cluster``.
        :param cluster: id to ``HOST:PORT`` of all nodes. It counts when the cluster is formed;
            afterwards the log's membership does, also for addresses that it has. Names are resolved at each attempt to connect.
        :param state_machine: a :class:`StateMachine` class or factory, or ``{id: factory}`` for several in one group.
        :param bind: ``HOST:PORT`` to listen on, where it is not this node's address in ``cluster``.
        :param options: see :class:`paxos.Options`.
        :raises ConfigError: an option, address or port cannot work.
        :raises StorageError: the directory is in use, another node's, or damaged.
        """
        loop = asyncio.get_running_loop()
        checked = Options.make(**options)
        lock = threading.Lock()
        abandoned = False
        made: list[Engine] = []

        def opening() -> tuple[Engine, Group]:
            engine, group = open_group(path, node_id, cluster, bind, state_machine, checked, loop.call_soon_threadsafe)
            with lock:
                made.append(engine)
                if abandoned:
                    engine.stop()
            return engine, group

        try:
            engine, group = await asyncio.to_thread(opening)
        except asyncio.CancelledError:
            # The thread goes on: it must not leave a node behind that runs, holds the directory, and belongs to nobody.
            with lock:
                abandoned = True
                for engine in made:
                    engine.stop()
            raise
        try:
            return cls(engine, group, loop)
        except BaseException:
            engine.stop()  # a loop that cannot watch a descriptor, say: nothing of the node may stay behind
            raise

    def propose(
        self, value: bytes, *, timeout: float = 5.0, machine: int = 0, token: Token | None = None
    ) -> asyncio.Future[Any]:
        """Proposes a value; await the returned future for what ``apply`` returned on this node.

        When it returns, the value is on the disks of a majority and applied here. The future ends with

        * :exc:`NotAvailable`, :exc:`Overloaded`: certainly not executed, never will be;
        * :exc:`OutcomeUnknown`: it may have been chosen, or may yet be.

        Cancelling the future does not take the proposal back.

        With a token it is applied once, however often and wherever it is proposed. Each time the future ends with the result of
        that once, which must be ``bytes``; or with

        * :exc:`SessionExpired`: not executed now, nor later; what came of earlier attempts nobody can tell;
        * :exc:`Fenced`: never executed, for :meth:`outcome` was asked before;
        * :exc:`ResultNotKept`: executed once, but the result is not there.

        :param timeout: seconds after which it ends with ``NotAvailable`` or ``OutcomeUnknown``.
        :param machine: id of the state machine, where the group has several.
        :param token: of :meth:`Session.token`; the same for each attempt, and each value its own.
        :raises ValueTooLarge: above ``max_value``. :raises Overloaded: too many are under way.
        :raises DiskFull: this node's disk is. :raises NodeClosed: closed.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if token is None:
            self._group.submit(future, value, timeout, machine)
        else:
            propose(self._group, future, value, token, timeout, machine)
        return future

    def propose_many(
        self, values: Sequence[bytes], *, timeout: float = 5.0, machine: int = 0
    ) -> asyncio.Future[list[Any]]:
        """Proposes values in order, over one or more instances; await the returned future for one result a value.

        Other proposals may come between two instances. Where not all of the values can be settled it ends with
        :exc:`PartialOutcome`, whose ``outcomes`` says for each value what is known.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._group.submit_many(future, values, timeout, machine)
        return future

    async def open_session(self, *, lifetime: int = LIFETIME, timeout: float = 5.0) -> Session:
        """Opens a session, for proposals under tokens. It is the cluster's: its tokens may be used at any node.

        :param lifetime: instances after which it expires if nobody has used it. Where there are too many sessions (16384), or
            tokens (131072), the one that was not used for longest expires earlier.
        :raises OutcomeUnknown, NotAvailable: open another one; if this one has been opened, it expires.
        :raises ConfigError: the node has no sessions (option ``sessions``).
        """
        future: asyncio.Future[Session] = self._loop.create_future()
        open_session(self._group, future, lifetime, timeout)
        return await future

    async def outcome(self, token: Token, *, timeout: float = 5.0) -> Outcome:
        """Settles what became of a proposal, for good: it was applied, with this result, or it never will be.

        To know that, a fence is chosen: of the proposal and the fence the first in the log counts. So ask only when you want to
        give up an attempt; :meth:`propose` with the same token asks as well, and brings it about.

        :raises SessionExpired: nobody can tell any more. No copy that is still under way will be executed.
        :raises OutcomeUnknown, NotAvailable: it is not settled yet; ask again, at any node.
        """
        future: asyncio.Future[Outcome] = self._loop.create_future()
        outcome(self._group, future, token, timeout)
        return await future

    async def close_session(self, session: Session | Token, *, timeout: float = 5.0) -> None:
        """Forgets a session (or that of a token) and what came of its tokens; what is still under way under them is void. Nothing
        where it has expired. To leave it to expire is all right, too."""
        future: asyncio.Future[None] = self._loop.create_future()
        close_session(self._group, future, session, timeout)
        await future

    def read(
        self,
        query: Any,
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        timeout: float = 5.0,
        machine: int = 0,
    ) -> asyncio.Future[Any]:
        """Reads from the state machine of this node; await the returned future for what its ``read(query)`` returned.

        Nothing is written to a log. ``consistency`` says what the answer is sure to show:

        * ``"linearizable"``: every value that anybody, anywhere, knew to be acknowledged when this was called. The master
          confirms with one round of messages to a majority that it is the master still, for all reads together that were waiting;
          any other node asks it how far it must have applied.
        * ``"lease"``: the same, and on a master that holds the lease (:meth:`set_lease`) without any message; elsewhere, and
          where there is none, as ``"linearizable"``. It stands on clocks that run alike.
        * ``"stale"``: some state that the cluster was in, at once, from what is here, even if nobody else can be reached. With
          ``max_staleness`` not older than so many seconds: where that is not known, it is confirmed as above.

        The future ends with :exc:`NotAvailable` where nobody has confirmed the read in time, or this node has not caught up; and
        with whatever ``read`` raised.

        :param query: anything that the state machine's ``read`` understands; it does not leave this process.
        :param timeout: seconds.
        :param machine: id of the state machine, where the group has several.
        :raises ConfigError: an unknown consistency. :raises Overloaded: too many reads are waiting.
        :raises NotAvailable: the state machine of this node has failed. :raises NodeClosed: closed.
        """
        return self._read((query,), True, consistency, max_staleness, timeout, machine)

    def read_many(
        self,
        queries: Sequence[Any],
        *,
        consistency: Consistency = "linearizable",
        max_staleness: float | None = None,
        timeout: float = 5.0,
        machine: int = 0,
    ) -> asyncio.Future[list[Any]]:
        """As :meth:`read`, for many queries at one moment: one answer for each, all from the same state."""
        return self._read(queries, False, consistency, max_staleness, timeout, machine)

    def _read(
        self,
        queries: Sequence[Any],
        single: bool,
        consistency: Consistency,
        max_staleness: float | None,
        timeout: float,
        machine: int,
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._group.reads.submit(
            future, queries, single=single, machine=machine, consistency=consistency, max_staleness=max_staleness,
            timeout=timeout, at_once=not self._group.applying,
        )  # fmt: skip
        return future

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Returns when a master is known that has taken over. Raises NotAvailable after ``timeout`` seconds."""
        if self._group.closed:
            raise NodeClosed("the node has been closed")
        if self._group.settled or self._group.error is not None:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._ready.append(future)
        try:
            await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise NotAvailable(
                f"no master within {timeout} s; are a majority of the nodes running, and do they reach one another?"
            ) from None

    def _wake_ready(self) -> None:
        ready, self._ready = self._ready, []
        for future in ready:
            if not future.done():
                future.set_result(None)

    def is_master(self) -> bool:
        """Whether this node takes itself for the master. For speed, never for safety: another may have taken over."""
        master = self._group.mastership.now
        return master is not None and master.node_id == self._group.node_id

    def master(self) -> Master | None:
        """The master, as far as this node knows, with the version of its mastership; None where it knows of none."""
        return self._group.mastership.now

    def on_master_change(self, call: Callable[[Master | None], object]) -> Callable[[], None]:
        """Has ``call`` called with the new master, or None, whenever that changes here; what is returned ends it.

        It is called on the thread of the event loop, and must not block. What it raises is logged.
        """
        return self._group.mastership.watch(call)

    def masters(self) -> AsyncIterator[Master | None]:
        """The master now, and each later one, as this node gets to know it. Ends when the node is closed.

        Where they change faster than they are taken, some are left out, never the last one.
        """
        return self._each(self._group.mastership.watch, lambda: self._group.mastership.now)

    async def transfer(self, node_id: int, timeout: float = 5.0) -> Master:
        """Hands the mastership over to another node, and returns when that has taken over.

        To be called on the master. It finishes what is in flight and hands over at once, without an election timeout; proposals
        that come meanwhile wait for the new master.

        :raises NotAvailable: this node is not the master; or that one has not taken over in time, and everything is as it was.
        """
        return await self._hand_over(node_id, timeout)

    async def resign(self, timeout: float = 5.0) -> Master:
        """Hands the mastership over to the node that suits best (by priority, then by what it knows); see :meth:`transfer`."""
        return await self._hand_over(0, timeout)

    async def _hand_over(self, node_id: int, timeout: float) -> Master:
        future: asyncio.Future[Master] = self._loop.create_future()
        self._group.hand_over(node_id, future)
        return await self._within(future, timeout, lambda: not_taken_over(node_id, timeout))

    async def set_lease(self, seconds: float, timeout: float = 5.0) -> None:
        """Has leases last so many seconds from now on, on all nodes, as long as the cluster exists; 0 switches them off.

        To be called on the master. A master that holds a lease answers ``read(consistency="lease")`` alone: nobody else can be
        master as long as it lasts. The price: clocks are trusted to run alike within 0.7 %, and when a master dies, no other
        takes over before its lease has passed, nor does a node vote so soon after its start. A length below
        ``election_timeout`` costs an election nothing.

        :raises ConfigError: a length that cannot work. :raises NotAvailable: this node is not the master.
        :raises OutcomeUnknown: not in time, or the node was closed meanwhile: it may yet be chosen. Is a quorum there?
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._group.set_lease(seconds, future)
        await self._within(future, timeout, lambda: lease_not_chosen(timeout))

    async def _within(self, future: asyncio.Future[T], timeout: float, late: Callable[[], PaxosError]) -> T:
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            raise late() from None

    def members(self) -> Members:
        """The members of the cluster, as this node knows them at the moment. Without any where it has not met the cluster yet.

        Who is a member is chosen like any value: what this node has not learned yet it does not tell.
        """
        return self._group.changes.present()

    def on_members_change(self, call: Callable[[Members], object]) -> Callable[[], None]:
        """Has ``call`` called with the new :class:`Members` whenever they change here; what is returned ends it.

        It is called on the thread of the event loop, and must not block. What it raises is logged.
        """
        return self._group.changes.watch(call)

    def memberships(self) -> AsyncIterator[Members]:
        """The members now, and whenever they have changed, as this node gets to know it. Ends when the node is closed.

        Where they change faster than they are taken, some are left out, never the last one.
        """
        return self._each(self._group.changes.watch, lambda: self._group.changes.members)

    async def _each(
        self, watch: Callable[[Callable[[T], object]], Callable[[], None]], now: Callable[[], T]
    ) -> AsyncIterator[T]:
        changed = asyncio.Event()
        stop = watch(lambda _: changed.set())
        self._iterating.add(changed)
        try:
            last: object = changed  # nothing that it could be
            while not self._group.closed:
                changed.clear()
                if (newest := now()) != last:
                    last = newest
                    yield newest
                else:
                    await changed.wait()
        finally:
            stop()
            self._iterating.discard(changed)

    async def add(self, node_id: int, address: str, *, follower: bool = False, timeout: float = 10.0) -> Members:
        """Takes a node in, and returns the members, which it is one of then. At any node.

        It begins as a learner: it gets everything, and becomes a voter by itself as soon as it is level. That is not waited for
        (:meth:`memberships` tells), so the node may be started before or after: with an empty directory, and a ``cluster=`` that
        names some of the members, and itself.

        Like all operations on members this one may be repeated: what is there already succeeds at once. The first change of all
        writes down, for all members that have no address, the one in ``cluster=`` at the master. Cancelling the call takes
        nothing back.

        :param address: ``HOST:PORT``, where the others find it.
        :param follower: it is to stay without a vote. It applies, answers reads, takes proposals, and delays nobody.
        :param timeout: seconds.
        :raises MembershipRefused: another one has the address, or the id is a member's at another address; there are 31 already.
        :raises ConfigError: an id or address that cannot be. :raises NodeClosed: closed.
        :raises NotAvailable: this node is no member any more. :raises Overloaded: too many changes are waited for here.
        :raises OutcomeUnknown: not in time, or the node was closed or removed meanwhile. It may yet come about: look at the
            members, or ask again.
        """
        do = Do.ADD_FOLLOWER if follower else Do.ADD
        return await self._change(Operation(do, member_id(node_id), address=member_address(address)), timeout)

    async def remove(self, node_id: int, *, force: bool = False, timeout: float = 10.0) -> Members:
        """Removes a member, and returns the members without it, when that is in force. At any node.

        A voter goes on voting until 64 instances more are chosen, which takes milliseconds. The master hands over first. The node
        that is removed finds out, as far as it hears of it: see the option ``when_removed``.

        :param force: do it even if the master has no connection to a majority of the voters that are left. If they do not come
            back nothing can be chosen any more.
        :raises MembershipRefused: it is no member, or the only voter; or that majority is missing: the message says who is.
        :raises: otherwise as :meth:`add`.
        """
        do = Do.REMOVE_FORCED if force else Do.REMOVE
        return await self._change(Operation(do, member_id(node_id)), timeout)

    async def replace(self, old: int, new: int, address: str, *, timeout: float = 10.0) -> Members:
        """Has ``new`` come in the place of the voter ``old``. At any node.

        Returns when ``new`` has been taken in, as a learner. When it is level, one change makes it a voter and removes ``old``,
        which may be dead or alive; so nobody's loss counts for more than before. :meth:`memberships` tells.

        :raises MembershipRefused: ``old`` is no voter, or ``new`` is one already; the address is another member's.
        :raises: otherwise as :meth:`add`.
        """
        operation = Operation(Do.REPLACE, member_id(new), member_id(old), member_address(address))
        return await self._change(operation, timeout)

    async def promote(self, node_id: int, *, timeout: float = 10.0) -> Members:
        """Has a follower become a voter. At any node. Returns when it is a learner, which becomes a voter as soon as it is level.

        :raises MembershipRefused: it is no member, or is being removed. :raises: otherwise as :meth:`add`.
        """
        return await self._change(Operation(Do.PROMOTE, member_id(node_id)), timeout)

    async def move(self, node_id: int, address: str, *, timeout: float = 10.0) -> Members:
        """Gives a member another address, and returns the members with it. At any node.

        Nothing but what the others dial changes by it: the node itself has to listen there.

        :raises MembershipRefused: it is no member, or another one has the address. :raises: otherwise as :meth:`add`.
        """
        operation = Operation(Do.MOVE, member_id(node_id), address=member_address(address))
        return await self._change(operation, timeout)

    async def _change(self, operation: Operation, timeout: float) -> Members:
        future: asyncio.Future[Members] = self._loop.create_future()
        self._group.changes.wish(future, operation, timeout)
        return await future

    async def checkpoint(self) -> int:
        """Makes a checkpoint of what is applied now; the log below it may then be deleted. How many instances it holds.

        It is durable, and was read again, when this returns. Where one is being made already, that is the one waited for.

        :raises StorageError: it could not be made; the message says why. :raises NodeClosed: closed.
        """
        if self._group.closed:
            raise NodeClosed("the node has been closed")
        self._engine.status()  # in a forked child it says that the node is not here
        future: asyncio.Future[int] = self._loop.create_future()
        self._group.checkpoint(future)
        return await future

    def status(self) -> NodeStatus:
        """What this node knows at the moment."""
        return self._group.status()

    async def close(self) -> None:
        """Stops the node; a master hands over first. Proposals under way here end with OutcomeUnknown. May be called again."""
        await asyncio.shield(self._begin_to_close())

    def _begin_to_close(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        self._group.closed = True
        self._loop.remove_reader(self._engine.fileno())
        await asyncio.to_thread(self._group.stop)
        await asyncio.to_thread(self._engine.stop)
        self._ended()

    def _ended(self) -> None:
        """The engine has stopped: nobody will hear from it any more."""
        self._group.closed = True
        self._group.close()
        for changed in self._iterating:
            changed.set()
        for future in self._ready:
            if not future.done():
                future.set_exception(NodeClosed("the node has been closed"))
        self._ready = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
