"""What the simulator reaches of the core and the log: statements and branches, by simulations alone.

Builds the variant "coverage" (see setup.py) in build/coverage, plays whole-cluster campaigns and lives of logs on it, and maps
what gcov counted in the C files back to the lines of the .pyx files, by the comments that Cython leaves there. No unit test, and
not the explorer: what stays uncovered is what no campaign has tried. Exits with 1 where a campaign finds a violation, or
where less than the share asked for is covered.

A statement is covered when any of the C made from it ran. A branch is one direction of one C decision (if, while, for, and, or,
cases) in the code of a statement; those of error checks that Cython adds are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from copy_tree import copy_tree

TOP = Path(__file__).resolve().parent.parent
TREE = TOP / "build" / "coverage"

CORE = ["acceptor", "proposer", "learner", "election", "core", "replica", "formation", "codec"]
CORE += ["log", "recovery", "store", "spares", "segments"]
BESIDE = ["effects", "history", "round"]

# Not measured, by function or class, with the reason. What is not here counts.
TESTS = "a door for tests and tools written in Python: the engine and the simulator call the C functions"
EXCLUDED: dict[str, dict[str, str]] = {
    "core": dict.fromkeys(("Core", "_ballot", "_effects", "_membership", "encode_chunk", "encode_learned"), TESTS),
    "formation": {"FormationCore": TESTS},
    "codec": dict.fromkeys(("checksum", "check_frame"), TESTS),
    "log": {"Layout": TESTS},
    "recovery": dict.fromkeys(("Recovered.durable", "Recovered.oldest"), TESTS),
    "store": {"PositionIndex": TESTS, "index_trim": "only PositionIndex calls it: nothing cuts the index short yet"},
    "segments": dict.fromkeys(("LogStore.wait_for_spare", "LogStore.__enter__", "LogStore.__exit__"), TESTS),
}
EXCLUDED["segments"]["LogStore._run_preparer"] = EXCLUDED.setdefault("spares", {})["spares_prepare"] = (
    "the preparer's own thread: a simulation has no threads, and makes spares by calling spares_make"
)
EXCLUDED["spares"]["_pause"] = EXCLUDED["spares"]["spares_prepare"]

# Fewer are found only where the mapping is broken; a report of nothing must not look like one of everything.
LEAST_STATEMENTS = 1500


@dataclass
class Module:
    """One .pyx file: its statements and branches, and how often each was reached."""

    name: str
    source: list[str]
    owners: list[str]
    """By line number - 1: the function that the line stands in, "" outside of any."""
    statements: dict[int, int] = field(default_factory=dict)
    branches: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """By line, number of the decision in the line, and direction."""

    def excluded(self, line: int) -> bool:
        owner = self.owners[line - 1]
        names = EXCLUDED.get(self.name, {})
        return not owner or owner in names or owner.partition(".")[0] in names

    def missed(self) -> list[int]:
        return sorted(line for line, count in self.statements.items() if count == 0)

    def half_taken(self) -> list[int]:
        """Lines that ran and have a direction that was never taken."""
        return sorted(
            {line for (line, _, _), count in self.branches.items() if count == 0 and self.statements.get(line, 0) > 0}
        )


def owners(source: list[str]) -> list[str]:
    """The function or method of each line, the lines of its signature left out."""
    found = []
    stack: list[tuple[int, str, bool]] = []  # indent, name, whether it is a function
    signature = False
    for text in source:
        bare = text.strip()
        if signature:
            signature = not bare.endswith(":")
            found.append("")
            continue
        indent = len(text) - len(text.lstrip())
        if bare and not bare.startswith("#"):
            while stack and indent <= stack[-1][0]:
                stack.pop()
        head = re.match(r"\s*(?:(?:cdef |cpdef )?(class) (\w+)|(?:cdef|cpdef|def)\b[^=(]*?(\w+)\()", text)
        if head and not any(function for _, _, function in stack) and "extern" not in text:
            stack.append((indent, head[2] or head[3], head[1] is None))
            signature = not bare.split("#")[0].rstrip().endswith(":")
            found.append("")
            continue
        inside = any(function for _, _, function in stack)
        found.append(".".join(name for _, name, _ in stack) if inside and bare else "")
    return found


def load(name: str) -> Module:
    source = (TREE / f"paxos/_{name}.pyx").read_text().splitlines()
    return Module(name, source, owners(source))


# Of what Cython does with Python objects, branches say nothing about the source.
PYTHON = re.compile(r"likely\(|__PYX_ERR|Py[A-Z_]|__Pyx|__pyx_(?:freelist|m\b)|\(!__pyx_t_\d+\) \{?$")

DECISION = re.compile(r"^\s*(?:\} else )?(?:if|while|for|switch) \(")


def read(module: Module, gcov: str) -> None:
    """Fills in what gcov has counted for a module."""
    objects = TREE / "build/temp-coverage/build/cython-coverage/paxos"
    count = objects / f"_{module.name}.gcda"
    if not count.exists():
        raise SystemExit(f"{count}: nothing was counted")
    run = subprocess.run([gcov, "-b", "-c", "-j", "-t", count.name], cwd=objects, capture_output=True, check=True)
    here = f"paxos/_{module.name}.pyx"
    c_name = f"build/cython-coverage/paxos/_{module.name}.c"
    files = [file for file in json.loads(run.stdout)["files"] if file["file"].endswith(c_name)]
    if len(files) != 1:
        raise SystemExit(f"{count}: not a count of {c_name}")
    text = (TREE / c_name).read_text().splitlines()
    # C line -> .pyx line. A comment is followed by the C of the line that it names, up to the next comment.
    origin = [0] * (len(text) + 1)
    line = 0
    for number, words in enumerate(text, 1):
        if mark := re.match(r'\s*/\* "([^"]+)":(\d+)$', words):
            line = int(mark[2]) if mark[1] == here else 0
        elif words.startswith(("/*--- ", "static CYTHON_SMALL_CODE int", "/* #### Code section")):
            line = 0
        origin[number] = line
    decisions: dict[int, int] = defaultdict(int)
    seen: dict[int, dict[str, Any]] = {}
    for entry in files[0]["lines"]:  # a line comes once for each function that it is in
        old = seen.get(entry["line_number"])
        if old is None or entry["count"] > old["count"]:
            seen[entry["line_number"]] = entry
    for number in sorted(seen):
        line, entry = origin[number], seen[number]
        if line == 0 or module.excluded(line):
            continue
        module.statements[line] = max(module.statements.get(line, 0), entry["count"])
        if DECISION.match(text[number - 1]) and not PYTHON.search(text[number - 1]):
            which = decisions[line]
            decisions[line] += 1
            for direction, branch in enumerate(entry["branches"]):
                if not branch["throw"]:
                    module.branches[line, which, direction] = branch["count"]


# ---- playing ----


def play(kind: str, first: int, end: int) -> int:
    """In a process of its own, which counts when it exits: the seeds from ``first`` up to ``end``."""
    from paxos.testing import campaign, logs

    found = 0
    for seed in range(first, end):
        # A cluster of one node is an ordinary one with a quorum of itself: a tenth of the seeds.
        plan = campaign.Plan(nodes=0 if seed % 10 else 1)
        violation = (campaign.run(plan, seed) if kind == "cluster" else logs.run(seed)).violation
        if violation is not None:
            print(f"{kind} seed {seed}: {violation}", file=sys.stderr)
            found += 1
    return min(found, 1)


def build() -> None:
    TREE.mkdir(parents=True, exist_ok=True)
    os.chdir(TOP)
    copy_tree(TREE)
    stamp = TREE / ".directives"
    if not stamp.exists() or stamp.stat().st_mtime < (TREE / "setup.py").stat().st_mtime:
        subprocess.run(["rm", "-rf", str(TREE / "build")], check=True)
        stamp.touch()
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=TREE, check=True, env={**os.environ, "PAXOS_DEBUG": "coverage"})


def simulate(seeds: int, lives: int, jobs: int) -> None:
    for old in TREE.glob("build/temp-coverage/**/*.gcda"):
        old.unlink()
    parts = [("cluster", seeds * i // jobs, seeds * (i + 1) // jobs) for i in range(jobs)]
    parts += [("log", lives * i // jobs, lives * (i + 1) // jobs) for i in range(jobs)]
    failed = 0
    for batch in (parts[:jobs], parts[jobs:]):
        running = [
            subprocess.Popen(
                [sys.executable, str(TREE / ".ci/sim_coverage.py"), "--play", kind, str(first), str(end)],
                env={**os.environ, "PYTHONPATH": str(TREE)},
            )
            for kind, first, end in batch
        ]
        failed += sum(process.wait() != 0 for process in running)
    if failed:
        raise SystemExit("a simulation failed: see above")


# ---- telling ----


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def counts(modules: list[Module]) -> tuple[int, int, int, int]:
    """Statements, those covered, branches, those taken."""
    statements = [count for module in modules for count in module.statements.values()]
    branches = [count for module in modules for count in module.branches.values()]
    return len(statements), sum(c > 0 for c in statements), len(branches), sum(c > 0 for c in branches)


def table(rows: list[tuple[str, list[Module]]]) -> str:
    out = ["| module | statements | covered | branches | taken |", "|---|---:|---:|---:|---:|"]
    for name, modules in rows:
        lines, covered, branches, taken = counts(modules)
        out.append(f"| {name} | {lines} | {percent(covered, lines)} | {branches} | {percent(taken, branches)} |")
    return "\n".join(out)


def listing(module: Module, branches: bool) -> list[str]:
    out = []
    for line in module.missed():
        out.append(f"paxos/_{module.name}.pyx:{line}: {module.owners[line - 1]}: {module.source[line - 1].strip()}")
    for line in module.half_taken() if branches else []:
        out.append(f"paxos/_{module.name}.pyx:{line}: half taken: {module.source[line - 1].strip()}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3000, help="of whole clusters, 30 simulated s each")
    parser.add_argument("--lives", type=int, default=3000, help="of a log")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--gcov", default="gcov")
    parser.add_argument("--at-least", type=float, default=95.0, help="%% of the statements of core and log")
    parser.add_argument("--again", action="store_true", help="only report what was counted last time")
    parser.add_argument("--branches", action="store_true", help="list lines with a direction never taken, too")
    parser.add_argument("--play", nargs=3, metavar=("KIND", "FIRST", "END"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        return play(options.play[0], int(options.play[1]), int(options.play[2]))
    if not options.again:
        build()
        simulate(options.seeds, options.lives, options.jobs)
    modules = {name: load(name) for name in CORE + BESIDE}
    for module in modules.values():
        read(module, options.gcov)
    core = [modules[name] for name in CORE]
    statements, covered, _, _ = counts(core)
    if statements < LEAST_STATEMENTS or any(not module.statements for module in modules.values()):
        raise SystemExit(f"only {statements} statements found: the comments in the C files were not understood")
    rows = [(f"_{name}", [modules[name]]) for name in CORE]
    rows.append(("core and log", core))
    rows += [(f"_{name}", [modules[name]]) for name in BESIDE]
    print(f"{options.seeds} seeds of clusters, {options.lives} lives of logs\n")
    print(table(rows))
    print("\nNot covered:\n")
    for module in modules.values():
        for text in listing(module, options.branches):
            print(text)
    return 0 if 100 * covered / statements >= options.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
