"""Builds the extension modules: every ``_*.pyx`` below ``paxos`` is one. All the rest of the set-up is in pyproject.toml.

``PAXOS_DEBUG=1`` builds with bounds, overflow and None checks, and C undefined behaviour as a hard error.
``PAXOS_DEBUG=trace`` adds line tracing to the core and the log, also of code that runs without the GIL; the other modules are
those of ``PAXOS_DEBUG=1``. A traced line takes the GIL, and in the engine that is a deadlock: its thread waits for the GIL
with the mutex of a queue held, for which a Python thread waits with the GIL held.

``PAXOS_DEBUG=coverage`` builds without optimization, and counts lines and branches of the C files for gcov, at native speed
and without Python's tracing; the modules of ``paxos.testing`` are those of a release.

C files and objects of each variant go to directories of their own. What was made is also kept in ``build/kept``, or where
``PAXOS_BUILD_KEPT`` says, under a name made from all that it was made from: an editable install, a wheel built from an sdist
and a variant that differs in few modules make nothing for the second time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COVERAGE = os.environ.get("PAXOS_DEBUG") == "coverage"
DEBUG = os.environ.get("PAXOS_DEBUG", "") not in ("", "0", "coverage")
TRACE = os.environ.get("PAXOS_DEBUG") == "trace"
VARIANT = "coverage" if COVERAGE else "trace" if TRACE else "debug" if DEBUG else "release"
# The modules that are traced: of the core, of the log.
TRACED = {"codec", "replica", "membership", "acceptor", "proposer", "learner", "election", "formation", "core", "prune"}
TRACED |= {"log", "recovery", "store", "spares", "segments", "unlogged", "logreader", "folder", "disk", "files"}
# Of Cython's translations, and then of C compilers, at a time.
JOBS = int(os.environ.get("PAXOS_BUILD_JOBS", "2"))

KEPT = Path(os.environ.get("PAXOS_BUILD_KEPT", "build/kept")).absolute()

# Warnings about the C that Cython writes (loop variables of range()), which nobody can act on.
GENERATED = ["-Wno-sign-compare"]

# Last, so that they win. Optimized code has no branches of its own for many of those in the source.
COUNTED = ["-O0", "--coverage"]

DIRECTIVES: dict[str, object] = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,  # negative indices are a mistake in this code base, checked or not
    "cdivision": True,
    "auto_pickle": False,  # nothing here is ever pickled
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "overflowcheck": DEBUG,
    "embedsignature": False,
}


def loads_with_ubsan() -> bool:
    """Whether an extension built with -fsanitize=undefined loads into this plain interpreter."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("int probe(int a) { return a + 1; }\n")
        library = Path(folder, "probe.so")
        build = [*compiler, "-fsanitize=undefined", "-shared", "-fPIC", str(source), "-o", str(library)]
        if subprocess.run(build, capture_output=True, check=False).returncode != 0:
            return False
        load = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r}).probe(1)"]
        return subprocess.run(load, capture_output=True, check=False).returncode == 0


def traced(source: Path) -> bool:
    return TRACE and source.parent.name == "paxos" and source.stem.removeprefix("_") in TRACED


def flags() -> tuple[list[str], list[str]]:
    """Compiler flags and linker flags of this variant."""
    if not DEBUG:
        return ["-O2", "-g0", "-fvisibility=hidden", "-pthread", *GENERATED], ["-pthread"]
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fvisibility=hidden", "-pthread", *GENERATED]
    link_args = ["-pthread"]
    if loads_with_ubsan():
        # No recovery: a report that scrolls by in a green run would help nobody.
        checks = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
        compile_args += checks
        link_args += checks
    else:
        compile_args.append("-ftrapv")
    return compile_args, link_args


class BuildExt(build_ext):
    """Compiles the modules side by side, and ends with an error where one of them does not compile."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or JOBS
        # What is up to date is told by contents (below), and not by times.
        self.force = True

    def run(self) -> None:
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        self.version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        super().run()

    def build_extension(self, ext: Extension) -> None:
        if COVERAGE:  # gcov wants what the compiler leaves beside its objects
            super().build_extension(ext)
            return
        kept = self.kept(ext)
        target = Path(self.get_ext_fullpath(ext.name))
        if kept.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            replace(kept, target)
            return
        super().build_extension(ext)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob(f"{ext.name}.*"):
            old.unlink(missing_ok=True)
        replace(target, kept)

    def kept(self, ext: Extension) -> Path:
        """Where the module is kept that is made of these C files (which include no headers of ours) in this way."""
        commands = (self.compiler.compiler_so, self.compiler.linker_so)
        options = (ext.extra_compile_args, ext.extra_link_args, ext.define_macros)
        made_of = hashlib.sha256(repr((commands, options, sys.version, sysconfig.get_path("include"))).encode())
        made_of.update(self.version)
        for source in ext.sources:
            made_of.update(Path(source).read_bytes())
        variant = "debug" if TRACE and not ext.define_macros else VARIANT
        return KEPT / variant / f"{ext.name}.{made_of.hexdigest()}.so"


def replace(source: Path, target: Path) -> None:
    """Copies a file so that whoever has the old one open or loaded keeps that."""
    os.replace(shutil.copy(source, target.with_name(f".{target.name}.{os.getpid()}")), target)


def extensions() -> list[Extension]:
    sources = sorted(Path("paxos").rglob("_*.pyx"))
    if not sources:
        raise SystemExit("no paxos/_*.pyx here: run setup.py from the top of the source tree")
    compile_args, link_args = flags()
    built: list[Extension] = []
    for tracing in (False, True):
        modules = [
            Extension(
                ".".join(source.with_suffix("").parts),
                [source.as_posix()],
                language="c",
                extra_compile_args=compile_args + (COUNTED if COVERAGE and source.parent.name == "paxos" else []),
                extra_link_args=link_args + (["--coverage"] if COVERAGE else []),
                define_macros=[("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if tracing else [],
                depends=["setup.py"],
            )
            for source in sources
            if traced(source) == tracing
        ]
        built += cythonize(
            modules,
            nthreads=JOBS,
            build_dir=f"build/cython-{VARIANT}",
            compiler_directives={**DIRECTIVES, "linetrace": tracing},
            cache=str(KEPT / "c"),
            quiet=True,
        )
    return built


# cythonize works with processes: those import this file again where they are spawned rather than forked.
if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildExt},
        options={"build": {"build_temp": f"build/temp-{VARIANT}"}},
    )
