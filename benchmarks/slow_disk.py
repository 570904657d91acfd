"""Disks whose durable writes take longer, by so much as a file says: ``slow_disk.c``, compiled and handed to processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "slow_disk.c"


class Delays:
    """Compiles the library into ``folder``. No disk is slow yet."""

    def __init__(self, folder: Path, nodes: Iterable[int]) -> None:
        library = folder / "slow_disk.so"
        command = [
            "cc",
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(library),
            str(SOURCE),
            "-ldl",
        ]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, f"slow_disk.c does not compile:\n{built.stderr}"
        self.files = {node: folder / f"delay{node}" for node in nodes}
        for node in self.files:
            self.set(node, 0)
        #: What belongs into the environment of each node's process.
        self.environments = {
            node: {"LD_PRELOAD": str(library), "SLOW_DISK": str(path)} for node, path in self.files.items()
        }

    def set(self, node: int, microseconds: int) -> None:
        """From now on; while the process runs, too."""
        path = self.files[node]
        path.touch()
        with path.open("r+b") as file:
            file.write(microseconds.to_bytes(4, "little"))

    def get(self, node: int) -> int:
        return int.from_bytes(self.files[node].read_bytes(), "little")
