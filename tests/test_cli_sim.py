"""``paxos sim`` as a user meets it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paxos.cli.app import run
from paxos.cli.sim import parse_faults, parse_keep, parse_seeds
from paxos.testing import campaign, spread
from paxos.testing.campaign import Outcome, Plan
from paxos.testing.faults import GROUPS, KINDS, Fault


def sim(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run(["sim", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = sim(capsys, *arguments, "--json")
    report: dict[str, Any] = json.loads(out)
    return status, report


def test_a_campaign_reports_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = as_json(capsys, "--seeds", "0:20", "--minutes", "0.1", "--jobs", "2", "--nodes", "mixed")
    assert status == 0
    assert report["seeds"] == 20
    assert report["violations"] == []
    assert report["simulated_seconds"] > 20 * 6
    assert report["values_chosen"] > 1000
    assert report["events"] > 10_000
    assert set(report["faults"]) <= set(KINDS)
    assert sum(report["faults"].values()) > 50
    again = as_json(capsys, "--seeds", "0:20", "--minutes", "0.1", "--jobs", "1", "--nodes", "mixed")[1]
    for figure in ("events", "values_chosen", "faults", "operations", "world", "ballots"):
        assert again[figure] == report[figure], "the same seeds, whoever plays them"


def test_words_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = sim(capsys, "--seeds", "0:8", "--minutes", "0.05", "--jobs", "1", "--faults", "crash")
    assert status == 0
    assert "simulated seconds" in out
    assert "faults that hit" in out


def test_one_seed_writes_a_timeline_that_perfetto_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    status, out, _ = sim(capsys, "--seeds", "5", "--minutes", "0.1", "--trace", str(path))
    assert status == 0
    assert "perfetto" in out
    entries = json.loads(path.read_text())["traceEvents"]
    names = {entry["args"]["name"] for entry in entries if entry["ph"] == "M"}
    assert {"node 1", "node 2", "node 3", "faults"} <= names
    begins = {entry["id"] for entry in entries if entry["ph"] == "s"}
    assert begins == {entry["id"] for entry in entries if entry["ph"] == "f"}
    assert len(begins) > 50
    kinds = {entry["name"].split(" ")[0] for entry in entries if entry["ph"] in "Xi"}
    assert {"log", "ACCEPT", "ACCEPTED", "PREPARE", "chosen", "master:"} <= kinds
    assert kinds & set(KINDS), "faults have a track"


def test_a_violation_comes_with_its_faults_and_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge of this test dislikes seed 3 whenever its faults 1 and 4 happen."""

    def judge(plan: Plan, seed: int, schedule: Sequence[Fault] | None = None, look: object = None) -> Outcome:
        full = campaign.schedule_of(plan, seed)
        faults = full if schedule is None else list(schedule)
        bad = seed == 3 and full[1] in faults and full[4] in faults
        return Outcome(seed, seconds=1, wall=0.001, chosen=1, violation="it is so" if bad else None, schedule=faults)

    monkeypatch.setattr(campaign, "run", judge)
    monkeypatch.setattr(spread, "run", judge)
    status, out, _ = sim(capsys, "--seeds", "0:8", "--jobs", "1")
    assert status == 1
    assert "VIOLATION with seed 3: it is so" in out
    command = next(line.strip() for line in out.splitlines() if line.strip().startswith("paxos sim"))
    assert command == "paxos sim --seeds 3 --nodes 3 --minutes 0.5 --keep 1,4 --trace timeline.json"
    status, report = as_json(capsys, "--seeds", "3", "--keep", "1,4")
    assert status == 1
    assert report["violations"][0]["keep"] == [1, 4]
    assert len(report["violations"][0]["schedule"]) == 2
    assert as_json(capsys, "--seeds", "3", "--keep", "1")[0] == 0


@pytest.mark.mutants
def test_a_mutant_is_caught_with_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = as_json(capsys, "--mutant", "no-op-does-not-advance")
    assert status == 1
    assert report["caught"]
    assert "seeds: " in report["by"]


def test_mutants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = sim(capsys, "--list-mutants")
    assert status == 0
    assert "reply-before-durable" in out
    assert len(json.loads(sim(capsys, "--list-mutants", "--json")[1])) >= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "x"], "'x' is not A:B"),
        (["--seeds", "5:5"], "has no seed in it"),
        (["--faults", "rain"], "there is no fault 'rain'; there are: all; none; network"),
        (["--keep", "1"], "--keep and --trace are for one seed"),
        (["--seeds", "1", "--keep", "a"], "is not a list of fault numbers"),
        (["--seeds", "1", "--minutes", "0.01", "--keep", "999"], "--keep 999: seed 1 has"),
        (["--nodes", "4000"], "'4000' is not one of"),
        (["--mutant", "rain"], "there is no mutant 'rain'"),
        (["--ray-address", "auto"], "--ray-address goes with --ray"),
        (["--seeds", "1", "--trace", "no/such/folder/t.json"], "no/such/folder/t.json"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = sim(capsys, *arguments)
    assert status in (1, 2)
    assert words in err
    assert len(err.splitlines()) == 1


def test_parsers() -> None:
    assert parse_seeds("3:5") == range(3, 5)
    assert parse_seeds("7") == range(7, 8)
    assert parse_faults("all") == KINDS
    assert parse_faults("none") == ()
    assert parse_faults("crash,loss,kill") == (*GROUPS["crash"], "loss")
    assert parse_keep(None) is None
    assert parse_keep("none") == ()
    assert parse_keep("9,2,2") == (2, 9)


@pytest.mark.processes
def test_ctrl_c_stops_it_with_what_there_is() -> None:
    command = [
        sys.executable,
        "-m",
        "paxos",
        "sim",
        "--seeds",
        "0:1000000",
        "--minutes",
        "0.05",
        "--jobs",
        "2",
        "--json",
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        # The worker processes are there: the campaign is under way.
        while not _children(child.pid):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    with contextlib.suppress(json.JSONDecodeError):  # it may have been too early for a report
        assert json.loads(out)["stopped"]


@pytest.mark.parametrize("threads", [0, 1])
def test_ctrl_c_waits_until_the_workers_are_made(threads: int) -> None:
    """And none of them ever sees it: a terminal sends it to all. Another thread (a progress bar has one) may be who gets it."""
    command = "print(next(line for line in open('/proc/self/status') if line.startswith('SigBlk:')))"
    made: list[str] = []

    def make() -> None:
        with spread._undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
            made.append(run.stdout)

    end = threading.Event()
    others = [threading.Thread(target=end.wait) for _ in range(threads)]
    for other in others:
        other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            make()
    finally:
        end.set()
        for other in others:
            other.join()
    assert int(made[0].split()[1], 16) & 1 << (signal.SIGINT - 1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.processes
def test_a_campaign_on_a_local_ray(capsys: pytest.CaptureFixture[str]) -> None:
    """The same seeds give the same figures on a Ray cluster of one machine."""
    here = as_json(capsys, "--seeds", "0:24", "--minutes", "0.05", "--jobs", "1")[1]
    child = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "paxos",
            "sim",
            "--seeds",
            "0:24",
            "--minutes",
            "0.05",
            "--ray",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    there = json.loads(child.stdout.splitlines()[-1])
    for figure in ("seeds", "events", "values_chosen", "faults", "operations", "world"):
        assert there[figure] == here[figure]


def test_a_ray_cluster_that_is_not_there_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    status, _, err = sim(capsys, "--seeds", "0:9", "--ray", "--ray-address", f"127.0.0.1:{port}")
    assert status == 1
    assert f"no Ray cluster at 127.0.0.1:{port}" in err
