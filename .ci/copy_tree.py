"""Copies the sources to a tree of their own, in which another variant is built (see setup.py).

Copies what changed, keeps times (so that only what changed is compiled), and drops what is gone. Run from the top of the
source tree, with the other tree as the only argument.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from pathlib import Path

FOLDERS = ("paxos", "tests", "docs", "benchmarks", "wheels", ".ci")
FILES = ("setup.py", "pyproject.toml", "conftest.py", "README.md", "CHANGELOG.md", "LICENSE", "Makefile")


def copy_tree(tree: Path) -> None:
    """Makes the sources in ``tree`` the same as here; what was built there stays."""
    for folder in FOLDERS:
        wanted = set()
        for source in Path(folder).rglob("*"):
            if source.is_file() and (source.suffix not in (".so", ".pyc", ".c") or source.parent.name == "shim"):
                target = tree / source
                wanted.add(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() or not filecmp.cmp(source, target, shallow=False):
                    shutil.copy2(source, target)
        for old in (tree / folder).rglob("*"):
            if old.is_file() and old not in wanted and old.suffix not in (".so", ".pyc"):
                old.unlink()
    for name in FILES:
        target = tree / name
        if not target.exists() or not filecmp.cmp(name, target, shallow=False):
            shutil.copy2(name, target)


if __name__ == "__main__":
    copy_tree(Path(sys.argv[1]))
