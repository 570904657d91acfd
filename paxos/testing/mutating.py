"""Builds mutants (``mutants``): copies of the package with changed files, compiled anew where they are Cython.

The product pays nothing for them. It takes the sources (a checkout), Cython and a C compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from paxos.errors import ConfigError
from paxos.testing.mutants import MUTANTS, Mutant

__all__ = ["build", "command", "find"]

PACKAGE: Final = Path(__file__).resolve().parent.parent
DIRECTIVES: Final = ("boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False")


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
    directives = [word for directive in DIRECTIVES for word in ("-X", directive)]
    translate = [sys.executable, "-m", "cython", "-3", *directives, str(source)]
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    library = source.with_name(source.stem + sysconfig.get_config_var("EXT_SUFFIX"))
    for old in source.parent.glob(f"{source.stem}.*so"):
        old.unlink()
    flags = ["-O0", "-w", "-shared", "-fPIC", "-pthread", f"-I{sysconfig.get_paths()['include']}"]
    for step in (translate, [*compiler, *flags, str(source.with_suffix(".c")), "-o", str(library)]):
        run = subprocess.run(step, cwd=source.parent.parent, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise ConfigError(f"the mutant does not compile: {' '.join(step[:4])} …\n{run.stderr}")


def command(mutant: Mutant, first: int, end: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command that hunts a mutant built in ``folder``, and its environment: one line on stdout, status ``hunt.CAUGHT``."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH", "")]))
    return [sys.executable, "-m", "paxos.testing.hunt", *mutant.hunt.split(), str(first), str(end)], environment
