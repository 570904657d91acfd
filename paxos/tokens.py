"""What a client holds of a session, and what its proposals end with. The table behind it: ``sessions``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from paxos.errors import (
    ConfigError,
    Fenced,
    NotAvailable,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    Refused,
    ResultNotKept,
    SessionExpired,
    ValueTooLarge,
)
from paxos.sessions import (
    MAX_LIFETIME,
    VALUE_HEAD,
    WINDOW,
    Answer,
    SessionId,
    Verdict,
    pack_close,
    pack_fence,
    pack_open,
    pack_value,
)

if TYPE_CHECKING:
    from paxos.completion import Completion
    from paxos.group import Group

__all__ = ["LIFETIME", "Outcome", "Session", "Token", "close_session", "open_session", "outcome", "propose"]

#: Instances after which a session that nobody uses expires, where nothing else is said.
LIFETIME: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Token:
    """Names one proposal, so that it is applied once however often it is proposed. ``str(token)`` can be kept over a restart of
    the client, and :meth:`parse` reads it."""

    session: SessionId
    seq: int
    """Which of the session's tokens."""
    acked: int = field(default=0, compare=False)
    """When this one was made, the client knew the outcomes of all before that one."""

    def __post_init__(self) -> None:
        where, index, mark = self.session
        wide, narrow = range(1 << 64), range(1 << 32)
        if where not in wide or index not in narrow or mark not in narrow or not 0 <= self.acked <= self.seq in wide:
            raise ConfigError(f"there is no such token: {self}")

    def __str__(self) -> str:
        where, index, mark = self.session
        return f"{where:x}-{index:x}-{mark:x}-{self.seq:x}-{self.acked:x}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """What ``str()`` made of one. ConfigError where it did not."""
        try:
            where, index, mark, seq, acked = (int(part, 16) for part in text.split("-"))
        except ValueError as error:
            raise ConfigError(f"{text!r} is not a token") from error
        return cls(SessionId(where, index, mark), seq, acked)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a proposal, for good: no copy of it that is under way can change that."""

    applied: bool
    """Whether it was applied (once). If not, it never will be."""
    result: bytes | None
    """What ``apply`` returned. None where it was not applied, or the result is not there: it had more than 4096 bytes, or was no
    ``bytes``, or was computed before the restart of a state machine that keeps its state itself."""


class Session:
    """Gives out tokens. For one client; its methods may be called on any thread, and do not wait.

    The cluster keeps what came of a token until the client has acknowledged it, for at most 256 tokens of a session.
    """

    def __init__(self, id_: SessionId, lifetime: int) -> None:
        self.id = id_
        self.lifetime = lifetime
        """Instances without a use of this session after which it expires."""
        self._lock = threading.Lock()
        self._next = 0
        self._acked = 0
        self._open: set[int] = set()

    def token(self) -> Token:
        """A new token. Overloaded where 256 are without acknowledgement."""
        with self._lock:
            if self._next - self._acked >= WINDOW:
                raise Overloaded(
                    f"the session has tokens without acknowledgement from number {self._acked} on, and {WINDOW} is the limit: "
                    "acknowledge() the ones whose outcome you know"
                )
            token = Token(self.id, self._next, self._acked)
            self._open.add(self._next)
            self._next += 1
            return token

    def acknowledge(self, token: Token) -> None:
        """The outcome of this one is known, and has been seen to: nobody will ask for it again. The cluster hears of it with the
        next token. ConfigError: it is of another session."""
        if token.session != self.id:
            raise ConfigError(f"token {token} is of another session")
        with self._lock:
            self._open.discard(token.seq)
            self._acked = min(self._open, default=self._next)


class _Settling:
    """Makes a result or an error of a table's answer."""

    __slots__ = ("_completion", "_meaning", "_what")

    def __init__(self, completion: Completion, what: str, meaning: Callable[[Answer], object]) -> None:
        self._completion = completion
        self._what = what
        self._meaning = meaning

    def done(self) -> bool:
        return self._completion.done()

    def set_result(self, answer: Answer, /) -> None:
        try:
            result = self._meaning(answer)
        except LookupError:
            self._completion.set_exception(_error(answer, self._what))
        else:
            self._completion.set_result(result)

    def set_exception(self, error: BaseException, /) -> None:
        self._completion.set_exception(error)


def _error(answer: Answer, what: str) -> PaxosError:
    verdict = answer.verdict
    if verdict is Verdict.EXPIRED:
        return SessionExpired(
            f"{what}: there is no such session (any more); it was not executed now. If it was proposed before, nobody can tell "
            "what came of that; no copy that is still under way will be executed"
        )
    if verdict is Verdict.ACKNOWLEDGED:
        return SessionExpired(
            f"{what}: its outcome was acknowledged, so it is not kept any more; it was not executed now"
        )
    if verdict is Verdict.FENCED:
        return Fenced(f"{what}: outcome() was asked before it was executed, so it never will be; take another token")
    if verdict is Verdict.FULL:
        return Overloaded(f"{what}: {WINDOW} tokens of its session are without acknowledgement; it was not executed")
    if verdict is Verdict.NOT_KEPT:
        why = (
            f"{answer.detail}, and under a token only bytes are kept"
            if answer.detail
            else "it was too long, or no bytes, or is known to other nodes only"
        )
        return ResultNotKept(f"{what}: it was executed, once; its result is not there: {why}")
    if verdict is Verdict.MALFORMED:
        return Refused(f"{what}: the record was not understood, and nothing was executed")
    return OutcomeUnknown(f"{what}: a bug, please report it: {answer}")


def _result(answer: Answer) -> bytes | None:
    if answer.verdict is Verdict.DONE:
        return answer.result
    raise LookupError


def _outcome(answer: Answer) -> Outcome:
    if answer.verdict is Verdict.DONE:
        return Outcome(True, answer.result)
    if answer.verdict is Verdict.NOT_KEPT:
        return Outcome(True, None)
    if answer.verdict is Verdict.FENCED:
        return Outcome(False, None)
    raise LookupError


def _closed(answer: Answer) -> None:
    if answer.verdict not in (Verdict.CLOSED, Verdict.EXPIRED):
        raise LookupError


def propose(group: Group, completion: Completion, value: bytes, token: Token, timeout: float, machine: int) -> None:
    """Hands a value to the group under a token; see :meth:`paxos.Node.propose`."""
    if len(value) > group.max_value - VALUE_HEAD:
        raise ValueTooLarge(
            f"value of {len(value)} bytes is above the limit of {group.max_value - VALUE_HEAD} (option max_value, less "
            f"{VALUE_HEAD} bytes for the token)"
        )
    record = pack_value(token.session, token.seq, token.acked, machine, value)
    group.submit_record(_Settling(completion, f"token {token}", _result), record, timeout, machine)


def outcome(group: Group, completion: Completion, token: Token, timeout: float) -> None:
    """Settles a token; see :meth:`paxos.Node.outcome`."""
    record = pack_fence(token.session, token.seq, token.acked)
    group.submit_record(_Settling(completion, f"token {token}", _outcome), record, timeout)


def open_session(group: Group, completion: Completion, lifetime: int, timeout: float) -> None:
    """See :meth:`paxos.Node.open_session`."""
    if isinstance(lifetime, bool) or not isinstance(lifetime, int) or not 0 < lifetime <= MAX_LIFETIME:
        raise ConfigError(f"lifetime={lifetime!r} must be a number of instances, from 1 to {MAX_LIFETIME}")

    def opened(answer: Answer) -> Session:
        if answer.session is None:
            raise LookupError
        return Session(answer.session, lifetime)

    if group.mark() == 0:
        # The session's name has a part of the cluster's in it, and there is no cluster yet.
        raise NotAvailable("the cluster has not been formed yet: open a session when wait_ready() has returned")
    group.submit_record(_Settling(completion, "open_session()", opened), pack_open(group.mark(), lifetime), timeout)


def close_session(group: Group, completion: Completion, session: Session | Token, timeout: float) -> None:
    """See :meth:`paxos.Node.close_session`."""
    id_ = session.session if isinstance(session, Token) else session.id
    group.submit_record(_Settling(completion, "close_session()", _closed), pack_close(id_), timeout)
