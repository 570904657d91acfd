"""check_determinism: what replicas would differ by, found before they do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import paxos
from paxos.errors import ConfigError, StateMachineFailed
from paxos.testing import Nondeterministic, SimCluster, UnsupportedResult, check_determinism
from paxos.testing.determinism import canonical

TOP = Path(__file__).resolve().parent.parent
NAMES = [b"alice", b"bob", b"carol", b"dave", b"eve", b"frank"]


class Names(paxos.StateMachine):
    """Right: answers in an order of its own."""

    def __init__(self) -> None:
        self.names: set[bytes] = set()

    def apply(self, instance: int, value: bytes) -> object:
        print("a state machine may print", end="")
        self.names.add(value)
        return sorted(self.names)

    def digest(self) -> object:
        return sorted(self.names)


class Unordered(Names):
    """Answers in the order of a set."""

    def apply(self, instance: int, value: bytes) -> object:
        super().apply(instance, value)
        return b" ".join(self.names)


class Silent(Names):
    """Answers nothing; its state has the order of a set."""

    def apply(self, instance: int, value: bytes) -> object:
        super().apply(instance, value)
        return None

    def digest(self) -> object:
        return list(self.names)


class Dice(Names):
    """Rolls dice, from the third instance on."""

    def apply(self, instance: int, value: bytes) -> object:
        return (instance, random.random() if instance >= 3 else None)


class Address(Names):
    """Answers by where an object lies, at the second value of an instance."""

    def apply_batch(self, instance: int, values: Sequence[bytes]) -> Sequence[object]:
        return [None if index != 1 else id(self) for index, _ in enumerate(values)]


class Process(Names):
    """Answers by the process that it runs in."""

    def apply(self, instance: int, value: bytes) -> object:
        return os.getpid()


class Raises(Names):
    def apply(self, instance: int, value: bytes) -> object:
        if instance == 2:
            raise KeyError("no such account")
        return None


class Sets(Names):
    def apply(self, instance: int, value: bytes) -> object:
        return {1, 2}


class Outer:
    class Inner(Names):
        pass


def made() -> Names:
    return Names()


@pytest.mark.processes
@pytest.mark.parametrize("factory", [Names, Outer.Inner, made])
def test_what_is_right_passes(factory: Callable[[], Names]) -> None:
    check_determinism(factory, NAMES)
    check_determinism(factory, [NAMES[:2], [], NAMES[2:]], hash_seeds=(7,))


@pytest.mark.processes
def test_the_order_of_a_set_is_found_and_named() -> None:
    with pytest.raises(
        Nondeterministic, match=r"Unordered is not deterministic: the result of value 0 differs at"
    ) as caught:
        check_determinism(Unordered, NAMES)
    error = caught.value
    assert error.machine == "Unordered"
    assert 1 <= error.instance < len(NAMES)
    assert error.index == 0
    assert error.results[0] != error.results[1]
    assert error.replicas[1].startswith("one with PYTHONHASHSEED=")


@pytest.mark.processes
def test_the_state_is_compared_behind_each_instance() -> None:
    with pytest.raises(Nondeterministic, match=r"the state \(digest\(\)\) differs at instance") as caught:
        check_determinism(Silent, [[b"x"], [], NAMES])
    assert caught.value.index is None
    assert caught.value.instance == 2


def test_two_replicas_in_one_process() -> None:
    for hash_seeds in ((), (0,)):
        with pytest.raises(Nondeterministic) as caught:
            check_determinism(Dice, NAMES, hash_seeds=hash_seeds)
        assert (caught.value.machine, caught.value.instance, caught.value.index) == ("Dice", 3, 0)
    with pytest.raises(Nondeterministic) as caught:
        check_determinism(Address, [[b"a"], [b"a", b"b", b"c"]], hash_seeds=())
    assert (caught.value.instance, caught.value.index) == (1, 1)


@pytest.mark.processes
def test_what_differs_between_processes() -> None:
    check_determinism(Process, NAMES, hash_seeds=())
    with pytest.raises(Nondeterministic, match="PYTHONHASHSEED=5") as caught:
        check_determinism(Process, NAMES, hash_seeds=(5,))
    assert caught.value.instance == 0


@pytest.mark.processes
def test_an_exception_on_all_replicas_is_no_difference() -> None:
    with pytest.raises(StateMachineFailed, match=r"Raises raised KeyError: .*\(at instance 2, on all replicas alike\)"):
        check_determinism(Raises, NAMES)


def test_results_that_cannot_be_compared() -> None:
    with pytest.raises(UnsupportedResult, match=r"a result of type set cannot be compared .* sorted list"):
        check_determinism(Sets, NAMES)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        ([1], (1,), False),
        (1, True, False),
        (1, 1.0, False),
        (b"a", "a", False),
        (b"a", bytearray(b"a"), True),
        ({1: [None, {"x": (b"",)}]}, {1: [None, {"x": (b"",)}]}, True),
        ("1", 1, False),
    ],
)
def test_canonical_texts(left: object, right: object, same: bool) -> None:
    assert (canonical(left) == canonical(right)) is same


def test_canonical_refuses_what_has_no_one_text() -> None:
    for value in ({1}, frozenset(), object(), ValueError(), [1, {2}], {"a": {1}}):
        with pytest.raises(UnsupportedResult):
            canonical(value)


@pytest.mark.processes
def test_the_history_of_a_simulation(sim_cluster: Callable[..., SimCluster]) -> None:
    cluster = sim_cluster(Unordered)

    async def story() -> None:
        for name in NAMES:
            await cluster.propose(name)

    cluster.run(story())
    with pytest.raises(Nondeterministic, match="Unordered"):
        check_determinism(Unordered, cluster.history)


def test_misuse() -> None:
    class Local(Names):
        pass

    misuse: list[tuple[Any, Any, tuple[Any, ...], str]] = [
        (lambda: Names(), NAMES, (0,), "it is a lambda or local"),
        (Local, NAMES, (0,), "it is a lambda or local"),
        (int, NAMES, (0,), "its module builtins has no file"),
        (Names(), NAMES, (0,), "cannot be imported by another process"),
        (Names, [], (0,), "history is empty"),
        (Names, NAMES, (-1,), "hash_seeds: -1"),
        (Path, NAMES, (), "must be a paxos.StateMachine"),
    ]
    for factory, history, hash_seeds, message in misuse:
        with pytest.raises(ConfigError, match=message):
            check_determinism(factory, history, hash_seeds=hash_seeds)
    check_determinism(Local, NAMES, hash_seeds=())


@pytest.mark.processes
def test_a_script_that_calls_it_unguarded_does_not_start_processes_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import paxos\nfrom paxos.testing import check_determinism\n"
        "class M(paxos.StateMachine):\n    def apply(self, instance, value): return 1\n"
        "check_determinism(M, [b'a'])\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert 'put the call below `if __name__ == "__main__":`' in run.stderr
