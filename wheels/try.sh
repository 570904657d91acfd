#!/usr/bin/env bash
# Installs the wheel in wheelhouse/ into a fresh environment and runs the demo from outside the tree.
# Usage: wheels/try.sh PYTHON
set -euo pipefail
python=$1
cd "$(dirname "$0")/.."
wheels=(wheelhouse/*.whl)
[ ${#wheels[@]} -eq 1 ] || { echo "wanted one wheel in wheelhouse/, found: ${wheels[*]}" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/env"
"$scratch/env/bin/python" -m pip install --quiet --disable-pip-version-check "$(pwd)/${wheels[0]}[cli]"
cd "$scratch"
"$scratch/env/bin/python" -c '
import paxos, sys
assert paxos.__file__.startswith(sys.prefix), paxos.__file__
print("paxos from", paxos.__file__)'
"$scratch/env/bin/paxos" demo --json
