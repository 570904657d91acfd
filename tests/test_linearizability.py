"""The judge of histories, against a judge too simple to be wrong, and on histories made by hand."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paxos.testing.linearizability import Inconclusive, Operation, Register, check


class Plain:
    """A register that says nothing of itself, so that nothing but the search itself finds the verdict."""

    initial = None

    def apply(self, state: Any, action: tuple[Any, ...]) -> tuple[Any, object]:
        return Register().apply(state, action)


def op(client: int, call: int, end: int | None, *action: Any, result: object = None, key: object = "x") -> Operation:
    return Operation(client, key, call, end, action, result)


def linearizable(operations: list[Operation], until: int = 1 << 60) -> bool:
    """All orders of all selections: the definition, written down. For one key and a handful of operations.

    What ends later than ``until`` may be left out.
    """
    known = [operation for operation in operations if operation.end is not None and operation.end <= until]
    optional = [operation for operation in operations if operation.end is None or operation.end > until]
    model = Register()
    for count in range(len(optional) + 1):
        for happened in itertools.combinations(optional, count):
            for order in itertools.permutations(known + list(happened)):
                if any(
                    later.end is not None and later.end < earlier.call
                    for place, earlier in enumerate(order)
                    for later in order[place + 1 :]
                ):
                    continue
                state: Any = None
                for operation in order:
                    state, result = model.apply(state, operation.action)
                    if operation.end is not None and result != operation.result:
                        break
                else:
                    return True
    return False


VALUES = st.sampled_from([b"a", b"b", b"c"])
ACTIONS = {
    "register": st.one_of(
        st.just(("get",)),
        st.tuples(st.just("set"), VALUES),
        st.tuples(st.just("cas"), VALUES, VALUES),
        st.tuples(st.just("setnx"), VALUES),
        st.just(("delete",)),
    ),
    "list": st.one_of(st.just(("get",)), st.tuples(st.just("append"), st.sampled_from([b"a", b"b", b"ab", b"cc"]))),
    "counter": st.one_of(st.just(("get",)), st.tuples(st.just("incr"), st.sampled_from([1, 1, 2, -1]))),
    "mixed": st.one_of(
        st.just(("get",)),
        st.tuples(st.just("set"), VALUES),
        st.tuples(st.just("append"), VALUES),
        st.tuples(st.just("cas"), VALUES, VALUES),
        st.tuples(st.just("incr"), st.just(1)),
    ),
}


@st.composite
def histories(draw: st.DrawFn, most: int = 6) -> list[Operation]:
    """Of a correct register, then perhaps with one reply or one time falsified: about as many good as bad ones."""
    actions = ACTIONS[draw(st.sampled_from(sorted(ACTIONS)))]
    moments: list[tuple[int, int, Operation]] = []
    operations = []
    for number in range(draw(st.integers(1, most))):
        call = draw(st.integers(0, 12))
        end = call + draw(st.integers(0, 8))
        outcome = draw(st.sampled_from(["known", "known", "known", "late", "never"]))
        operation = op(number, call, end if outcome == "known" else None, *draw(actions))
        operations.append(operation)
        if outcome != "never":
            moments.append((draw(st.integers(call, end if outcome == "known" else 20)), number, operation))
    state: Any = None
    for _, _, operation in sorted(moments, key=lambda moment: moment[:2]):
        state, operation.result = Register().apply(state, operation.action)
    victim = operations[draw(st.integers(0, len(operations) - 1))]
    match draw(st.sampled_from(["nothing", "result", "time"])):
        case "result":
            victim.result = draw(st.sampled_from([None, b"a", b"b", b"ab", b"", True, False, 1, 2, 3]))
        case "time" if victim.end is not None:
            moved = draw(st.integers(-10, 10))
            victim.call += moved
            victim.end += moved
    return operations


@settings(max_examples=1000)
@given(histories())
def test_the_verdict_is_that_of_the_definition(history: list[Operation]) -> None:
    expected = linearizable(history)
    for model in (Register(), Plain()):
        violation = check(history, model)
        assert (violation is None) == expected, f"{type(model).__name__}: {violation}"


@settings(max_examples=200)
@given(histories())
def test_a_violation_tells_a_true_story(history: list[Operation]) -> None:
    violation = check(history, Register())
    if violation is None:
        return
    assert violation.stuck, "somebody must be stuck"
    state: Any = None
    for operation in violation.placed:
        state, result = Register().apply(state, operation.action)
        assert operation.end is None or result == operation.result
    chosen = {id(operation) for operation in [*violation.placed, *violation.stuck]}
    assert len(chosen) == len(violation.placed) + len(violation.stuck), "placed and stuck at once"
    # What ended no later than the first one stuck is enough to condemn the history, and nothing less is.
    until = violation.stuck[0].end
    assert until is not None
    assert not linearizable(history, until)
    assert linearizable(history, until - 1)


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_long_histories_of_a_correct_service_pass_and_a_false_reply_is_found(seed: int) -> None:
    history = simulated(seed, operations=400, keys=4, clients=8, unknown=0.1)
    assert check(history, Register()) is None
    reads = [one for one in history if one.end is not None and one.action == ("get",)]
    random.Random(seed).choice(reads).result = b"nobody wrote this"
    assert check(history, Register()) is not None


def simulated(seed: int, operations: int, keys: int, clients: int, unknown: float) -> list[Operation]:
    """Concurrent clients of a service that does everything right, at a random moment between call and end."""
    choose = random.Random(seed)
    free = [0] * clients
    moments = []
    history = []
    for number in range(operations):
        client = min(range(clients), key=free.__getitem__)
        call = free[client] + choose.randint(1, 20)
        end = call + choose.randint(5, 100)
        key = choose.randrange(keys)
        kind = ("register", "list", "counter", "register")[key % 4]
        if choose.random() < 0.4:
            action: tuple[Any, ...] = ("get",)
        elif kind == "register":
            value = b"%d" % number
            action = choose.choice([("set", value), ("setnx", value), ("cas", b"%d" % (number - 3), value)])
        else:
            action = ("append", b"%d;" % number) if kind == "list" else ("incr", choose.randint(1, 2))
        lost = choose.random() < unknown
        free[client] = end
        operation = op(client, call, None if lost else end, *action, key=f"k{key}")
        history.append(operation)
        if not lost or choose.random() < 0.5:
            moment = choose.randint(call, end + (choose.choice([0, 2000]) if lost else 0))
            moments.append((moment, number, operation))
    states: dict[object, Any] = {}
    for _, _, operation in sorted(moments, key=lambda moment: moment[:2]):
        states[operation.key], operation.result = Register().apply(states.get(operation.key), operation.action)
    return history


def test_it_is_fast() -> None:
    """1,500 operations, 8 keys, 8 clients, one in twenty of unknown outcome: milliseconds. The bound is for any machine."""
    times = []
    for seed in range(5):
        history = simulated(seed, operations=1500, keys=8, clients=8, unknown=0.05)
        start = time.perf_counter()
        assert check(history, Register()) is None
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5, times


# -- by hand


def rejected(*operations: Operation) -> str:
    """Judged to be wrong, by both models; what is said about it."""
    assert not linearizable(list(operations)), "the definition accepts it"
    assert check(operations, Plain()) is not None
    violation = check(operations, Register())
    assert violation is not None
    return str(violation)


def accepted(*operations: Operation) -> None:
    assert linearizable(list(operations))
    assert check(operations, Plain()) is None
    assert check(operations, Register()) is None


def test_nothing_and_one_thing_after_the_other() -> None:
    assert check([], Register()) is None
    accepted(op(1, 0, 1, "set", b"a"), op(2, 2, 3, "get", result=b"a"))


def test_a_stale_read() -> None:
    text = rejected(
        op(1, 0, 10, "set", b"old"),
        op(1, 20, 30, "set", b"new"),
        op(2, 40, 50, "get", result=b"old"),
    )
    assert "'x' is not linearizable" in text
    assert "client 2: get → b'old'  [40, 50]" in text
    assert "set b'new' → None" in text
    assert "set b'old' → None" in text, "who wrote what was read belongs to the story"


def test_a_read_during_the_write_may_see_either_but_not_go_back() -> None:
    old, new = op(1, 0, 10, "set", b"old"), op(1, 20, 60, "set", b"new")
    accepted(old, new, op(2, 30, 35, "get", result=b"old"), op(2, 40, 45, "get", result=b"new"))
    rejected(old, new, op(2, 30, 35, "get", result=b"new"), op(2, 40, 45, "get", result=b"old"))


def test_a_lost_update() -> None:
    text = rejected(
        op(1, 0, 10, "incr", 1, result=1), op(2, 5, 15, "incr", 1, result=1), op(3, 20, 30, "get", result=1)
    )
    assert "incr 1 → 1" in text
    rejected(
        op(1, 0, 10, "append", b"a;", result=2), op(2, 5, 15, "get", result=b"a;"), op(3, 20, 30, "get", result=None)
    )


def test_split_brain() -> None:
    """Two masters, each of which answers from its own state: each is right by itself, both are not."""
    left = [op(1, 0, 10, "set", b"left"), op(1, 20, 30, "get", result=b"left"), op(1, 40, 50, "get", result=b"left")]
    right = [
        op(2, 1, 11, "set", b"right"),
        op(2, 21, 31, "get", result=b"right"),
        op(2, 41, 51, "get", result=b"right"),
    ]
    accepted(*left)
    accepted(*right)
    text = rejected(*left, *right)
    assert "client 1" in text
    assert "client 2" in text


def test_two_winners_of_one_cas() -> None:
    rejected(
        op(1, 0, 5, "set", b"free"),
        op(1, 10, 20, "cas", b"free", b"1", result=True),
        op(2, 10, 20, "cas", b"free", b"2", result=True),
    )
    accepted(op(1, 0, 20, "setnx", b"1", result=True), op(2, 0, 20, "setnx", b"2", result=False))
    rejected(op(1, 0, 20, "setnx", b"1", result=True), op(2, 0, 20, "setnx", b"2", result=True))


def test_an_unknown_operation_may_take_effect_late() -> None:
    lost = op(1, 0, None, "set", b"late")
    wrote = op(2, 10, 20, "set", b"b")
    accepted(lost, wrote, op(2, 30, 40, "get", result=b"b"), op(2, 100, 110, "get", result=b"late"))
    # But once, and not before it was sent.
    rejected(
        lost,
        wrote,
        op(2, 30, 40, "get", result=b"late"),
        op(2, 50, 60, "set", b"c"),
        op(2, 70, 80, "get", result=b"late"),
    )
    rejected(op(2, 0, 5, "get", result=b"late"), op(1, 10, None, "set", b"late"))


def test_an_unknown_operation_may_never_take_effect() -> None:
    accepted(op(1, 0, None, "incr", 5), op(2, 10, 20, "incr", 1, result=1), op(2, 30, 40, "get", result=1))
    rejected(op(1, 0, None, "incr", 5), op(2, 10, 20, "incr", 1, result=3))
    accepted(*[op(i, 0, None, "append", b"%d" % i) for i in range(4)], op(9, 10, 20, "get", result=b"31"))


def test_a_write_of_what_is_there_may_be_needed_later() -> None:
    writes = [op(1, 0, 5, "set", b"b"), op(2, 0, 5, "delete", result=True), op(3, 0, 5, "set", b"b")]
    accepted(*writes, op(4, 10, 15, "get", result=b"b"))
    accepted(*writes, op(4, 10, 15, "get", result=None))
    rejected(*writes, op(4, 10, 15, "get", result=None), op(4, 20, 25, "get", result=b"b"))


def test_several_unknown_operations_in_a_row_explain_one_read() -> None:
    lost = [op(1, 0, None, "set", b"a"), op(2, 0, None, "cas", b"a", b"b"), op(3, 0, None, "append", b"c")]
    accepted(*lost, op(4, 10, 20, "get", result=b"bc"))
    rejected(*lost[1:], op(4, 10, 20, "get", result=b"bc"))


def test_times_that_touch_are_concurrent() -> None:
    accepted(op(1, 0, 10, "set", b"a"), op(2, 10, 20, "get", result=None))
    rejected(op(1, 0, 9, "set", b"a"), op(2, 10, 20, "get", result=None))


def test_the_key_that_is_wrong_is_named_and_shown_in_time() -> None:
    history = [op(1, 10 * i, 10 * i + 5, "set", b"%d" % i, key=f"good{i}") for i in range(5)]
    history += [op(7, 0, 5, "set", b"a", key="bad"), op(8, 10, None, "set", b"b", key="bad")]
    history += [op(9, 20, 30, "get", result=b"z", key="bad")]
    violation = check(history, Register())
    assert violation is not None
    assert violation.key == "bad"
    assert violation.stuck == [history[-1]]
    text = str(violation)
    assert "good" not in text
    shown = text.splitlines()
    assert any(line.startswith(" ! client 9 ") and line.endswith("get → b'z'") for line in shown), text
    assert any(line.startswith("   client 7 ") and "|--" in line for line in shown), text


def test_giving_up_is_an_error_of_its_own() -> None:
    history = [op(i, 0, None, "append", b"%d;" % i) for i in range(12)]
    history += [op(20 + i, 10 + i, 100, "set", b"s%d" % i) for i in range(8)]
    history += [op(50, 200, 210, "get", result=b"nothing like it")]
    with pytest.raises(
        Inconclusive, match=r"key 'x': no verdict on 21 operations \(12 of unknown outcome\) within 1000"
    ):
        check(history, Plain(), limit=1000)
    # Another key that is wrong for certain is worth more than none of the verdicts.
    wrong = op(60, 0, 5, "get", result=b"z", key="y")
    violation = check([*history, wrong], Plain(), limit=1000)
    assert violation is not None
    assert violation.key == "y"


def test_a_reply_of_the_wrong_kind_is_no_reply_of_a_register() -> None:
    rejected(op(1, 0, 1, "set", b"a"), op(1, 2, 3, "incr", 1, result=1))
    rejected(op(1, 0, 1, "incr", 1, result=1), op(1, 2, 3, "append", b"a", result=2))
    with pytest.raises(ValueError, match="no operation 'pop'"):
        check([op(1, 0, 1, "pop")], Register())
