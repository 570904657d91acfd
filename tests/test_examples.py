"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((TOP / "examples").glob("*.py"))


@pytest.mark.processes
def test_there_are_some() -> None:
    assert {path.name for path in EXAMPLES} >= {"echo.py", "election.py"}


@pytest.mark.processes
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(path: Path, tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONWARNINGS="error")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH", "")]))
    run = subprocess.run(
        [sys.executable, str(path), "--demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout, "it says what it does"
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"
