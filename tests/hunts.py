"""Hunts of mutants beside the tests: those that wait for time to pass leave the cores to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class Hunts:
    """The hunts of some mutants, begun at once, in a process of their own (``paxos.testing.mutating``)."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.log = folder / "stderr"
        self.found: dict[str, tuple[int, str]] = {}
        self.process: subprocess.Popen[str] | None = None
        if names:
            with self.log.open("w") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "paxos.testing.mutating", str(folder), *names],
                    stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                )  # fmt: skip

    def result(self, name: str) -> tuple[int, str]:
        """Waits for the hunt of a mutant: its exit status and its line."""
        while name not in self.found:
            assert self.process is not None
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, f"the hunts ended without {name}: {self.log.read_text()}"
            said = json.loads(line)
            self.found[said["mutant"]] = said["status"], said["words"]
        return self.found[name]

    def built(self, name: str) -> Path:
        """Waits for a mutant; the folder it was built in (for PYTHONPATH)."""
        status, words = self.result(name)
        assert (self.folder / name / "paxos").exists(), (status, words)
        return self.folder / name

    def close(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:  # the session was ended before them
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
