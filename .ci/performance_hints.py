"""Fails where Cython has a performance hint to give: an exception check or a lock of the GIL on a hot path.

Translates every ``_*.pyx`` below ``paxos`` afresh, to C files that are thrown away, and reads what Cython says.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# file:hint text that is known and wanted, with the reason; empty while nothing is.
EXPECTED: dict[str, str] = {}


def main() -> int:
    sources = sorted(Path("paxos").rglob("_*.pyx"))
    if not sources:
        print("no paxos/_*.pyx here: run from the top of the source tree", file=sys.stderr)
        return 2
    # All in one process: what Cython reads of its own for the first takes longer than most of them.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cython", "-3", "-X", "show_performance_hints=True"]
        for directive in ("boundscheck=False", "wraparound=False", "initializedcheck=False", "cdivision=True"):
            command += ["-X", directive]
        run = subprocess.run([*command, "-o", folder, *map(str, sources)], capture_output=True, text=True, check=False)
        translated = {path.stem for path in Path(folder).glob("*.c")}
    if run.returncode != 0 or translated != {source.stem for source in sources}:
        print(run.stderr, file=sys.stderr)
        return run.returncode or 1
    found = [line for line in run.stderr.splitlines() if "performance hint" in line.lower()]
    unexpected = [line for line in found if not any(known in line for known in EXPECTED)]
    for line in unexpected:
        print(line, file=sys.stderr)
    print(f"performance hints: {len(sources)} modules, {len(unexpected)} unexpected hints")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
