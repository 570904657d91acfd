"""``python -m paxos.testing.hunt KIND FIRST END`` plays seeds until one fails, in this process; kinds: ``cluster``, ``leases``,
``idle``, ``log``, ``moves``, see ``Mutant.hunt``; ``... explore SCOPE 0 0`` explores; ``... test FILE::NAME 0 0`` runs one of
the project's own tests. One line on stdout says what came of it; exit status CAUGHT: something was found.

What hunts a mutant: run with the mutated package on PYTHONPATH.
"""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CAUGHT", "main"]

CAUGHT = 10  # like no status of a Python that failed


def _cluster(seed: int) -> str | None:
    from paxos.testing.campaign import Plan, run

    return run(Plan(nodes=0, seconds=15), seed).violation


def _leases(seed: int) -> str | None:
    """Only those lives that have leases."""
    from paxos.testing.leases import lease_of

    return None if lease_of(seed) is None else _cluster(seed)


def _moves(seed: int) -> str | None:
    from paxos.testing.campaign import Plan, run

    return run(Plan(nodes=0, seconds=15, spares=3), seed).violation


def _idle(seed: int) -> str | None:
    from paxos.testing.cluster import Violation
    from paxos.testing.leases import idle

    try:
        idle(300, seed=seed)
    except Violation as violation:
        return str(violation)
    return None


def _log(seed: int) -> str | None:
    from paxos.testing.logs import run

    return run(seed).violation


def _test(name: str) -> int:
    tests = Path(__file__).resolve().parent.parent.parent / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests / name)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if run.returncode not in (0, 1):  # neither passed nor failed
        print(run.stdout, file=sys.stderr)
        return 1
    print(f"{name}: {'fails' if run.returncode else 'nothing found'}", flush=True)
    return CAUGHT if run.returncode else 0


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    faulthandler.enable()
    kind, *scope, first, end = arguments
    if kind == "explore":
        from paxos.testing.explore import SCOPES, explore

        result = explore(SCOPES[scope[0]])
        print(f"{result.states:,} states of scope {scope[0]}: {result.violation or 'nothing found'}", flush=True)
        return CAUGHT if result.violation is not None else 0
    if kind == "test":
        return _test(scope[0])
    play = {"cluster": _cluster, "idle": _idle, "leases": _leases, "log": _log, "moves": _moves}[kind]
    for number, seed in enumerate(range(int(first), int(end)), 1):
        violation = play(seed)
        if violation is not None:
            print(f"{number} seeds: {violation.splitlines()[0]} (seed {seed})", flush=True)
            return CAUGHT
    print(f"{int(end) - int(first)} seeds: nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
