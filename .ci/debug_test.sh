#!/usr/bin/env bash
# Builds a checked variant (see setup.py) in build/VARIANT, a copy of the sources, so that no object or module of two
# builds can be taken for the other, and runs unit tests on it: "debug" all of them, "trace" those of core and log.
# Usage: .ci/debug_test.sh PYTHON debug|trace [pytest options]
set -euo pipefail
python=$1
variant=$2
shift 2
case $variant in
debug) setting=1 tests=(tests -m "not processes and not mutants") ;;
# (A function without the GIL asks for it to be traced, also under a mutex that a thread with the GIL waits for: where engines run that
# is a deadlock. Those tests run on the other builds.)
trace) setting=trace tests=(tests/test_core*.py tests/test_log*.py -k "not running_nodes and not fetched_its_values") ;;
*) echo "no such variant: $variant" >&2; exit 2 ;;
esac
top=$(pwd)
tree=$top/build/$variant
mkdir -p "$tree"
"$python" .ci/copy_tree.py "$tree"
cd "$tree"
if [ ! -e .directives ] || [ setup.py -nt .directives ]; then
    rm -rf build
    touch .directives
fi
export PAXOS_DEBUG=$setting PAXOS_BUILD_KEPT=${PAXOS_BUILD_KEPT:-$top/build/kept}
"$python" setup.py --quiet build_ext --inplace
# PYTHONPATH comes before the editable install, so it is this tree that is imported; test_sourcecode checks that.
# A report of undefined behaviour ends the process: it goes to a file, past pytest's capturing, and the stack is shown.
rm -f ubsan.*
export PYTHONPATH=$tree PYTHONFAULTHANDLER=1 UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1:log_path=$tree/ubsan
if ! "$python" -m pytest "${tests[@]}" -o faulthandler_timeout=120 "$@"; then
    find . -maxdepth 1 -name 'ubsan.*' -exec cat {} + >&2
    exit 1
fi
