#!/usr/bin/env bash
# Builds the checked variant in build/debug (a copy of the sources, so that no object or module of the two builds can
# be taken for the other) and runs the unit tests on it. Usage: .ci/debug_test.sh PYTHON [pytest options]
set -euo pipefail
python=$1
shift
top=$(pwd)
tree=$top/build/debug
mkdir -p "$tree"
# Copies what changed, keeps times (so that only what changed is compiled), and drops what is gone.
"$python" - "$tree" <<'EOF'
import filecmp, shutil, sys
from pathlib import Path

tree = Path(sys.argv[1])
for folder in ("paxos", "tests", "docs", "benchmarks", "wheels", ".ci"):
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
for name in ("setup.py", "pyproject.toml", "conftest.py", "README.md", "CHANGELOG.md", "LICENSE", "Makefile"):
    target = tree / name
    if not target.exists() or not filecmp.cmp(name, target, shallow=False):
        shutil.copy2(name, target)
EOF
cd "$tree"
if [ ! -e .directives ] || [ setup.py -nt .directives ]; then
    rm -rf build
    touch .directives
fi
PAXOS_DEBUG=1 "$python" setup.py --quiet build_ext --inplace
# PYTHONPATH comes before the editable install, so it is this tree that is imported; test_sourcecode checks that.
PAXOS_DEBUG=1 PYTHONPATH="$tree" UBSAN_OPTIONS=print_stacktrace=1 PYTHONFAULTHANDLER=1 \
    "$python" -m pytest tests -m "not processes" "$@"
