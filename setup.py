"""Builds the extension modules: every ``_*.pyx`` below ``paxos`` is one. All the rest of the set-up is in pyproject.toml.

``PAXOS_DEBUG=1`` builds with bounds, overflow and None checks, and C undefined behaviour as a hard error.
``PAXOS_DEBUG=trace`` adds line tracing, also of code that runs without the GIL. A traced line takes the GIL, and in the
engine that is a deadlock: its thread waits for the GIL with the mutex of a queue held, for which a Python thread waits
with the GIL held. So that one is for the core and the log, and for their coverage.

``PAXOS_DEBUG=coverage`` builds without optimization, and counts lines and branches of the C files for gcov, at native speed
and without Python's tracing; the modules of ``paxos.testing`` are those of a release.

C files and objects of each variant go to directories of their own.
"""

from __future__ import annotations

import os
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
# Of Cython's translations, and then of C compilers, at a time.
JOBS = int(os.environ.get("PAXOS_BUILD_JOBS", "2"))

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
    "linetrace": TRACE,
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


def flags() -> tuple[list[str], list[str], list[tuple[str, str | None]]]:
    """Compiler flags, linker flags and macros of this variant."""
    if not DEBUG:
        return ["-O2", "-g0", "-fvisibility=hidden", "-pthread", *GENERATED], ["-pthread"], []
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fvisibility=hidden", "-pthread", *GENERATED]
    link_args = ["-pthread"]
    if loads_with_ubsan():
        # No recovery: a report that scrolls by in a green run would help nobody.
        checks = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
        compile_args += checks
        link_args += checks
    else:
        compile_args.append("-ftrapv")
    return compile_args, link_args, [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if TRACE else []


class BuildExt(build_ext):
    """Compiles the modules side by side, and ends with an error where one of them does not compile."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or JOBS


def extensions() -> list[Extension]:
    sources = sorted(Path("paxos").rglob("_*.pyx"))
    if not sources:
        raise SystemExit("no paxos/_*.pyx here: run setup.py from the top of the source tree")
    compile_args, link_args, macros = flags()
    modules = [
        Extension(
            ".".join(source.with_suffix("").parts),
            [source.as_posix()],
            language="c",
            extra_compile_args=compile_args + (COUNTED if COVERAGE and source.parent.name == "paxos" else []),
            extra_link_args=link_args + (["--coverage"] if COVERAGE else []),
            define_macros=macros,
            depends=["setup.py"],
        )
        for source in sources
    ]
    built: list[Extension] = cythonize(
        modules,
        nthreads=JOBS,
        build_dir=f"build/cython-{VARIANT}",
        compiler_directives=DIRECTIVES,
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
