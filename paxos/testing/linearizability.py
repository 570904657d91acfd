"""A judge of concurrent histories: is there one order of the operations that explains every reply?

    history = [Operation(client=1, key="x", call=0, end=10, action=("set", b"a"), result=None), ...]
    violation = check(history, Register())
    assert violation is None, violation

An operation takes effect at one moment between its call and its end (Herlihy & Wing 1990). The search is that of Wing
& Gong (1993) with the memory of visited configurations that Lowe (2017) gave it: a linked list of the operations not
yet placed, from which one that has been called before the first of them ended is lifted, and put back when the way turns
out to be a dead end. Each key is judged by itself (linearizability is local).

What keeps it fast, with the reason why nothing is missed:

* An operation that never changes the state (a read, a comparison that failed) is placed as soon as it fits and never put
  back: whatever order explains the rest explains it with this one in front.
* An operation of unknown outcome may never have happened, so it is tried last, only where it changes something, and
  of several that do the same the one called first stands for all. Of two configurations that differ only in those,
  the one that has used fewer can do whatever the other can (``_Seen``).
* A model may say what an operation must have found and what it leaves behind (:class:`Traced`). Then a state is not
  left while somebody still has to read it and nobody can bring it back; for values written once that settles most
  choices as they are made.

The work is bounded. Where the bound is met, :class:`Inconclusive` is raised: that is no verdict, and never a pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

__all__ = ["Action", "Inconclusive", "Model", "Operation", "Register", "Traced", "Violation", "check"]

Action: TypeAlias = tuple[Any, ...]

#: Default bound of the work for one key: so many steps of the model, one or two seconds.
LIMIT: Final = 2_000_000
#: The same for a better explanation of what is known to be wrong.
EXPLAIN_LIMIT: Final = 200_000


@dataclass(slots=True)
class Operation:
    """One operation of one client. Times are of one clock, in any unit (nanoseconds, steps).

    ``end`` is None where the outcome is unknown: it may take effect at any time after ``call``, or never, and ``result``
    is not looked at. What was certainly not executed does not belong into a history.
    """

    client: int
    key: object
    call: int
    end: int | None
    action: Action
    result: object = None

    def __str__(self) -> str:
        name, *words = self.action
        text = " ".join([str(name), *map(_short, words)])
        return f"{text} → {'?' if self.end is None else _short(self.result)}"


class Model(Protocol):
    """What the operations of one key mean: the sequential data type. States are compared and hashed."""

    @property
    def initial(self) -> Hashable: ...

    def apply(self, state: Any, action: Action) -> tuple[Hashable, object]:
        """The state after ``action`` and its result. Always the same for the same arguments; never raises."""
        ...


class _Mark:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


#: In an answer of :meth:`Traced.trace`: does not look at the state (before), leaves it as it is (after).
NOTHING: Final = _Mark("NOTHING")
#: In an answer of :meth:`Traced.trace`: cannot be said.
ANY: Final = _Mark("ANY")
#: See :meth:`Traced.reduction`.
DEAD: Final = _Mark("DEAD")


class Reduction(Protocol):
    """What differs and makes no difference to the operations of one key."""

    def state(self, state: Any) -> object:
        """A state that all of them treat as they treat this one; DEAD where no order that explains all leads through it."""
        ...

    def action(self, action: Action) -> Action:
        """Equal for actions that, wherever one of them leads to a state that is not DEAD, lead to equal states."""
        ...


@runtime_checkable
class Traced(Model, Protocol):
    """A model that says more, for the sake of speed. A wrong answer makes wrong verdicts; ANY is never wrong."""

    def trace(self, action: Action, result: object, known: bool) -> tuple[object, object]:
        """The state that the operation must have found, and the state that it leaves if it changes anything.

        Where the outcome is not ``known``: the state without which it has no effect. NOTHING as the second is a promise:
        with this result, it leaves every state as it is.
        """
        ...

    def reduction(self, operations: Sequence[Operation]) -> Reduction | None:
        """What can be said of all operations of a key together; None where there is nothing to say."""
        ...


class Register:
    """One key of a key-value service. A missing key is None; values are bytes, str, or int (of counters).

    ``("get",)`` gives the value; ``("set", v)`` None; ``("setnx", v)`` whether it was missing; ``("cas", old, new)`` whether
    it was ``old``; ``("append", v)`` the new length; ``("incr", d)`` the new number; ``("delete",)`` whether it was there.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self.initial = initial

    def apply(self, state: Any, action: Action) -> tuple[Hashable, object]:
        kind = action[0]
        if kind == "get":
            return state, state
        if kind == "set":
            return action[1], None
        if kind == "append":
            if state is None:
                return action[1], len(action[1])
            if type(state) is not type(action[1]):
                return state, WRONG_TYPE
            new = state + action[1]
            return new, len(new)
        if kind == "incr":
            if state is not None and type(state) is not int:
                return state, WRONG_TYPE
            number = (state or 0) + action[1]
            return number, number
        if kind == "cas":
            return (action[2], True) if state == action[1] else (state, False)
        if kind == "setnx":
            return (action[1], True) if state is None else (state, False)
        if kind == "delete":
            return None, state is not None
        raise ValueError(f"a register has no operation {kind!r}")

    def trace(self, action: Action, result: object, known: bool) -> tuple[object, object]:
        kind = action[0]
        if kind == "get":
            return (result, NOTHING) if known else (NOTHING, NOTHING)
        if kind == "set":
            return NOTHING, action[1]
        if kind == "cas":
            return (ANY, NOTHING) if known and not result else (action[1], action[2])
        if kind == "setnx":
            return (ANY, NOTHING) if known and not result else (None, action[1])
        if kind == "incr" and known and type(result) is int:
            # Both a missing key and 0 lead to the first number.
            return ANY if result == action[1] else result - action[1], result
        if kind == "delete":
            return (None, NOTHING) if known and not result else (ANY, None)
        return ANY, ANY

    def reduction(self, operations: Sequence[Operation]) -> Reduction | None:
        longest: Any = None
        for operation in operations:
            if operation.action[0] == "get":
                value: Any = operation.result
                if operation.end is None or value is None:
                    continue
                if type(value) not in (bytes, str) or type(value) is not type(longest or value):
                    return None
                if longest is None or len(value) > len(longest):
                    longest = value
            elif operation.action[0] != "append" or type(operation.action[1]) is not type(
                longest or operation.action[1]
            ):
                return None
        return _OnlyAppended(longest) if longest else None


class _OnlyAppended:
    """A key that is only appended to: a beginning of the longest value read; what comes behind that, nobody has read."""

    def __init__(self, longest: Any) -> None:
        self.longest = longest
        self.kind = type(longest)
        self.unread = "?" if self.kind is str else b"?"

    def state(self, state: Any) -> object:
        longest = self.longest
        if type(state) is not self.kind or longest.startswith(state):
            return state
        return longest + self.unread * (len(state) - len(longest)) if state.startswith(longest) else DEAD

    def action(self, action: Action) -> Action:
        # What was not read in whole or in its beginning can only stand behind what was read: there, its length is all.
        if (
            action[0] == "append"
            and action[1] not in self.longest
            and not any(self.longest.endswith(action[1][:size]) for size in range(1, len(action[1])))
        ):
            return ("append", self.unread * len(action[1]))
        return action


#: The result of an append to a number and the like; equal to no reply.
WRONG_TYPE: Final = _Mark("WRONG_TYPE")


class Inconclusive(Exception):
    """The search was given up: the history may be linearizable or not. It is to be judged as neither."""

    def __init__(self, key: object, operations: int, unknown: int, limit: int) -> None:
        super().__init__(
            f"key {key!r}: no verdict on {operations} operations ({unknown} of unknown outcome) within {limit} steps; "
            "raise the limit, or use more keys or shorter histories"
        )
        self.key = key


@dataclass(slots=True)
class Violation:
    """Why a history is not linearizable: up to ``placed`` an order exists, then no operation fits.

    ``placed`` is the order that gets furthest in time, ``state`` the state after it. ``stuck`` are the operations that
    could come next by their times and do not fit; the first of them ended first, and no order at all gets beyond its
    end. ``window`` are the operations that tell the story: those stuck, and of those placed the ones close to them and
    the ones that wrote what a stuck one has seen.
    """

    key: object
    placed: list[Operation]
    stuck: list[Operation]
    state: object
    total: int
    window: list[Operation] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"key {self.key!r} is not linearizable: an order exists for {len(self.placed)} of {self.total} operations; "
            f"it leaves {_short(self.state)}, and then nothing fits:"
        ]
        lines += [f"  client {op.client}: {op}  {_times(op)}" for op in self.stuck]
        if self.placed:
            shown = self.placed[-8:]
            lines.append("the order up to there" + (", its end" if len(shown) < len(self.placed) else "") + ":")
            lines += [f"  client {op.client}: {op}" for op in shown]
        lines.append("in time (! stuck, > goes on, outcome unknown):")
        return "\n".join([*lines, *self._timeline()])

    def _timeline(self, width: int = 64) -> list[str]:
        """A row for each operation, a column for each moment at which one of them begins or ends."""
        moments = sorted({t for op in self.window for t in (op.call, op.end) if t is not None})
        wide = max(len(moments) - 1, 1)
        column = {t: round(i * (width - 1) / wide) for i, t in enumerate(moments)}
        stuck = {id(op) for op in self.stuck}
        names = [f"client {op.client}" for op in self.window]
        margin = max(map(len, names), default=0)
        rows = []
        for op, name in zip(self.window, names, strict=True):
            start = column[op.call]
            end = width - 1 if op.end is None else column[op.end]
            bar = ("|" if end > start else "") + "-" * (end - start - 1) + (">" if op.end is None else "|")
            mark = "!" if id(op) in stuck else " "
            rows.append(f" {mark} {name:{margin}} {' ' * start}{bar}{' ' * (width - 1 - end)} {op}")
        return rows


def check(history: Iterable[Operation], model: Model, *, limit: int = LIMIT) -> Violation | None:
    """None where every key of the history is linearizable, else what is wrong with one of them.

    ``limit`` bounds the steps of the model for each key. :class:`Inconclusive` where a key needs more, and no other key
    is known to be wrong.
    """
    keys: dict[object, list[Operation]] = {}
    for operation in history:
        found = keys.get(operation.key)
        if found is None:
            keys[operation.key] = [operation]
        else:
            found.append(operation)
    inconclusive: Inconclusive | None = None
    for operations in keys.values():
        search = _Search(operations, model, limit)
        try:
            if not search.run():
                return search.explain()
        except Inconclusive as error:
            inconclusive = inconclusive or error
    if inconclusive is not None:
        raise inconclusive
    return None


#: Later than every time, and later than that. Integers: comparing them with times is quicker than with floats.
_FOREVER: Final = 1 << 100
_AFTER: Final = _FOREVER + 1
_NEVER: Final = -_FOREVER
_NOBODY: Final = (0, 0)
#: End of the operation (_AFTER where unknown), its number as in ``_Frame.entered``, the state after it.
_Move: TypeAlias = tuple[int, int, Any]


@dataclass(slots=True)
class _Frame:
    """A configuration on the way: what was placed to get here, and what may still be tried from here."""

    state: Any
    placed: int  # bits of the operations placed
    used: int  # bits of the operations of unknown outcome used
    horizon: int  # the first end among those not placed: only what was called by then can come next
    entered: int  # the operation whose placing led here; 0 for none, negative for one of unknown outcome
    lifted: list[int]  # placed here at once, since they fit and only read
    moves: list[_Move]  # the best is the last
    guessed: bool  # the operations of unknown outcome have been added to the moves


class _Search:
    """One key. Operations of known outcome are numbered from 1 by their calls, those of unknown outcome likewise."""

    def __init__(self, operations: list[Operation], model: Model, limit: int, aided: bool = True) -> None:
        self.model = model
        self.limit = limit
        self.operations = operations
        self.known = sorted((op for op in operations if op.end is not None), key=_call)
        self.unknown = sorted((op for op in operations if op.end is None), key=_call)
        # Who has to find a state (known, unknown), and who may leave it behind.
        self.readers: dict[object, tuple[int, int]] = {}
        self.writers: dict[object, tuple[int, int]] = {}
        self.traced = False  # whether nothing but ``writers`` leads to a state
        self.readers_complete = False  # whether nothing but ``readers`` looks at a state
        self.reduction: Reduction | None = None
        self.reading = [False] * (len(self.known) + 1)  # by number: changes no state
        if isinstance(model, Traced):
            self._trace(model)
            if aided:
                self.reduction = model.reduction(operations)
            else:
                self.traced = self.readers_complete = False
        # For each unknown operation the one before it that does the same (as a bit): that one is to be used first.
        self.twin: list[int] = []
        last: dict[Action, int] = {}
        for number, op in enumerate(self.unknown):
            action = op.action if self.reduction is None else self.reduction.action(op.action)
            self.twin.append(1 << last[action] if action in last else 0)
            last[action] = number
        self.best = _NEVER
        self.stack: list[_Frame] = []

    def _trace(self, model: Traced) -> None:
        self.traced = self.readers_complete = True
        # (operation, its bits among those of known outcome and those of unknown outcome), as in ``_Frame``
        marked = [(op, 2 << number, 0) for number, op in enumerate(self.known)]
        marked += [(op, 0, 1 << number) for number, op in enumerate(self.unknown)]
        for op, known, unknown in marked:
            before, after = model.trace(op.action, op.result, known > 0)
            if before is ANY:
                self.readers_complete = False
            elif before is not NOTHING:
                others = self.readers.get(before, _NOBODY)
                self.readers[before] = others[0] | known, others[1] | unknown
            if after is ANY:
                self.traced = False
            elif after is NOTHING:
                self.reading[known.bit_length() - 1] |= known > 0
            else:
                others = self.writers.get(after, _NOBODY)
                self.writers[after] = others[0] | known, others[1] | unknown

    def run(self, goal: int = _FOREVER) -> bool:
        """Whether there is an order. Ends early, with the way there on the stack, where the horizon reaches ``goal``."""
        known = self.known
        tail = len(known) + 1
        apply = self.model.apply
        calls = [0, *[op.call for op in known], _AFTER]
        ends = [0, *[_end(op) for op in known], _AFTER]
        actions: list[Action] = [(), *[op.action for op in known]]
        results: list[object] = [None, *[op.result for op in known]]
        reading = self.reading
        after = list(range(1, tail + 2))
        before = list(range(-1, tail + 1))
        seen: dict[tuple[int, Any], int | list[int]] = {}
        stack: list[_Frame] = []
        self.stack = stack
        limit = self.limit
        steps = 0
        best = _NEVER
        state: Any = self.model.initial
        placed = used = entered = 0
        while True:
            # Enter a configuration: place what fits and only reads, gather what fits and writes.
            lifted: list[int] = []
            moves: list[_Move] = []
            horizon: int = _FOREVER
            number = after[0]
            while calls[number] <= horizon:
                steps += 1
                new, result = apply(state, actions[number])
                following = after[number]
                if result == results[number]:
                    if reading[number]:
                        previous = before[number]
                        after[previous] = following
                        before[following] = previous
                        lifted.append(number)
                        placed |= 1 << number
                        number = following
                        continue
                    moves.append((ends[number], number, new))
                if ends[number] < horizon:
                    horizon = ends[number]
                number = following
            frame = _Frame(state, placed, used, horizon, entered, lifted, moves, False)
            stack.append(frame)
            if after[0] == tail:
                return True
            if horizon > best:
                best = self.best = horizon
                if horizon >= goal:
                    return False
            if _covered(seen, (placed, state), used):
                moves.clear()
                frame.guessed = True
            elif moves:
                self._prune(frame)
            # Leave it by its best move, or go back until there is one.
            while not moves:
                if not frame.guessed:
                    frame.guessed = True
                    steps += self._guess(frame)
                    continue
                stack.pop()
                for number in reversed(frame.lifted):
                    after[before[number]] = before[after[number]] = number
                if not stack:
                    return False
                if (number := frame.entered) > 0:
                    after[before[number]] = before[after[number]] = number
                frame = stack[-1]
                moves = frame.moves
            if steps > limit:
                raise Inconclusive(known[0].key, len(self.operations), len(self.unknown), limit)
            _, entered, state = moves.pop()
            placed, used = frame.placed, frame.used
            if entered > 0:
                placed |= 1 << entered
                previous, following = before[entered], after[entered]
                after[previous] = following
                before[following] = previous
            else:
                used |= 1 << -entered - 1

    def _prune(self, frame: _Frame) -> None:
        """Drops moves that lead nowhere, and sorts the rest: what ended first most likely took effect first."""
        moves = frame.moves
        if self.reduction is not None:
            reduce = self.reduction.state
            moves[:] = [(end, number, to) for end, number, new in moves if (to := reduce(new)) is not DEAD]
        if self.traced and (readers := self.readers.get(frame.state)) is not None:
            waiting = readers[0] & ~frame.placed
            if waiting:
                known, unknown = self.writers.get(frame.state, _NOBODY)
                if not unknown & ~frame.used:
                    writers = known & ~frame.placed
                    # The state is still to be read: only who reads it last, or leaves somebody to bring it back, may
                    # change it.
                    moves[:] = [
                        move
                        for move in moves
                        if not waiting & ~(1 << move[1]) or writers & ~(1 << move[1]) or move[2] == frame.state
                    ]
        if len(moves) > 1:
            moves.sort(key=_first, reverse=True)

    def _guess(self, frame: _Frame) -> int:
        """Adds the operations of unknown outcome that make a difference; the number of steps of the model it took."""
        state, used, placed = frame.state, frame.used, frame.placed
        apply = self.model.apply
        steps = 0
        for number, op in enumerate(self.unknown):
            if op.call > frame.horizon:
                break
            twin = self.twin[number]
            if used >> number & 1 or used & twin != twin:
                continue
            steps += 1
            new, _ = apply(state, op.action)
            if self.reduction is not None:
                new = self.reduction.state(new)
            if new == state or new is DEAD:
                continue
            if self.readers_complete:
                known, unknown = self.readers.get(new, _NOBODY)
                if not known & ~placed and not unknown & ~used:
                    continue
            frame.moves.append((_AFTER, -number - 1, new))
        frame.moves.reverse()
        self._prune_guesses(frame)
        return steps

    def _prune_guesses(self, frame: _Frame) -> None:
        if not self.traced or (readers := self.readers.get(frame.state)) is None or not readers[0] & ~frame.placed:
            return
        known, unknown = self.writers.get(frame.state, _NOBODY)
        if not known & ~frame.placed:
            rest = unknown & ~frame.used
            frame.moves[:] = [move for move in frame.moves if rest & ~(1 << -move[1] - 1)]

    def explain(self) -> Violation:
        """After a ``run`` that found no order.

        With the help of a model that looks ahead the search stops where all is lost, which may be long before anybody
        reads what is wrong. So it goes again without, if that does not take too long.
        """
        plain = _Search(self.operations, self.model, min(self.limit, EXPLAIN_LIMIT), aided=False)
        try:
            plain.run()
        except Inconclusive:
            return self._violation()
        return plain._violation()

    def _violation(self) -> Violation:
        """Goes the way again that got furthest, and tells it."""
        self.run(self.best)
        placed: list[Operation] = []
        for frame in self.stack:
            if frame.entered:
                placed.append(self.known[frame.entered - 1] if frame.entered > 0 else self.unknown[-frame.entered - 1])
            placed += [self.known[number - 1] for number in frame.lifted]
        last = self.stack[-1]
        stuck = [
            op
            for number, op in enumerate(self.known, 1)
            if not last.placed >> number & 1 and op.call <= last.horizon
        ]  # fmt: skip
        stuck.sort(key=_end)
        window = self._window(placed, stuck)
        return Violation(self.operations[0].key, placed, stuck, last.state, len(self.operations), window)

    def _window(self, placed: list[Operation], stuck: list[Operation]) -> list[Operation]:
        """Those stuck, the last few placed, and who wrote what the first one stuck has seen."""
        chosen = {id(op): op for op in [*placed[-4:], *stuck]}
        if isinstance(self.model, Traced) and stuck:
            culprit = stuck[0]
            wanted, _ = self.model.trace(culprit.action, culprit.result, True)
            for op in self.operations:
                _, left = self.model.trace(op.action, op.result, op.end is not None)
                if wanted is not NOTHING and wanted is not ANY and left == wanted:
                    chosen[id(op)] = op
        return sorted(chosen.values(), key=_call)


def _covered(seen: dict[tuple[int, Any], int | list[int]], key: tuple[int, Any], used: int) -> bool:
    """Whether this configuration was visited with no more operations of unknown outcome used; notes it otherwise.

    Most configurations are met with one set of them: that is kept as it is, several in a list.
    """
    known = seen.get(key)
    if known is None:
        seen[key] = used
        return False
    if isinstance(known, int):
        if known & used == known:
            return True
        seen[key] = used if known & used == used else [known, used]
        return False
    for other in known:
        if other & used == other:
            return True
    known[:] = [other for other in known if other & used != used]
    known.append(used)
    return False


def _call(op: Operation) -> int:
    return op.call


def _end(op: Operation) -> int:
    assert op.end is not None
    return op.end


def _first(move: _Move) -> int:
    return move[0]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"


def _times(op: Operation) -> str:
    return f"[{op.call}, {'…' if op.end is None else op.end}]"
