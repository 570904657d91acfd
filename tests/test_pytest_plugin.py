"""The pytest plugin, from outside: runs of pytest over a test file of a user."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent

PLANTED = """
import paxos
import pytest
from paxos.testing import simulate


class Counter(paxos.StateMachine):
    def __init__(self):
        self.total = 0

    def apply(self, instance, value):
        self.total += int(value)
        return self.total


async def pay(cluster, again):
    paid = 0
    while cluster.now < cluster.seconds:
        while True:
            try:
                await cluster.propose(b"1", timeout=1)
                break
            except paxos.PaxosError:
                if not again:
                    return
                await cluster.sleep(0.1)
        paid += 1
        await cluster.sleep(0.05)
    await cluster.settle()
    assert cluster.machine(1).total == paid, "paid twice"


@pytest.fixture
def word():
    return "fixture"


@simulate(Counter, seeds=40, faults="crash,partition", seconds=5)
async def test_twice(cluster, word):
    assert word == "fixture"
    await pay(cluster, True)


@simulate(Counter, seeds=40, faults="crash,partition", seconds=5)
async def test_once(cluster):
    await pay(cluster, False)


class TestMethods:
    @pytest.mark.parametrize("word", ["a", "b"])
    @simulate(Counter, seeds=2)
    async def test_method(self, cluster, word):
        assert word in "ab"
        assert isinstance(self, TestMethods)
        await cluster.propose(b"1", timeout=60)


def test_fixture(sim_cluster):
    assert sim_cluster(Counter, seed=1).run(one(sim_cluster(Counter))) == 1


async def one(cluster):
    return len(cluster.nodes) and 1
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_planted.py").write_text(PLANTED)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
def test_the_command_in_the_report_shows_the_failure_again(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "-v")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 4 passed" in run.stdout
    assert re.search(r"test_once: 40 seeds, \d+", run.stdout), run.stdout
    found = re.search(r"To see it again: +(pytest .*)", run.stdout)
    assert found, run.stdout
    command = shlex.split(found[1])
    assert command[1] == "test_planted.py::test_twice"
    again = run_pytest(tmp_path, *command[1:])
    assert again.returncode == 1
    assert found[0] in again.stdout
    assert "1 failed" in again.stdout
    calm = run_pytest(tmp_path, "test_planted.py::test_twice", *command[2:4], "--paxos-keep", "none")
    assert calm.returncode == 0, calm.stdout


@pytest.mark.processes
def test_options_of_the_plugin(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "-v", "-k", "once", "--paxos-seeds", "2")
    assert "test_once: 2 seeds" in run.stdout, run.stdout
    run = run_pytest(tmp_path, "-v", "-k", "once", "--paxos-seed", "5")
    assert "test_once: 1 seed," in run.stdout, run.stdout
    for arguments, message in [
        (["--paxos-seed", "-1"], "a seed is a number from 0 on"),
        (["--paxos-seeds", "0"], "give at least one"),
        (["--paxos-keep", "1"], "--paxos-keep wants --paxos-seed"),
        (["--paxos-seed", "1", "--paxos-keep", "a"], "give numbers of faults"),
        (["--paxos-seed", "1", "--paxos-keep", "-2"], "give numbers of faults"),
        (["--paxos-seed", "1", "--paxos-seeds", "2"], "do not go together"),
    ]:
        run = run_pytest(tmp_path, *arguments)
        assert run.returncode == pytest.ExitCode.USAGE_ERROR
        assert message in run.stderr, run.stderr
