"""Clients that propose under tokens: they try again until they know, and send copies that nobody asked for.

Every operation has a value of its own, so that what was applied twice is seen like any other value (``campaign``). Here is
what only tokens promise: each answer to a token is that of the one time when it was applied; what was settled as not applied
never is; what was said to be applied is; and the tables of all nodes decide alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from paxos.errors import Fenced, PaxosError, ResultNotKept, SessionExpired
from paxos.sessions import SESSIONS, SessionTable
from paxos.testing._sim import Violation
from paxos.testing.cluster import MS, Cluster, Replica
from paxos.testing.linearizability import Operation
from paxos.tokens import Outcome, Session, Token, open_session, outcome, propose

if TYPE_CHECKING:
    from paxos.testing.workload import Workload

__all__ = ["TokenClient", "judge_tokens"]


class _Under:
    """A call under way at a node."""

    def __init__(self, to: Replica, then: Callable[[Any], None], failed: Callable[[BaseException], None]) -> None:
        self.to = to
        self.settled = False
        self._then = then
        self._failed = failed

    def done(self) -> bool:
        return self.settled

    def set_result(self, result: object, /) -> None:
        self.settled = True
        self._then(result)

    def set_exception(self, error: BaseException, /) -> None:
        if not isinstance(error, PaxosError):
            raise error
        self.settled = True
        self._failed(error)


class TokenClient:
    """One operation at a time, each under a token of its own, until its outcome is known."""

    def __init__(self, workload: Workload, number: int, dice: random.Random) -> None:
        self.workload = workload
        self.number = number
        self.dice = dice
        self.key = b"t%d" % number
        self.lifetime = dice.choice([30, 300, 10**6])
        self.session: Session | None = None
        self.call: _Under | None = None
        self.token: Token | None = None
        self.value = b""
        self.begun = 0
        self.fencing = False  # whether the outcome of this operation was asked for
        self.unsaid: list[Token] = []  # known outcomes that were not acknowledged
        #: what was told, and what was said to be applied without a result
        self.told: list[tuple[bytes, bytes]] = []
        self.applied: list[bytes] = []

    def later(self, delay: int, call: Callable[[], None]) -> None:
        world = self.workload.cluster.world
        world.call_at(world.now + delay, call)

    def _call(
        self, do: Callable[[Any, _Under], None], then: Callable[[Any], None], failed: Callable[[Any], None]
    ) -> None:
        """At a running node, drawn anew."""
        if self.workload.over:
            return
        up = [replica for replica in self.workload.cluster.replicas if replica.up]
        if not up:
            self.later(20 * MS, lambda: self._call(do, then, failed))
            return
        self.call = call = _Under(self.dice.choice(up), then, failed)
        try:
            do(call.to.group, call)
        except PaxosError as error:
            call.set_exception(error)

    @property
    def timeout(self) -> float:
        return self.dice.choice(self.workload.timeouts)

    # -- one operation after the other

    def step(self) -> None:
        """The next one begins."""
        if self.workload.over:
            return
        if self.session is None:
            self._call(
                lambda group, call: open_session(group, call, self.lifetime, self.timeout),
                self._opened,
                lambda error: self.later(self.workload.pause(), self.step),
            )
            return
        if len(self.unsaid) > 20 or (self.unsaid and self.dice.random() < 0.3):
            for token in self.unsaid:
                self.session.acknowledge(token)
            self.unsaid = []
        self.token = Token.parse(str(self.session.token()))
        self.workload.written += 1
        self.workload.begun += 1
        padding = b"." * self.dice.choice(self.workload.paddings)
        self.value = b"tok:%b:+%d:%b" % (self.key, self.workload.written, padding)
        self.begun = self.workload.cluster.now
        self.fencing = False
        self.attempt()

    def _opened(self, session: Session) -> None:
        self.session, self.unsaid = session, []
        self.later(self.workload.pause(), self.step)

    def attempt(self) -> None:
        """Proposes, for the first time or again."""
        if self.token is None:
            return  # it is over
        token, value, timeout = self.token, self.value, self.timeout
        machine = self.key[-1] % self.workload.machines
        if self.dice.random() < 0.15:
            self._echo(token, value, machine)
        self._call(
            lambda group, call: propose(group, call, value, token, timeout, machine),
            lambda result: self._known(result),
            self._failed,
        )

    def _echo(self, token: Token, value: bytes, machine: int) -> None:
        """A copy that nobody waits for. Whatever is said of it must be true as well."""
        up = [replica for replica in self.workload.cluster.replicas if replica.up]
        if not up:
            return
        call = _Under(self.dice.choice(up), lambda result: self.told.append((value, result)), lambda error: None)
        try:
            propose(call.to.group, call, value, token, self.timeout, machine)  # type: ignore[arg-type]  # it is up
        except PaxosError as error:
            call.set_exception(error)

    def _ask(self) -> None:
        if self.token is None:
            return
        token, timeout = self.token, self.timeout
        self.fencing = True
        self._call(lambda group, call: outcome(group, call, token, timeout), self._settled, self._failed)

    def _settled(self, found: Outcome) -> None:
        if found.applied:
            self._known(found.result)
            return
        self.workload.refused.append(self.value)
        self.workload.outcomes["fenced"] += 1
        if self.dice.random() < 0.5 and self.token is not None:
            self._echo(self.token, self.value, self.key[-1] % self.workload.machines)  # must be void
        self._next(acknowledge=True)

    def _known(self, result: bytes | None) -> None:
        workload = self.workload
        if result is None:
            self.applied.append(self.value)
            self._unknown("applied, not kept")
            return
        self.told.append((self.value, result))
        instance, length = map(int, result.split())
        workload.cluster.world.acknowledged(instance)
        workload.outcomes["answered under tokens"] += 1
        action = ("append", self.value.split(b":")[2])
        workload.history.append(
            (Operation(-self.number - 1, self.key, self.begun, workload.cluster.now, action, length), self.value)
        )
        self._next(acknowledge=True)

    def _unknown(self, what: str) -> None:
        self.workload.outcomes[what] += 1
        action = ("append", self.value.split(b":")[2])
        self.workload.history.append((Operation(-self.number - 1, self.key, self.begun, None, action), self.value))
        self._next(acknowledge=what != "expired")

    def _failed(self, error: PaxosError) -> None:
        if isinstance(error, SessionExpired):
            self.session = None
            self._unknown("expired")
        elif isinstance(error, ResultNotKept):
            self._known(None)
        elif isinstance(error, Fenced):
            if not self.fencing:
                raise Violation(f"token {self.token} was fenced, and nobody had asked for that")
            self.workload.refused.append(self.value)
            self.workload.outcomes["fenced"] += 1
            self._next(acknowledge=True)
        else:
            again = self._ask if self.dice.random() < 0.3 else self.attempt
            self.later(self.workload.pause(), again)

    def _next(self, acknowledge: bool) -> None:
        token, self.token = self.token, None
        if acknowledge and self.session is not None and token is not None:
            self.unsaid.append(token)
        self.later(self.workload.pause(), self.step)

    # -- the world

    def process_ended(self, replica: Replica) -> None:
        """Whatever was under way there: nobody will say."""
        call = self.call
        if call is not None and call.to is replica and not call.settled:
            call.settled = True
            self.later(self.workload.pause(), self.step if self.token is None else self.attempt)

    def finish(self) -> None:
        """What is under way now stays unknown."""
        if self.token is not None:
            self._unknown("unknown under tokens")
        if self.call is not None:
            self.call.settled = True


def judge_tokens(cluster: Cluster, clients: Iterable[TokenClient], replicas: Iterable[Replica]) -> None:
    """Whether what was told is true, and the tables of these nodes, which are level, decide alike."""
    results = {
        value: result
        for history in cluster.histories.values()
        for values, answers in history
        for value, result in zip(values, answers, strict=True)
    }
    for client in clients:
        for value, result in client.told:
            if results.get(value) != result:
                raise Violation(f"told {result!r} of {value!r}, whose one result was {results.get(value)!r}")
        for value in client.applied:
            if value not in results:
                raise Violation(f"said to be applied, and never was: {value!r}")
    first: tuple[int, object] | None = None
    for replica in replicas:
        table = replica.group.machines.get(SESSIONS) if replica.group is not None else None
        if isinstance(table, SessionTable):
            decided = table.decided()
            if first is None:
                first = (replica.id, decided)
            elif first[1] != decided:
                raise Violation(
                    f"the sessions of node {replica.id} and node {first[0]} differ: {decided!r}, {first[1]!r}"
                )
