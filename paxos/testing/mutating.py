"""Builds mutants (``mutants``): copies of the package with changed files, compiled anew where they are Cython.

The product pays nothing for them. It takes the sources (a checkout), Cython and a C compiler.

``python -m paxos.testing.mutating FOLDER NAME...`` builds and hunts the mutants of these names, below FOLDER, on all cores; it
leaves the machine to others that want it. A line of JSON on stdout for each as its hunt ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from paxos.errors import ConfigError
from paxos.testing.mutants import MUTANTS, Mutant

__all__ = ["build", "command", "find", "hunt", "main"]

PACKAGE: Final = Path(__file__).resolve().parent.parent
DIRECTIVES: Final = {"boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False}

#: Asked for here: what sysconfig knows it gathers at the first question, and two at a time get half of it.
SUFFIX: Final[str] = sysconfig.get_config_var("EXT_SUFFIX")
COMPILER: Final[list[str]] = (sysconfig.get_config_var("CC") or "cc").split()
INCLUDE: Final = sysconfig.get_paths()["include"]

#: Cython knows no threads.
_TRANSLATING: Final = threading.Lock()


def find(name: str) -> Mutant:
    """The mutant of that name. Raises ConfigError."""
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise ConfigError(f"there is no mutant {name!r}; --list-mutants lists the {len(MUTANTS)} there are")


def build(mutant: Mutant | str, folder: Path) -> Path:
    """Makes the mutated package below ``folder`` (for PYTHONPATH), unless it is there from the same sources; returns ``folder``.

    Raises ConfigError where there are no sources, or no longer the ones that the mutant knows.
    """
    if isinstance(mutant, str):
        mutant = find(mutant)
    changed: dict[str, str] = {}
    for file, old, new in ((mutant.file, mutant.old, mutant.new), *mutant.more):
        original = PACKAGE / file
        if not original.exists():
            raise ConfigError(
                f"mutants are made from the sources, and {file} is not installed: use a checkout of the project"
            )
        text = changed.get(file) or original.read_text()
        if text.count(old) != 1:
            raise ConfigError(f"mutant {mutant.name}: {text.count(old)} places in {file} fit, not 1: {old!r}")
        changed[file] = text.replace(old, new)
    package = folder / "paxos"
    if package.exists():
        shutil.rmtree(package)
    _link(PACKAGE, package)
    for file, text in changed.items():
        source = package / file
        source.unlink()
        source.write_text(text)
        if source.suffix == ".pyx":
            _compile(source)
    return folder


def _link(origin: Path, package: Path) -> None:
    """The package as links to its files; the changed one takes the place of its link."""
    for path in sorted(origin.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".so", ".typed"):
            target = package / path.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def _compile(source: Path) -> None:
    """Without optimisation: most of the time goes into compiling."""
    library = source.with_name(source.stem + SUFFIX)
    for old in source.parent.glob(f"{source.stem}.*so"):
        old.unlink()
    _translate(source)
    flags = ["-O0", "-w", "-shared", "-fPIC", "-pthread", f"-I{INCLUDE}"]
    step = [*COMPILER, *flags, str(source.with_suffix(".c")), "-o", str(library)]
    run = subprocess.run(step, cwd=source.parent.parent, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise ConfigError(f"the mutant does not compile: {' '.join(step[:4])} …\n{run.stderr}")


def _translate(source: Path) -> None:
    """In this process: what Cython reads of its own for the first module, which takes most of the time, it has for the next."""
    from Cython.Compiler.Main import CompilationOptions, compile

    with _TRANSLATING:
        options = CompilationOptions(language_level=3, compiler_directives=dict(DIRECTIVES))
        result = compile(str(source), options)
    if result.num_errors:
        raise ConfigError(
            f"the mutant does not compile: Cython found {result.num_errors} errors (above) in {source.name}"
        )


def command(mutant: Mutant, first: int, end: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command that hunts a mutant built in ``folder``, and its environment: one line on stdout, status ``hunt.CAUGHT``."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH", "")]))
    return [sys.executable, "-m", "paxos.testing.hunt", *mutant.hunt.split(), str(first), str(end)], environment


def hunt(mutant: Mutant, folder: Path) -> tuple[int, str]:
    """Builds and hunts a mutant: the exit status of the hunt and its line. (2 and why, where the mutant cannot be built.)"""
    try:
        build(mutant, folder)
    except ConfigError as error:
        return 2, str(error)
    words, environment = command(mutant, 0, mutant.seeds, folder)
    run = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout.strip() or run.stderr


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    os.nice(5)
    folder, *names = arguments
    # Those that take the longest first.
    wanted = sorted((find(name) for name in names), key=lambda mutant: -mutant.seeds)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hunts = {pool.submit(hunt, mutant, Path(folder, mutant.name)): mutant.name for mutant in wanted}
        for done in as_completed(hunts):
            status, words = done.result()
            print(json.dumps({"mutant": hunts[done], "status": status, "words": words}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
