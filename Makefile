# The README's two commands are `make test` and `make demo`; each does all the set-up it needs, once.
#   make test         build, then every test                     ARGS="-k name" picks some
#   make demo         three nodes, a killed master, the proof     ARGS="--json" and so on
#   make lint         ruff, mypy --strict, stubs against the compiled modules
#   make debug-test   unit tests on builds with bounds, overflow and None checks and line tracing, in build/
#   make sim-coverage statements and branches of core and log that simulations alone reach    ARGS="--seeds 300"
#   make bench        the benchmarks
#   make wheel        a wheel, repaired, in wheelhouse/
# PYTHON names the interpreter to build the virtual environment with (3.11 or later).

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
PY     := $(BIN)/python

# Every compiled module that Python sees something of has a stub.
STUBS   := $(subst /,.,$(patsubst %.pyi,%,$(wildcard paxos/_*.pyi paxos/testing/_*.pyi)))
SOURCES := $(wildcard paxos/*.pyx paxos/*.pxd paxos/testing/*.pyx paxos/testing/*.pxd) setup.py

.PHONY: build test demo lint format hints debug-test sim-coverage bench bench-once wheel kill-rounds fault-rounds corruption-rounds failover clean

# -- set-up: a stamp each, so that nothing is done twice

$(VENV)/.made:
	@sh .ci/prerequisites $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml | build/.directives
	$(PY) -m pip install --quiet --disable-pip-version-check "setuptools>=77" "Cython>=3.1"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[dev]"
	@touch $@

# setup.py holds the compiler directives, which Cython does not look at when it decides what is up to date.
build/.directives: setup.py
	@rm -rf build/cython-release
	@mkdir -p build && touch $@

build/.built: $(VENV)/.test build/.directives $(SOURCES)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

build: build/.built

# -- what people ask for

test: build
	$(PY) -m pytest tests $(ARGS)

demo: build
	$(PY) -m paxos demo $(ARGS)

bench: build
	$(PY) -m pytest --benchmark $(ARGS)

# Each benchmark once and untimed, so that they cannot rot.
bench-once: build
	$(PY) -m pytest --benchmark --benchmark-disable $(ARGS)

lint: build $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PY) -m mypy.stubtest --allowlist .ci/stubtest_allowlist --ignore-unused-allowlist $(STUBS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hints: $(VENV)/.dev
	$(PY) .ci/performance_hints.py

debug-test: $(VENV)/.test
	bash .ci/debug_test.sh $(abspath $(PY)) debug $(ARGS)
	bash .ci/debug_test.sh $(abspath $(PY)) trace $(ARGS)

sim-coverage: $(VENV)/.test
	$(PY) .ci/sim_coverage.py $(ARGS)

wheel: $(VENV)/.dev
	bash wheels/build.sh $(PY)

# The closing check of durability: 50 times all three nodes are killed at once, 50 times the power fails.
kill-rounds: build
	PAXOS_KILL_ROUNDS=50 PAXOS_POWER_ROUNDS=50 $(PY) -m pytest tests/test_processes.py tests/test_power_loss.py -k rounds $(ARGS)

# Many rounds of kill -9, SIGSTOP and partitions, each history judged. A seed printed on failure draws the same faults.
fault-rounds: build
	PAXOS_FAULT_ROUNDS=20 $(PY) -m pytest tests/test_real_faults.py $(ARGS)

# Every byte of a node's directory flipped, every file cut, lost, doubled: of a node with others, and of one that is alone.
# About a quarter of an hour; ARGS="--every 20 --scan 20" for a look.
corruption-rounds: build
	$(PY) -m paxos.testing.corruption --nodes 3 $(ARGS)
	$(PY) -m paxos.testing.corruption --nodes 1 $(ARGS)

# How long writes stand still when the master is killed: ten demonstrations, seconds each, and their median.
failover: build
	@for round in 1 2 3 4 5 6 7 8 9 10; do $(PY) -m paxos demo --json; done | $(PY) -c "import json, statistics, sys; \
	pauses = [json.loads(line)['writes_resumed_s'] for line in sys.stdin]; \
	print('pauses', pauses, 'median', round(statistics.median(pauses), 3), 'longest', max(pauses))"

clean:
	rm -rf build dist wheelhouse *.egg-info paxos/*.so paxos/testing/*.so
