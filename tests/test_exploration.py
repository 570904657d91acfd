"""Small scopes of the real core, explored to their end; and bugs put in on purpose, which the explorer must find (design,
section 6). See paxos/testing/explore.py for the model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from hunts import Hunts
from paxos.testing.explore import (
    CI,
    FORWARDS,
    LARGE,
    LEARNING,
    NEWS,
    REJECTS,
    SCOPES,
    TABLES,
    VOTING,
    Scope,
    explore,
    main,
)

# States, outcomes, ballots with a master. A change of the core that changes what can happen changes these numbers: when it
# was meant to, put the new ones here. One that makes them much smaller has lost something.
SEEN = {
    "rivals": (853_317, 13, 4),
    "return": (4_583_890, 11, 6),
    "three": (4_759_189, 32, 4),
    "voter": (1_570_959, 10, 4),
    "master": (1_085_279, 13, 4),
    "lives": (1_435_918, 14, 2),
    "twice": (832_979, 6, 4),
    "news": (1_586_237, 10, 4),
    "late": (415_492, 6, 4),
    "refused": (771_680, 10, 4),
    "forward": (540_169, 11, 4),
    "join": (61_374, 29, 4),
    "shrink": (149_670, 24, 4),
    "grow": (58_830, 5, 3),
    "dispute": (144_947, 17, 6),
    "busy": (50_908, 30, 3),
    "remove": (1_237_129, 23, 4),
    "resume": (411_807, 22, 4),
    "replace": (795_407, 8, 4),
    "catch-up": (355_777, 4, 1),
    "newcomer": (251_788, 17, 8),
}
# The checked build takes several times as long.
LONG = ("return", "three")


@pytest.mark.parametrize(
    "scope",
    [scope for scope in CI if not os.environ.get("PAXOS_DEBUG") or scope.name not in LONG],
    ids=lambda scope: scope.name,
)
def test_scope_holds_to_its_end(scope: Scope, record_property: Callable[[str, object], None]) -> None:
    result = explore(scope)
    record_property("seen", str(result))
    assert result.violation is None, "\n".join([result.violation or "", *result.schedule])
    assert result.complete
    assert (result.states, result.outcomes, result.masters) == SEEN[scope.name]
    # Did anything happen at all?
    assert result.states > result.chosen > result.states // 2
    assert (result.filled > result.chosen // 20) == any(scope.values)
    assert (result.moved > result.states // 100) == any(scope.changes)
    if scope.voters == "123":  # (of two voters both are needed for a ballot)
        assert (result.rivals > 0) == (sum(n > 0 for n in scope.elections) > 1)


SMALL = (
    Scope("value", "", (1, 0, 0), (1, 0, 0)),
    Scope("voter", "", (1, 0, 0), (1, 0, 0), (0, 0, 1), 1),
    Scope("master", "", (1, 0, 0), (1, 0, 0), (1, 0, 0), 1),
    Scope("rivals", "", (1, 1, 0), instances=1),
    Scope("news", "", (1, 0, 0), (0, 0, 0), (0, 0, 1), 1, carried=VOTING | NEWS),
    Scope("refused", "", (1, 1, 0), instances=1, carried=VOTING | REJECTS),
    Scope("forward", "", (1, 0, 0), (0, 1, 0), expiries=(0, 1, 0), carried=VOTING | FORWARDS),
    Scope("move", "", (1, 1, 0), carried=VOTING | LEARNING, instances=3, voters="12", changes=("13", "", ""), alpha=1),
    Scope("told", "", (1, 0, 0), carried=VOTING | TABLES, instances=4, voters="12", changes=("13", "", ""), alpha=2),
    Scope(
        "alone",
        "",
        (1, 0, 1),
        crashes=(0, 0, 1),
        all_crashes=1,
        carried=VOTING | LEARNING,
        instances=5,
        voters="1",
        changes=("13 1", "", ""),
        alpha=1,
    ),
    Scope(
        "lost",
        "",
        (1, 0, 0),
        carried=VOTING | LEARNING,
        instances=3,
        voters="12",
        changes=("12'", "", ""),
        losses=(0, 1, 0),
        alpha=1,
    ),
)


@pytest.mark.parametrize("scope", SMALL, ids=lambda scope: scope.name)
def test_what_is_left_out_makes_no_difference(scope: Scope) -> None:
    short, plain = explore(scope), explore(replace(scope, plain=True))
    assert short.complete
    assert plain.complete
    assert short.states * 10 < plain.states
    assert (short.choices, short.masters, short.frames) == (plain.choices, plain.masters, plain.frames)


# Which scope finds a mutant, in how many states at most, and what it says of it. (Those of which only the explorer is the hunter
# are in test_mutants, too.)
CAUGHT = {
    "own-vote-before-durable": ("master", 1_000, "no quorum has durably accepted"),
    "vote-counted-twice": ("rivals", 100, "no quorum has durably accepted"),
    "half-is-a-quorum": ("master", 1_000, "no quorum has durably accepted"),
    "lowest-ballot-wins": ("return", 200_000, "two values are chosen"),
    "promise-forgets-accepted": ("rivals", 6_000, "two values are chosen"),
    "accept-below-the-promise": ("rivals", 10_000, "two values are chosen"),
    "candidate-does-not-learn-first": ("rivals", 30_000, "two values are chosen"),
    "acceptance-lost-on-restart": ("master", 20_000, "two values are chosen"),
    "acceptance-implies-no-promise": ("rivals", 200, "before it is durable"),
    "promise-before-durable": ("rivals", 20, "a promise leaves before it is durable"),
    "reply-before-durable": ("rivals", 100, "an acceptance leaves before it is durable"),
    "prepare-before-durable": ("rivals", 20, "a ballot is used before its record is durable"),
    "report-counted-twice": ("rivals", 15_000, "two values are chosen"),
    "notice-without-ballot": ("news", 50_000, "not those of another"),
    "unknown-called-refused": ("forward", 2_000, "certainly not executed"),
    "vote-of-another-ballot": ("lives", 20_000, ""),
    "change-in-force-at-once": ("shrink", 2_000, "no majority of those who vote there"),
    "old-voters-choose-above-a-change": ("grow", 1_000, "no quorum has durably accepted"),
    "new-voters-choose-below-a-change": ("shrink", 10_000, "no quorum has durably accepted"),
    "elected-by-the-new-voters": ("shrink", 2_000, "no majority of those who vote there"),
    "ballot-not-promised-by-new-voters": ("join", 1_000, "no majority of those who vote there"),
    "new-voters-reports-not-proposed-again": ("replace", 300_000, "two values are chosen"),
    "accepts-above-a-change-without-knowing-all-below": ("join", 1_000, "no majority of them knows"),
    "accepts-where-it-cannot-know-who-votes": ("catch-up", 2_000, "no majority of them knows"),
    "takes-over-beyond-alpha": ("dispute", 1_000, "not settled yet who votes"),
    "two-changes-at-a-time": ("join", 70_000, "no majority of those who vote there"),
    "change-forgotten-on-restart": ("resume", 30_000, "no majority of them knows"),
    "votes-while-catching-up": ("catch-up", 10_000, "no quorum has durably accepted"),
    "stranger-has-a-say": ("catch-up", 100, "no majority of those who vote there"),
    "promise-kept-for-who-is-given-the-place": ("replace", 2_000, "no majority of those who vote there"),
}


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", CAUGHT)
def test_mutant_is_found(mutant: str, hunts: Hunts, record_property: Callable[[str, object], None]) -> None:
    scope, most, words = CAUGHT[mutant]
    folder = hunts.built(mutant)
    run = subprocess.run(
        [sys.executable, "-m", "paxos.testing.explore", scope],
        env=dict(os.environ, PYTHONPATH=str(folder)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    seen, violation, *schedule = run.stdout.splitlines()
    record_property("caught", seen)
    states = re.search(r"VIOLATION, ([\d,]+) states", seen)
    assert states is not None, seen
    assert int(states[1].replace(",", "")) <= most
    assert words in violation
    assert all(re.match(r" +\d+\. node [123] ", step) for step in schedule)
    assert schedule


def test_command_lists_all_scopes_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SCOPES) == len(CI) + len(LARGE)
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in SCOPES)
    with pytest.raises(SystemExit):
        main(["no-such-scope"])
    assert "no such scope: no-such-scope" in capsys.readouterr().err


def test_command_says_when_it_gave_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["again", "--max-states", "1000"]) == 0
    assert "again: not complete, " in capsys.readouterr().out


def test_a_scope_that_is_too_wide_is_refused() -> None:
    with pytest.raises(OverflowError, match="too wide"):
        explore(Scope("wide", "", (0, 0, 0), (70, 0, 0)))
