"""Bugs put into the core on purpose, as exact replacements in its sources, and the hunt for them.

The campaign has to find each of them. A mutant that survives shows something that the campaign does not look at.
Only the changed module is compiled, without optimisation; the others are taken from the build under test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
PARTS = ("_types", "_codec", "_replica", "_acceptor", "_learner", "_election", "_proposer", "_core")
DIRECTIVES = ("boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False")


@dataclass(frozen=True)
class Mutant:
    name: str
    module: str
    old: str
    new: str
    seeds: int = 400
    """How many seeds the campaign has to find it."""


MUTANTS = [
    Mutant(
        "the own acceptance counts before it is durable",
        "_proposer",
        "    s.own = True\n    s.rounds = 1\n",
        "    s.own = True\n    s.acks = bit(r.self)\n    s.rounds = 1\n",
    ),
    Mutant(
        "a vote twice is two votes",
        "_proposer",
        "    s.acks |= bit(index)\n    if not s.chosen",
        "    if s.acks & bit(index):\n        s.acks |= bit((index + 1) % r.members.count)\n"
        "    s.acks |= bit(index)\n    if not s.chosen",
    ),
    Mutant(
        "the value of the lowest ballot is proposed again",
        "_proposer",
        "ballot_compare(&s.report_ballot, &s.ballot) > 0):",
        "ballot_compare(&s.report_ballot, &s.ballot) < 0):",
        1200,
    ),
    Mutant(
        "a promise does not report what was accepted",
        "_acceptor",
        "if s == NULL or s.ballot.round == 0:",
        "if True or s.ballot.round == 0:",
    ),
    Mutant(
        "a promise is forgotten in a crash",
        "_core",
        "        if ballot_compare(&promise.ballot, &r.promised) > 0:\n            r.promised = promise.ballot\n",
        "",
    ),
    Mutant(
        "what was accepted is forgotten in a crash",
        "_core",
        "s.ballot = accept.ballot\n",
        "s.ballot.round = 0\n",
    ),
    Mutant(
        "a notice is believed whatever its ballot is",
        "_learner",
        "if s == NULL or s.ballot.round == 0 or ballot_compare(&s.ballot, ballot) < 0:",
        "if s == NULL or s.ballot.round == 0:",
    ),
    Mutant(
        "a promise leaves before it is durable",
        "_acceptor",
        "frame_begin(r, FRAME_PROMISE, bit(index), r.logged, sizeof(Promise))",
        "frame_begin(r, FRAME_PROMISE, bit(index), 0, sizeof(Promise))",
    ),
    Mutant(
        "an acceptance leaves before it is durable",
        "_acceptor",
        "frame_begin(r, FRAME_ACCEPTED, bit(index), s.record, sizeof(Accepted))",
        "frame_begin(r, FRAME_ACCEPTED, bit(index), 0, sizeof(Accepted))",
    ),
    Mutant(
        "a lower Prepare is promised as well, and lowers the promise",
        "_acceptor",
        "    if order < 0:\n        send_reject(r, index, &p.ballot)\n        return\n    if order > 0:\n",
        "    if order != 0:\n",
    ),
    Mutant(
        "an Accept below the promise is accepted",
        "_acceptor",
        "    if ballot_compare(&a.ballot, &r.promised) < 0:\n        send_reject(r, index, &a.ballot)\n        return False\n",
        "",
    ),
    Mutant(
        "holes and reported values alike are filled with no-ops",
        "_proposer",
        "value = value_ref(value) if value != NULL else value_new(VALUE_NOOP, 0, 0)",
        "value = value_new(VALUE_NOOP, 0, 0)",
    ),
    Mutant(
        "the own acceptance is no report",
        "_proposer",
        "        if s.ballot.round != 0:\n            value = s.value\n",
        "",
    ),
    Mutant(
        "half of the members are a quorum",
        "_proposer",
        "if not s.chosen and is_quorum(&r.members, s.acks):",
        "if not s.chosen and (is_quorum(&r.members, s.acks) or s.acks & ~bit(r.self)):",
    ),
    Mutant(
        "a candidate does not learn before it proposes",
        "_election",
        "    if frame.chosen > r.chosen:\n        return                  # learn what",
        "    if False:\n        return                  # learn what",
    ),
    Mutant(
        "a refused chunk is not marked as taken",
        "_proposer",
        "        if _take(r, o, head.seq):\n            if r.role == ROLE_MASTER and",
        "        if r.role != ROLE_MASTER or _take(r, o, head.seq):\n            if (r.role == ROLE_MASTER or r.role == 0) and",
    ),
    Mutant(
        "a forwarded chunk is taken as often as it comes",
        "_proposer",
        "    if o.bits[(seq % CHUNK_WINDOW) // 64] & i:\n        return False\n",
        "",
    ),
    Mutant(
        "a chunk is proposed after its deadline",
        "_proposer",
        "        if _stale(r, c):\n            _drop(_dequeue(r))\n            continue\n",
        "",
    ),
    Mutant(
        "a forwarded chunk is said to be certainly not executed at its deadline",
        "_proposer",
        "_settle(r, p, SETTLE_NOT_AVAILABLE if p.state == CHUNK_QUEUED else SETTLE_UNKNOWN)",
        "_settle(r, p, SETTLE_NOT_AVAILABLE if p.state != CHUNK_PROPOSED else SETTLE_UNKNOWN)",
    ),
    Mutant(
        "what was proposed under an older ballot is proposed again under the next",
        "_proposer",
        "        if p != NULL and p.state == CHUNK_QUEUED:\n            _enqueue",
        "        if p != NULL:\n            p.state = CHUNK_QUEUED\n            _enqueue",
    ),
    Mutant(
        "after a crash an acceptance implies no promise",
        "_core",
        "        return -1\n        if ballot_compare(&accept.ballot, &r.promised) > 0:\n"
        "            r.promised = accept.ballot\n",
        "        return -1\n",
    ),
]


def prepare(folder: Path) -> Path:
    """A package ``paxos`` in ``folder`` with the core of the build under test, and nothing that imports more than that."""
    import paxos._core

    built = Path(paxos._core.__file__).parent
    package = folder / "paxos"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for part in PARTS:
        for source in TOP.glob(f"paxos/{part}.p[xy][dx]"):
            shutil.copy(source, package)
        for library in [*built.glob(f"{part}.so"), *built.glob(f"{part}.*.so")]:
            (package / library.name).symlink_to(library)
    return package


def build(mutant: Mutant, folder: Path) -> None:
    """Puts the mutant in place of its module. ValueError: the source is no longer as the list of mutants says."""
    package = prepare(folder)
    source = package / f"{mutant.module}.pyx"
    text = source.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {text.count(mutant.old)} places in {source.name} fit, not 1")
    source.write_text(text.replace(mutant.old, mutant.new))
    libraries = list(package.glob(f"{mutant.module}.*so"))
    directives = [word for directive in DIRECTIVES for word in ("-X", directive)]
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", *directives, str(source)], cwd=folder, check=True, capture_output=True
    )
    for library in libraries:
        library.unlink()
        compiler = (sysconfig.get_config_var("CC") or "cc").split()
        include = sysconfig.get_paths()["include"]
        command = [
            *compiler,
            "-O0",
            "-w",
            "-shared",
            "-fPIC",
            "-pthread",
            f"-I{include}",
            str(source.with_suffix(".c")),
            "-o",
            str(library),
        ]
        subprocess.run(command, check=True, capture_output=True)


def hunt(mutant: Mutant, folder: Path) -> str | None:
    """What the campaign says of the mutant, or None where it finds nothing within the mutant's seeds."""
    build(mutant, folder)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder), str(TOP / "tests")]))
    command = [sys.executable, str(TOP / "tests" / "campaign.py"), "0", str(mutant.seeds)]
    run = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return None
    if not run.stdout.startswith("seed ") and run.returncode > 0:
        raise RuntimeError(f"{mutant.name}: the campaign could not run:\n{run.stderr}")
    return run.stdout.strip() or f"ended by signal {-run.returncode}"
