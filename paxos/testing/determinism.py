"""Does a state machine do the same with the same values, wherever it runs? Finds what replicas would differ by, before they do.

The same instances go through fresh replicas: two in this process, and one in a process of its own for each of several seeds
of ``hash()``. What they answer, and ``digest()`` where they have it, is written down in a canonical text and compared.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from paxos.errors import ConfigError, StateMachineFailed
from paxos.statemachine import StateMachine

__all__ = ["Nondeterministic", "UnsupportedResult", "canonical", "check_determinism"]

#: Set in the processes that replay, where nobody may start others.
CHILD: Final = "PAXOS_TESTING_REPLAY"
#: Seconds for one such process; one that hangs is an error.
PATIENCE: Final = 600

Factory = Callable[[], StateMachine]


class Nondeterministic(AssertionError):
    """Two replicas did something different with the same instance.

    ``index`` is the place of the value in its instance, or None where it is not a result that differs but the state
    behind the instance. ``results``: both, as canonical text; ``replicas``: who they are.
    """

    def __init__(
        self, machine: str, instance: int, index: int | None, results: tuple[str, str], replicas: tuple[str, str]
    ) -> None:
        what = "the state (digest())" if index is None else f"the result of value {index}"
        super().__init__(
            f"{machine} is not deterministic: {what} differs at instance {instance}:\n"
            f"    {results[0]}  ({replicas[0]})\n"
            f"    {results[1]}  ({replicas[1]})"
        )
        self.machine = machine
        self.instance = instance
        self.index = index
        self.results = results
        self.replicas = replicas


class UnsupportedResult(TypeError):
    """A result or digest has a type whose values cannot be compared between processes."""


def canonical(value: object) -> str:
    """One text for equal values, in every process. Raises UnsupportedResult.

    For None, bool, int, float, str, bytes, and lists, tuples and dicts of them. A dict is its items, in whatever order
    they were put in. Sets are not among them: whoever makes something of one sees its order.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str, bytes):
        return repr(value)
    if isinstance(value, bytearray | memoryview):
        return repr(bytes(value))
    if isinstance(value, list | tuple):
        parts = ", ".join(map(canonical, value))
        return f"[{parts}]" if isinstance(value, list) else f"({parts})"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{canonical(key)}: {canonical(item)}" for key, item in value.items())) + "}"
    raise UnsupportedResult(
        f"a result of type {kind.__qualname__} cannot be compared between processes; results and digests may be None, bool, int, "
        "float, str, bytes, and lists, tuples and dicts of them (of a set make a sorted list)"
    )


def _replay(
    machine: StateMachine, instances: Sequence[Sequence[bytes]], first: int = 0
) -> Iterable[tuple[list[str], str]]:
    """Per instance: the results as texts, and the digest; "" where there is none. An exception ends it, as its last result."""
    digest = getattr(machine, "digest", None)
    for instance, values in enumerate(instances, first):
        try:
            results = list(machine.apply_batch(instance, values))
            state = "" if digest is None else canonical(digest())
        except UnsupportedResult:
            raise
        except Exception as error:
            yield [f"raised {type(error).__name__}: {error}"], ""
            return
        yield [canonical(result) for result in results], state


def check_determinism(
    machine: Factory,
    history: Iterable[bytes | Sequence[bytes]],
    *,
    hash_seeds: Sequence[int] = (0, 1, 42),
) -> None:
    """Replays ``history`` through fresh replicas and compares all that they answer, and their ``digest()`` behind each instance.

    :param machine: a state machine class or factory, which other processes can import: at the top of a module or a script.
    :param history: one item per instance: its values, or a single one. ``cluster.history`` of a simulation is one.
    :param hash_seeds: a process is started for each, with this PYTHONHASHSEED. None (``()``): only replicas in this process.
    :raises Nondeterministic: two replicas differ; it names the state machine and the first instance.
    :raises StateMachineFailed: all replicas raise the same.
    :raises UnsupportedResult: what ``apply`` returns cannot be compared.
    :raises ConfigError: the factory cannot be imported elsewhere, or a parameter cannot work.
    """
    if os.environ.get(CHILD):
        raise ConfigError(
            'check_determinism() was called as its own script was imported; put the call below `if __name__ == "__main__":`'
        )
    instances = [[item] if isinstance(item, bytes) else [bytes(value) for value in item] for item in history]
    if not instances:
        raise ConfigError(
            "history is empty: there is nothing to compare; give it values, or cluster.history of a simulation"
        )
    for seed in hash_seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= 4294967295:
            raise ConfigError(f"hash_seeds: {seed!r} is no whole number from 0 to 4294967295")
    where = _where(machine) if hash_seeds else ("", "", "")
    replicas = [machine(), machine()]
    for made in replicas:
        if not isinstance(made, StateMachine):
            raise ConfigError(f"the factory made a {type(made).__name__}; it must be a paxos.StateMachine")
        if made.last_applied() != -1:
            raise ConfigError(
                f"the factory must make a state machine that has applied nothing, not {made.last_applied()}"
            )
    name = type(replicas[0]).__name__
    first = list(_replay(replicas[0], instances))
    _compare(
        name, first, list(_replay(replicas[1], instances)), "a replica in this process", "another one in this process"
    )
    for seed in hash_seeds:
        other = _elsewhere(where, instances, seed)
        _compare(name, first, other, "a replica in this process", f"one with PYTHONHASHSEED={seed}")
    results, _ = first[-1]
    if results and results[0].startswith("raised "):
        raise StateMachineFailed(f"{name} {results[0]} (at instance {len(first) - 1}, on all replicas alike)")


def _compare(
    name: str, first: list[tuple[list[str], str]], other: list[tuple[list[str], str]], here: str, there: str
) -> None:
    for instance, ((results, state), (other_results, other_state)) in enumerate(zip(first, other, strict=False)):
        for index, pair in enumerate(zip(results, other_results, strict=False)):
            if pair[0] != pair[1]:
                raise Nondeterministic(name, instance, index, pair, (here, there))
        if len(results) != len(other_results):
            sizes = (f"{len(results)} results", f"{len(other_results)} results")
            raise Nondeterministic(name, instance, min(len(results), len(other_results)), sizes, (here, there))
        if state != other_state:
            raise Nondeterministic(name, instance, None, (state, other_state), (here, there))
    if len(first) != len(other):
        raise AssertionError("replicas that answered the same did not end at the same instance")


# -- other processes


def _where(factory: Factory) -> tuple[str, str, str]:
    """(module, file, name in it) by which another process finds the factory. ConfigError says why it cannot."""
    module_name, qualified = getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)
    wish = "define a class or function at the top of a module, or check in this process only (hash_seeds=())"
    if not module_name or not qualified:
        raise ConfigError(f"{factory!r} cannot be imported by another process; {wish}")
    if "<" in qualified:
        raise ConfigError(
            f"{qualified} cannot be imported by another process: it is a lambda or local to a function; {wish}"
        )
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).exists():
        raise ConfigError(
            f"{qualified} cannot be imported by another process: its module {module_name} has no file; {wish}"
        )
    if _find(module, qualified) is not factory:
        raise ConfigError(f"{module_name}.{qualified} is something else than {factory!r}; {wish}")
    return module_name, os.path.abspath(file), qualified


def _find(module: ModuleType | None, qualified: str) -> object:
    found: Any = module
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


def _elsewhere(
    where: tuple[str, str, str], instances: Sequence[Sequence[bytes]], seed: int
) -> list[tuple[list[str], str]]:
    """The replay in a process of its own. Values go there in base64, texts come back as JSON."""
    environment = dict(os.environ)
    environment["PYTHONHASHSEED"] = str(seed)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment[CHILD] = "1"
    lines = [json.dumps([base64.b64encode(value).decode() for value in values]) for values in instances]
    command = [sys.executable, "-m", "paxos.testing.determinism", *where]
    run = subprocess.run(
        command, input="\n".join(lines) + "\n", env=environment, capture_output=True, text=True, encoding="utf-8",
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    if run.returncode != 0:
        raise ConfigError(f"{where[2]} of {where[1]} could not be replayed in another process:\n{run.stderr.strip()}")
    # Behind a mark: what the module or the state machine prints is not for us.
    found = [json.loads(line[len(CHILD) :]) for line in run.stdout.splitlines() if line.startswith(CHILD)]
    return [(results, state) for results, state in found]


def _load(name: str, file: str) -> ModuleType:
    """The module by its name, if it is found under it; else from its file, as test modules and scripts are."""
    if name != "__main__":
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin is not None and os.path.abspath(spec.origin) == file:
            return importlib.import_module(name)
    # Not under the name of a script that is run: it would run.
    alias = "paxos_testing_script" if name == "__main__" else name
    spec = importlib.util.spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    spec.loader.exec_module(module)
    return module


def _main(name: str, file: str, qualified: str) -> None:
    factory: Any = _find(_load(name, file), qualified)
    instances = [[base64.b64decode(value) for value in json.loads(line)] for line in sys.stdin]
    for results, state in _replay(factory(), instances):
        print("\n" + CHILD + json.dumps([results, state]))  # on a line of its own, whatever was printed before


if __name__ == "__main__":
    _main(*sys.argv[1:])
