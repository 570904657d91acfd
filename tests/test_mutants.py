"""The campaign must find bugs that were put in on purpose (design, section 6: mutation)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mutants import MUTANTS, Mutant, hunt


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Mutant, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    caught = hunt(mutant, tmp_path)
    assert caught is not None, f"{mutant.seeds} seeds of the campaign do not notice: {mutant.name}"
    record_property("caught", caught)


def test_there_are_mutants_for_every_part_of_the_protocol() -> None:
    assert len(MUTANTS) >= 12
    assert {mutant.module for mutant in MUTANTS} == {"_acceptor", "_learner", "_election", "_proposer", "_core"}
