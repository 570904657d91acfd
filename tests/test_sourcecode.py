"""The rules that a reader of the sources may rely on, checked on the sources: size, layers, errors, portability."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
FOLDERS = ("paxos", "tests", "benchmarks", "wheels", ".ci", "docs")
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".sh", ".md", ""}
MADE = {"build", "__pycache__", ".venv", "dist", "wheelhouse"}

# The core from the bottom up: a module imports only from lower layers. The roles stand side by side in one layer:
# they never name each other, but append to an output box.
CORE_LAYERS: list[set[str]] = [
    {"_types"},
    {"_codec"},
    {"_replica"},
    {"_membership"},
    {"_mastership"},
    {"_changes"},
    {"_acceptor", "_proposer", "_learner", "_election", "_reader", "_formation"},
    {"_core"},
    {"_stepping"},
]
CORE = {name: rank for rank, names in enumerate(CORE_LAYERS) for name in names}
# Layout and recovery of the log are pure functions over bytes, like the core: they touch no file.
PURE = {*CORE, "_log", "_recovery"}
# What the compiled modules may know of the Python around them.
PYTHON_BELOW = {"errors", "hosts"}


def files(*suffixes: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((TOP / folder).rglob("*")):
            if (
                path.is_file()
                and path.suffix in (suffixes or SUFFIXES)
                and not MADE & set(path.parts[len(TOP.parts) :])
            ):
                yield path
    if not suffixes or ".py" in suffixes:
        yield from (TOP / name for name in ("setup.py", "conftest.py"))


def name_of(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def test_there_is_something_to_look_at() -> None:
    found = [name_of(path) for path in files()]
    assert {"paxos/_types.pxd", "setup.py", "tests/test_sourcecode.py", "tests/shim/shim.h", ".ci/run"} <= set(found)


def test_files_are_short() -> None:
    long = {
        name_of(path): lines
        for path in files(".py", ".pyx", ".pxd", ".pyi", ".c", ".h")
        if (lines := len(path.read_text().splitlines())) >= 700
    }
    assert not long, f"a file has one subject and stays below 700 lines: {long}"


def swallowing(tree: ast.AST) -> Iterator[int]:
    """Lines of handlers that catch everything, or that drop an error without a word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            silent = all(
                isinstance(part, ast.Pass) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
                for part in node.body
            )
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            if node.type is None or (broad and silent):
                yield node.lineno


def test_no_error_is_swallowed() -> None:
    found = []
    for path in files(".py"):
        found += [f"{name_of(path)}:{line}" for line in swallowing(ast.parse(path.read_text()))]
    for path in files(".pyx", ".pxd"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*except\s*:", line):
                found.append(f"{name_of(path)}:{number}")
    assert not found, found


@pytest.mark.parametrize("code", ["try: f()\nexcept: g()", "try: f()\nexcept Exception: pass"])
def test_the_check_for_swallowed_errors_finds_them(code: str) -> None:
    assert list(swallowing(ast.parse(code)))


# Written in parts, so that this file does not break its own rule.
ABSOLUTE = re.compile("(?<![\\w.:/$}])/(" + "|".join(["home", "root", "work", "Users", "tmp/[a-z]"]) + ")[/\\w]")


def test_no_path_of_one_machine() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in [*files(), *TOP.glob("*.md"), TOP / "Makefile", TOP / "pyproject.toml"]
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if ABSOLUTE.search(line)
    ]
    assert not found, found


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module or module.name) of everything that a Python or Cython file imports."""
    package = ".".join(path.relative_to(TOP).parent.parts)
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, [base, node.module or ""]))
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
        return
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*from\s+(\S+)\s+c?import\b", line):
            module = found[1]
            yield number, f"{package}.{module.lstrip('.')}" if module.startswith(".") else module
        elif found := re.match(r"\s*c?import\s+([\w.]+)", line):
            yield number, found[1]


def compiled_imports() -> dict[str, set[str]]:
    """For every compiled module, the modules of this package that its .pyx and .pxd import."""
    graph: dict[str, set[str]] = {}
    for path in [*(TOP / "paxos").glob("_*.pyx"), *(TOP / "paxos").glob("_*.pxd")]:
        found = graph.setdefault(path.stem, set())
        for _, module in imports(path):
            parts = module.split(".")
            if parts[0] == "paxos" and len(parts) > 1 and parts[1] != path.stem:
                found.add(parts[1])
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_the_core_imports_only_downward() -> None:
    graph = compiled_imports()
    assert {"_types", "_codec", "_core", "_engine"} <= set(graph)
    wrong = [
        f"{name} imports {other}"
        for name, rank in CORE.items()
        for other in graph.get(name, ())
        if other not in PYTHON_BELOW and CORE.get(other, rank) >= rank
    ]
    wrong += [f"{name} imports {other}" for name in ("_log", "_recovery") for other in graph[name] if other not in PURE]
    assert not wrong, wrong


def test_compiled_modules_know_nothing_of_what_stands_on_them() -> None:
    graph = compiled_imports()
    upward = [
        f"{name} imports {other}" for name in graph for other in graph[name] if other not in graph.keys() | PYTHON_BELOW
    ]
    assert not upward, upward
    assert circle(graph) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_core_and_layout_touch_no_file_socket_or_clock() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in (TOP / "paxos").glob("_*.p*")
        if path.stem in PURE and path.suffix in (".pyx", ".pxd")
        for line, module in imports(path)
        if (path.stem, module) != ("_codec", "os")  # once, at import: where the C library behind crc32c lies
        if module.split(".")[0] in ("posix", "os", "time", "socket", "random", "threading") or module == "libc.time"
    ]
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("kv", {"paxos", "paxos.errors", "paxos.kv"}),
        ("cli", {"paxos", "paxos.errors", "paxos.config", "paxos.kv", "paxos.cli", "paxos.testing", "paxos.offline"}),
    ],
)
def test_service_and_command_line_use_the_public_api(package: str, allowed: set[str]) -> None:
    """paxos.kv and paxos.cli are users like any other: they know ``paxos`` and its public names."""
    modules = {path.stem for path in (TOP / "paxos").glob("*.py*")} | {"kv", "cli", "testing", "offline"}
    wrong = []
    for path in (TOP / "paxos" / package).rglob("*.py"):
        for line, module in imports(path):
            parts = module.split(".")
            # "paxos.Node" is a name of the package, "paxos.node.Node" one of a module behind it.
            behind = len(parts) > 1 and parts[1] in modules
            if parts[0] == "paxos" and (".".join(parts[:2]) if behind else "paxos") not in allowed:
                wrong.append(f"{name_of(path)}:{line}: {module}")
    assert not wrong, wrong


def test_nothing_below_imports_the_service_or_the_command_line() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in (TOP / "paxos").glob("*.p*")
        if path.name != "__main__.py" and path.suffix in (".py", ".pyx", ".pxd")
        for line, module in imports(path)
        if module.startswith(("paxos.kv", "paxos.cli", "paxos.testing"))
    ]
    assert not wrong, wrong


def test_the_simulator_stands_beside_the_service_and_the_command_line() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in (TOP / "paxos" / "testing").glob("*.p*")
        if path.suffix in (".py", ".pyx", ".pxd")
        for line, module in imports(path)
        if module.startswith(("paxos.kv", "paxos.cli", "paxos._engine", "paxos._host", "paxos._net", "paxos._sockets"))
    ]
    assert not wrong, wrong


def test_what_engine_and_simulator_share_touches_no_socket_and_no_file() -> None:
    """Else the simulator would run something else than production does."""
    graph = compiled_imports()
    seen: set[str] = set()
    todo = ["_round", "_handle"]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph.get(name, ())
    assert {"_core", "_effects", "_history", "_store", "_recovery", "_delivery"} <= seen
    assert not seen & {"_net", "_sockets", "_host", "_engine", "_outqueue"}


def test_nothing_is_unpickled() -> None:
    wrong = [
        f"{name_of(path)}:{line}: {module}"
        for path in files(".py", ".pyx")
        if path.is_relative_to(TOP / "paxos")
        for line, module in imports(path)
        if module.split(".")[0] in ("pickle", "marshal", "shelve", "dill")
    ]
    assert not wrong, wrong


def test_no_tests_are_skipped() -> None:
    # In parts, for the same reason as above.
    marks = re.compile("pytest" + r"\.(skip|importorskip|xfail)|mark\.(" + "skip|skipif|xfail)")
    wrong = [
        f"{name_of(path)}:{number}"
        for path in files(".py")
        if path.is_relative_to(TOP / "tests")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong, wrong


def test_embedding_pulls_in_nothing_of_the_command_line() -> None:
    """``import paxos`` works without the extra "cli", and from this tree."""
    code = (
        "import sys, paxos\n"
        "print(paxos.__file__)\n"
        "print([name for name in ('click', 'rich', 'redis', 'hiredis') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr
    where, loaded = run.stdout.splitlines()
    assert Path(where).resolve() == TOP / "paxos" / "__init__.py"
    assert loaded == "[]"
