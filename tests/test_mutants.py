"""The judges must find bugs that were put in on purpose (design, section 6: mutation)."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from paxos.errors import ConfigError
from paxos.testing.hunt import CAUGHT
from paxos.testing.mutants import MUTANTS, Mutant
from paxos.testing.mutating import build, command, find

#: What the hunt of a mutant said: the exit status and its line.
Caught = tuple[int, str]


def hunt(mutant: Mutant, folder: Path) -> Caught:
    build(mutant, folder)
    words, environment = command(mutant, 0, mutant.seeds, folder)
    run = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout.strip() or run.stderr


@pytest.fixture(scope="session")
def hunts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Caught]]]:
    """The hunts of the mutants that this session asks for, on all cores."""
    wanted = [item.callspec.params["mutant"] for item in request.session.items
              if item.path == Path(__file__) and hasattr(item, "callspec")]  # fmt: skip
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield {m.name: pool.submit(hunt, m, tmp_path_factory.mktemp("mutant")) for m in wanted}


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(
    mutant: Mutant, hunts: dict[str, Future[Caught]], record_property: Callable[[str, object], None]
) -> None:
    status, words = hunts[mutant.name].result()
    assert status == CAUGHT, f"{mutant.name} ({mutant.rule}): {words}"
    assert "nothing found" not in words
    record_property("caught", words)


def test_every_rule_that_is_built_has_mutants() -> None:
    """Design, section 5. 17 has tests of its own."""
    rules = Counter(mutant.rule.split(":")[0] for mutant in MUTANTS)
    built = {str(rule) for rule in range(1, 23)} - {"17", "21"}
    assert built <= set(rules), f"without mutants: {sorted(built - set(rules), key=int)}"
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_whose_place_is_gone_says_so(tmp_path: Path) -> None:
    gone = Mutant("gone", "1: nothing", "_core.pyx", "this line was never there", "")
    with pytest.raises(ConfigError, match=r"0 places in _core\.pyx fit"):
        build(gone, tmp_path)
    with pytest.raises(ConfigError, match="there is no mutant 'no-such'"):
        find("no-such")


def test_without_the_bug_the_hunters_find_nothing(tmp_path: Path) -> None:
    """A copy of the package with nothing changed: what is caught is the bug, and not the copy."""
    same = Mutant("same", "none", "group.py", "FOREVER = 10**17", "FOREVER = 10**17 ", 6)
    for kind in ("cluster", "log"):
        status, words = hunt(Mutant(same.name, same.rule, same.file, same.old, same.new, same.seeds, kind), tmp_path)
        assert (status, words) == (0, "6 seeds: nothing found")
    name = "test_reads.py::test_an_answer_to_an_older_question_is_none"
    status, words = hunt(Mutant(same.name, same.rule, same.file, same.old, same.new, hunt=f"test {name}"), tmp_path)
    assert (status, words) == (0, f"{name}: nothing found")
