"""Changes of the members, from the wish to the effect; and who wants to hear of them.

A wish may be uttered at any node. Who is the master works on it, at his Python side: he judges it by the present table
(:func:`paxos.membership.judge`), hands the next table to the engine, and judges again whenever the table has changed, until the
effect is there. What was asked for twice does no harm for that reason; so a wish is carried to the master again and again until
an answer comes, or its time is up. A master forgets all wishes when it is none any more.

Messages between the Python sides, as in transfer.py (little-endian): type u8, then

    WISH      number u64, left u32 (milliseconds), operation u8, seen u8, node u32, other u32, address (ASCII)
    ANSWER    number u64, kind u8; 0 (done): chosen u64, membership (as in the log); 1 (refused): text (UTF-8)
"""

from __future__ import annotations

import dataclasses
import logging
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from paxos._handle import Handle
from paxos.alarm import Alarms
from paxos.completion import Completion, complete, complete_with
from paxos.errors import (
    ConfigError,
    MembershipRefused,
    NodeClosed,
    NotAvailable,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
)
from paxos.mastership import Master, Mastership
from paxos.membership import Do, Member, Members, Operation, Situation, Table, called, judge, member_address, member_id
from paxos.watches import Watches

__all__ = ["MESSAGES", "Changes"]

logger = logging.getLogger("paxos")

WISH, ANSWER = 32, 33
MESSAGES: Final = (WISH, ANSWER)
_WISH: Final = struct.Struct("<BQIBBII")
_ANSWER: Final = struct.Struct("<BQB")
_CHOSEN: Final = struct.Struct("<Q")
DONE, REFUSED = 0, 1

#: Seconds between two looks at who turns this node away.
LOOK: Final = 0.5
#: ... and for which it must have been so, to take oneself for removed.
DISOWNED: Final = 2
#: ... between two looks at what is under way, and after which a message, or an order to the engine, is repeated.
EVERY: Final = 0.05
AGAIN: Final = 0.25
SECOND: Final = 1_000_000_000
#: Wishes of this node; more are refused. And those of others that a master keeps; more are not answered, and come again.
MOST: Final = 1024
LONGEST: Final = 4_294_967  # seconds that a wish may wait at another node


class _Wish:
    """Somebody's wish at this node."""

    __slots__ = ("answer", "completion", "deadline", "operation", "seen", "sent", "timeout")

    def __init__(self, completion: Completion, operation: Operation, deadline: int, timeout: float) -> None:
        self.completion = completion
        self.operation = operation
        self.deadline = deadline
        self.timeout = timeout
        self.seen = False  # the node that goes has been a member here
        self.sent: tuple[Master, int] | None = None  # to whom, and when
        self.answer: Members | None = None  # the caller is told when this node knows it, too

    def shows(self, members: Members) -> bool:
        """Whether these members are those of the answer, or later ones."""
        gone = not self.operation.removes or members.get(self.operation.node_id) is None
        return self.answer is not None and members.version >= self.answer.version and gone


class _Kept:
    """A wish that this node, as master, works on."""

    __slots__ = ("deadline", "operation", "seen")

    def __init__(self, operation: Operation, deadline: int, seen: bool) -> None:
        self.operation = operation
        self.deadline = deadline
        self.seen = seen


class Changes:
    """One group's. ``wish`` and ``watch`` may be called on any thread, all else on the one that applies.

    ``addresses``: where this node was told that the others are.
    """

    def __init__(
        self,
        engine: Handle,
        alarms: Alarms,
        mastership: Mastership,
        addresses: Mapping[int, str],
        *,
        close: bool = False,
    ) -> None:
        self._engine = engine
        self._alarms = alarms
        self._mastership = mastership
        self._addresses = addresses
        self._close = close  # the node ends when it is removed
        status = engine.status()
        self.node_id = status["node_id"]
        self._incarnation = status["incarnation"]
        self._number = status["boot"] << 32
        self._lock = threading.Lock()  # over what comes from other threads: wishes and watches
        self._new: list[_Wish] = []
        self._watches: Watches[Members] = Watches("members")
        self._closed = False
        self._changed = False  # the engine says so
        self._come = False  # a wish of another node has, or an answer
        self._looked = 0
        self._ticking = False
        self._wishes: dict[int, _Wish] = {}
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._master: Master | None = None
        self._ordered: tuple[bytes, int] | None = None  # the change that the engine was given, and when
        self._handing = 0  # ... and when it was told to hand over
        self._replaced = False
        self._said = False  # ... that it is outside
        self._disowned_since: int | None = None
        self._on_removed: Callable[[], object] | None = None
        #: the members, as those who watch were told
        self.members = Members(0, (), False)
        #: why this node has no part in the cluster any more, if so
        self.outside: str | None = None
        self.removed = False
        #: ``later(seconds, call)``: a call on the applying thread
        self.later: Callable[[float, Callable[[], object]], object] | None = None

    # -- who they are

    def read(self) -> tuple[Table, int]:
        """The table, and how many instances are known chosen. On any thread."""
        chosen = self._engine.status()["chosen"]  # first: what is in force by then shows in the table
        data = self._engine.membership()
        return Table.decode(data), chosen

    def present(self) -> Members:
        """The members at this moment. On any thread."""
        table, chosen = self.read()
        return table.members(chosen)

    @property
    def role(self) -> str:
        """What this node is; ``none``: no member."""
        own = self.members.get(self.node_id)
        return own.role if own is not None and not self.outside else "none"

    def watch(self, call: Callable[[Members], object]) -> Callable[[], None]:
        """``call`` hears of every change, until what is returned is called."""
        return self._watches.add(call)

    def when_removed(self, call: Callable[[], object]) -> None:
        """``call`` is called, once, when this node is to end because it is no member any more."""
        self._on_removed = call
        if self.removed:
            self._end_node()

    def _end_node(self) -> None:
        call, self._on_removed = self._on_removed, None
        if call is not None and self._close:
            call()

    def begin(self) -> None:
        """The log is read: what is known from it is no news."""
        if self._engine.found()[0]:
            self.members = self.present()

    def changed(self) -> None:
        """The engine says that the table is another one."""
        self._changed = True

    def turn(self) -> bool:
        """Sees to whatever has come. True: this node has just lost its part in the cluster."""
        master, now = self._mastership.now, self._engine.now()
        look = now - self._looked >= LOOK * SECOND
        lost = self.outside is not None and not self._said
        busy = self._new or self._come or self._changed or look or lost or master != self._master
        if not busy and not self.members.pending:
            return False
        if look:
            self._looked = now
            self._where_am_i()
        if self._changed or self.members.pending:
            self._changed = False
            before = self.members
            self._look()
            busy = busy or self.members != before
        if not busy:
            return False  # (while a change is pending that is looked for at each turn)
        self._come = False
        with self._lock:
            new, self._new = self._new, []
        for wish in new:
            self._number += 1
            self._wishes[self._number] = wish
        self._master = master
        self._go_on()
        lost, self._said = self.outside is not None and not self._said, self.outside is not None
        return lost

    def _look(self) -> None:
        before, now = self.members, self.present()
        if now != before:
            self.members = now
            if before.members:
                self._tell_log(before, now)
        self._where_am_i()
        if now != before:
            self._watches.tell(now)

    def _tell_log(self, before: Members, now: Members) -> None:
        for id_ in sorted({*before.ids, *now.ids}):
            old, new = before.get(id_), now.get(id_)
            if old is None and new is not None:
                logger.info(
                    "node %d is a member now, as %s, at %s (change %d)", id_, called(new.role), _at(new), now.version
                )
            elif new is None:
                logger.info("node %d is no member any more (change %d)", id_, now.version)
            elif old is not None:
                self._tell_difference(old, new, now.version)

    def _tell_difference(self, old: Member, new: Member, version: int) -> None:
        id_ = new.node_id
        if old.role != new.role:
            logger.info("node %d is %s now, and was %s (change %d)", id_, called(new.role), called(old.role), version)
        if old.address != new.address and old.address:
            logger.info("node %d is at %s now, and was at %s (change %d)", id_, _at(new), old.address, version)
        if old.incarnation != new.incarnation and not old.incarnation:
            logger.info("node %d has come (change %d)", id_, version)
        elif old.incarnation != new.incarnation and (id_ != self.node_id or new.incarnation == self._incarnation):
            logger.warning(
                "node %d has a new data directory: it was chosen in place of the old one (change %d)", id_, version
            )

    def _where_am_i(self) -> None:
        status = self._engine.status()
        own = self.members.get(self.node_id)
        if self.removed or not (status["replaced"] or self._disowned(own, status["disowned"])):
            return
        # (It has been removed, too, where its id waits for somebody new since.)
        if own is None or not status["replaced"] or own.incarnation == "":
            self.removed = True
            self.outside = f"node {self.node_id} has been removed from the cluster"
            self._alarms.sound(
                "removed",
                "node %d has been removed from the cluster, and has no part in it any more. Stop it. Its data directory is of no "
                "use to the cluster: to take this machine in again add it, unless that is done, and start it with an empty one",
                self.node_id,
            )
            self._engine.poke()
            self._end_node()
        elif own.incarnation not in ("", self._incarnation) and not self._replaced:
            self._replaced = True
            self.outside = f"another process has taken the place of node {self.node_id}"
            self._alarms.sound(
                "replaced",
                "another process, with a data directory of its own, has taken the place of node %d: this one has no vote any "
                "more. Stop it; if it should have kept its place, stop the other one, and give it another id",
                self.node_id,
            )

    def _disowned(self, own: Member | None, by: list[int]) -> bool:
        """Who is removed while it is away, or hears nothing more as soon as it is, is told by those who do not let it in.

        One of them may be behind, and not know yet that this node came; not a majority, nor whoever turns away a node that is
        leaving.
        """
        others = set(self.members.voters) - {self.node_id}
        if own is None or own.incarnation != self._incarnation:
            told = False
        else:
            told = bool(by) if own.role == "leaving" else 2 * len(others.intersection(by)) > len(others)
        now = self._engine.now()
        if not told:
            self._disowned_since = None
        elif self._disowned_since is None:
            self._disowned_since = now  # (they may be the ones who are behind, for a moment)
        return self._disowned_since is not None and now - self._disowned_since >= DISOWNED * SECOND

    # -- wishes of this node

    def refusal(self, do: str) -> PaxosError | None:
        """Why nothing can be had here, where this node is no member any more."""
        if self.outside is None:
            return None
        return NotAvailable(f"{self.outside}: it is no member; {do} at another node")

    def wish(self, completion: Completion, operation: Operation, timeout: float) -> None:
        """``completion`` is settled with the members that come of it, or with an error. On any thread."""
        if operation.do is Do.REPLACE and operation.node_id == operation.other:
            raise ConfigError(
                f"node {operation.node_id} cannot take its own place: a machine that has lost its disk is started with its id "
                "and an empty directory, and needs no change of the members"
            )
        deadline = self._engine.now() + int(min(timeout, LONGEST) * SECOND)
        with self._lock:
            if self._closed:
                raise NodeClosed("the node has been closed")
            if (error := self.refusal("ask")) is not None:
                raise error
            if len(self._new) + len(self._wishes) >= MOST:
                raise Overloaded(f"{MOST} changes of the members are waited for here: no more are taken")
            self._new.append(_Wish(completion, operation, deadline, timeout))
        self._engine.poke()

    def _go_on(self) -> None:
        """Everything that is under way, one step further."""
        now = self._engine.now()
        master = self._master
        for number, wish in list(self._wishes.items()):
            wish.seen = wish.seen or self.members.get(wish.operation.goes) is not None
            if wish.completion.done():
                del self._wishes[number]
            elif self.outside is not None:
                self._end_outside(number, wish)
            elif wish.answer is not None:
                if now >= wish.deadline or wish.shows(self.members):
                    del self._wishes[number]
                    complete(wish.completion, wish.answer)
            elif now >= wish.deadline:
                del self._wishes[number]
                complete_with(wish.completion, self._late(wish))
            elif master is not None and master.node_id == self.node_id:
                self._keep(self.node_id, number, wish.operation, wish.deadline, wish.seen)
            elif master is not None and (
                wish.sent is None or wish.sent[0] != master or now - wish.sent[1] >= AGAIN * SECOND
            ):
                wish.sent = (master, now)
                self._send(master.node_id, number, wish, now)
        self._work(now)
        if (self._wishes or self._kept or self.role == "leaving") and not self._ticking and self.later is not None:
            self._ticking = True
            self.later(EVERY, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if not self._closed:
            self._where_am_i()
            self._go_on()

    def _send(self, node: int, number: int, wish: _Wish, now: int) -> None:
        operation = wish.operation
        left = min((wish.deadline - now) // 1_000_000, 0xFFFFFFFF)
        data = _WISH.pack(WISH, number, left, operation.do, wish.seen, operation.node_id, operation.other)
        self._engine.send(node, data + operation.address.encode("ascii"))

    def _end_outside(self, number: int, wish: _Wish) -> None:
        """Nobody answers who is not one of them any more; what it has seen of its own removal it has seen."""
        del self._wishes[number]
        if self.removed and wish.operation.removes and wish.operation.node_id == self.node_id:
            left = tuple(member for member in self.members.members if member.node_id != self.node_id)
            complete(wish.completion, dataclasses.replace(self.members, members=left))
        else:
            complete_with(
                wish.completion, OutcomeUnknown(f"{self.outside}: what comes of {wish.operation} shows at another node")
            )

    def _late(self, wish: _Wish) -> OutcomeUnknown:
        where = "no master is known" if self._master is None else f"the master is node {self._master.node_id}"
        if self.members.pending:
            where += ", a change is chosen and not in force yet"
        return OutcomeUnknown(
            f"{wish.operation} has not come about within {wish.timeout:g} s, and may yet: look at the members before you "
            f"ask again ({where}). Is a majority of the voters there? A master that is removed hands over first"
        )

    # -- the master's part

    def _keep(self, node: int, number: int, operation: Operation, deadline: int, seen: bool) -> None:
        there = self._kept.get((node, number))
        seen = seen or (there is not None and there.seen)
        self._kept[node, number] = _Kept(operation, deadline, seen)

    def _work(self, now: int) -> None:
        if not self._kept:
            return
        if self._master is None or self._master.node_id != self.node_id or self.outside is not None:
            self._kept.clear()  # who wants something asks the next one
            return
        status = self._engine.status()
        data = self._engine.membership()
        table, chosen = Table.decode(data), status["chosen"]
        reached = {self.node_id, *(node for node, up in status["peers"].items() if up)}
        busy = table.pending(chosen)
        for (node, number), kept in list(self._kept.items()):
            if now >= kept.deadline:
                del self._kept[node, number]
                continue
            kept.seen = kept.seen or table.find(kept.operation.goes) is not None
            try:
                wanted = judge(table, kept.operation, Situation(self._addresses, reached, kept.seen))
            except MembershipRefused as error:
                self._answer(node, number, REFUSED, str(error).encode())
                continue
            if wanted is None:
                if kept.operation.done(table):
                    self._answer(node, number, DONE, _CHOSEN.pack(chosen) + data)
            elif not busy:
                busy = True
                self._order(wanted, kept.operation, now)

    def _order(self, wanted: Table, operation: Operation, now: int) -> None:
        """One change at a time; repeated, for an engine that cannot take it just now says nothing."""
        if operation.removes and operation.node_id == self.node_id:
            if now - self._handing >= SECOND:
                self._handing = now
                logger.info("this node is the master, and is to be removed: it hands over first")
                self._engine.transfer(0)
            return
        change = wanted.change()
        if self._ordered is None or self._ordered[0] != change or now - self._ordered[1] >= AGAIN * SECOND:
            self._ordered = (change, now)
            self._engine.change(change)

    def _answer(self, node: int, number: int, kind: int, data: bytes) -> None:
        del self._kept[node, number]
        if node == self.node_id:
            self._answered(number, kind, data)
        else:
            self._engine.send(node, _ANSWER.pack(ANSWER, number, kind) + data)

    def _answered(self, number: int, kind: int, data: bytes) -> None:
        wish = self._wishes.get(number)
        if wish is None or wish.answer is not None:
            return
        if kind == DONE:
            try:
                wish.answer = Table.decode(data[_CHOSEN.size :]).members(*_CHOSEN.unpack_from(data))
            except (ValueError, struct.error) as error:
                logger.warning("an answer to %s cannot be read: %s", wish.operation, error)
                return
            if wish.shows(self.members):
                complete(wish.completion, wish.answer)
            else:
                return  # see _go_on
        elif kind == REFUSED:
            complete_with(wish.completion, MembershipRefused(data.decode("utf-8", "replace")))
        else:
            return  # of a kind that this version does not know
        del self._wishes[number]

    # -- messages

    def receive(self, node: int, data: bytes) -> None:
        """Bytes from another node that begin with one of MESSAGES. What is malformed is dropped."""
        if self._closed:
            return
        if data[0] == ANSWER and len(data) >= _ANSWER.size:
            _, number, kind = _ANSWER.unpack_from(data)
            self._answered(number, kind, data[_ANSWER.size :])
        elif data[0] == WISH and len(data) >= _WISH.size:
            _, number, left, do, seen, node_id, other = _WISH.unpack_from(data)
            try:
                text = data[_WISH.size :].decode("ascii")
                if (not text) == (do in (Do.ADD, Do.ADD_FOLLOWER, Do.REPLACE, Do.MOVE)):
                    raise ConfigError("an address is missing, or one too many")
                operation = Operation(Do(do), member_id(node_id), other, member_address(text) if text else "")
            except (ValueError, ConfigError) as error:
                logger.warning(
                    "node %d asks for a change of the members that this node does not understand: %s", node, error
                )
                return
            if len(self._kept) < MOST or (node, number) in self._kept:
                self._keep(node, number, operation, self._engine.now() + left * 1_000_000, bool(seen))
                self._come = True  # see turn()

    # -- the end

    def let_go(self) -> None:
        """Lets go of what would hold the group in a circle."""
        self._on_removed = self.later = None
        self._watches.clear()

    def close(self) -> None:
        """Who waits is told that nobody here will know what becomes of it."""
        with self._lock:
            self._closed = True
            new, self._new = self._new, []
        wishes: Iterable[_Wish] = [*self._wishes.values(), *new]
        self._wishes, self._kept = {}, {}
        self.let_go()
        for wish in wishes:
            complete_with(wish.completion, OutcomeUnknown(f"the node was closed; {wish.operation} may yet come about"))


def _at(member: Member) -> str:
    return member.address or "the address in cluster="
