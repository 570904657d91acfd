"""``python -m paxos.testing.hunt cluster|log FIRST END``: plays seeds until one fails, in this process, and says so in a line.

What hunts a mutant: run with the mutated package on PYTHONPATH. Exit status 1: caught.
"""

from __future__ import annotations

import faulthandler
import sys

from paxos.testing.campaign import Plan, run


def main(hunt: str, first: int, end: int) -> int:
    faulthandler.enable()
    for seed in range(first, end):
        if hunt == "log":
            from paxos.testing import logs

            violation = logs.run(seed).violation
        else:
            violation = run(Plan(nodes=0, seconds=15), seed).violation
        if violation is not None:
            print(f"seed {seed}: {violation.splitlines()[0]}", flush=True)
            return 1
    print(f"seeds {first} to {end - 1}: nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
