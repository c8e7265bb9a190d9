# From a clone to a proven allocation:  make demo
# From a clone to passing tests:        make test
# Both set up .venv first; Python 3.11 or newer and make are all that is needed.

# The first interpreter that is new enough; override with make PYTHON=/path/to/python.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL = bin/python -m pip install -qq --disable-pip-version-check
# Old pips constrain the build of the package by the first name, pip 25.3 and newer by the second.
CONSTRAINED = PIP_CONSTRAINT=$(1) PIP_BUILD_CONSTRAINT=$(1)
LOCKED := $(call CONSTRAINED,lock.txt)
# torch stays at this version when the lock is renewed, and in the tests of the newest and the oldest versions: others
# may bring gigabytes of CUDA libraries, and the trainer's reference numbers belong to it. `make lock TORCH=...` moves it.
TORCH ?= $(shell sed -n 's/^torch==//p' lock.txt)
WORKERS ?= 2
SEEDS ?= 100000
START ?= 0
SMOKE := tests/data/test_instance.py tests/solvers/fdma/test_bandwidth.py tests/solvers/fdma/test_convex.py tests/solvers/search/test_engine.py
# Workers that each start a thread per core fight for the cores, and the tests of the trainer take ten times as long.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: help demo flower test test-slow fuzz test-newest test-oldest mutants smoke lock lint format hooks docs bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       solve realistic cells with proof, train under the allocations; pictures in out/"
	@echo "make flower     federated training in Flower's simulation, allocated every round"
	@echo "make test       the default tests (minutes)"
	@echo "make test-slow  the long tests"
	@echo "make fuzz SEEDS=100000 START=0 WORKERS=2"
	@echo "                hostile instances against an oracle of its own; goes on where it was stopped; out/fuzz/"
	@echo "make mutants    mutation testing of the checker, out/mutants (hours; SAMPLE=400: so many mutants; goes on)"
	@echo "make test-newest, make test-oldest"
	@echo "                the default tests with the newest versions of everything, with the oldest that we claim"
	@echo "make smoke PYTHON=python3.13"
	@echo "                solve and test a little on another Python, without the extras"
	@echo "make lock       renew lock.txt, the versions that all the other targets install"
	@echo "make lint       ruff, mypy --strict, import layers, the house rules, docstrings"
	@echo "make format     rewrite the sources as ruff format wants them"
	@echo "make hooks      ruff and mypy before every commit (a plain git hook)"
	@echo "make docs       the documentation as a site, docs/_build/index.html"
	@echo "make bench      method convex against IPOPT and SCIP, one run (long; see benchmarks/)"

demo: $(VENV)/.demo
	@$(BIN)/edgealloc demo --out out

flower: $(VENV)/.test
	@$(BIN)/python examples/flower_app/run.py

test: $(VENV)/.test
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.test
	@$(ONE_THREAD) $(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.test
	@$(ONE_THREAD) $(BIN)/python -m tests.fuzz.run --seeds $(SEEDS) --start $(START) --workers $(WORKERS)

# cosmic-ray in an environment of its own; the tests that it runs need none of the heavy extras.
mutants: .venv-mutants/.ready
	@$(ONE_THREAD) .venv-mutants/bin/python -m tests.mutants --sample $(or $(SAMPLE),0) --workers $(WORKERS)

# Kernels compiled by another numba are kept apart.
test-newest:
	@$(PYTHON) -m venv --clear .venv-newest
	@echo torch==$(TORCH) > .venv-newest/constraints.txt
	@$(call CONSTRAINED,.venv-newest/constraints.txt) .venv-newest/$(INSTALL) --editable ".[test]"
	@NUMBA_CACHE_DIR="$(CURDIR)/.venv-newest/kernels" $(ONE_THREAD) .venv-newest/bin/python -m pytest -n $(WORKERS)

test-oldest: .venv-oldest/.test
	@NUMBA_CACHE_DIR="$(CURDIR)/.venv-oldest/kernels" $(ONE_THREAD) .venv-oldest/bin/python -m pytest -n $(WORKERS)

# The core alone, for torch on a second Python would be a second download of gigabytes. The tests are those that
# need no extra; they solve with `convex` and `bnb`.
smoke:
	@$(PYTHON) -m venv --clear .venv-smoke
	@$(LOCKED) .venv-smoke/$(INSTALL) --editable . pytest pytest-xdist hypothesis jsonschema setuptools
	@.venv-smoke/bin/python tests/versions.py check
	@NUMBA_CACHE_DIR="$(CURDIR)/.venv-smoke/kernels" .venv-smoke/bin/python -m pytest -n $(WORKERS) $(SMOKE)

lock: $(BIN)/python
	@$(BIN)/python tests/versions.py lock torch==$(TORCH)

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.house
	@$(BIN)/python -m tests.docstrings

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

hooks: $(VENV)/.test
	@hook="$$(git rev-parse --git-path hooks)/pre-commit"; mkdir -p "$${hook%/*}"; \
	if [ -e "$$hook" ] && ! cmp -s .ci/pre-commit "$$hook"; then \
		echo "$$hook is there already: move it away first" >&2; exit 1; \
	fi; \
	cp .ci/pre-commit "$$hook" && echo "installed $$hook"

docs: $(VENV)/.test
	@$(BIN)/python -m sphinx -W -q docs docs/_build

bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.fdma_speed

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest .venv-smoke .venv-mutants build dist out docs/_build *.egg-info .pytest_cache .mypy_cache \
		.ruff_cache .import_linter_cache

# Stamp files: an environment is set up once, and again only when pyproject.toml or the lock changes.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "edgealloc needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "edgealloc needs Python 3.11 or newer; $(PYTHON) is older, or no Python" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON): once, a minute or a few" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml lock.txt | $(BIN)/python
	@$(LOCKED) $(VENV)/$(INSTALL) --editable ".[plot,frame,train]"
	@$(BIN)/edgealloc warmup
	@touch $@

$(VENV)/.test: pyproject.toml lock.txt | $(BIN)/python
	@$(LOCKED) $(VENV)/$(INSTALL) --editable ".[test]"
	@$(BIN)/edgealloc warmup
	@touch $@

$(VENV)/.bench: pyproject.toml lock.txt $(VENV)/.test
	@$(LOCKED) $(VENV)/$(INSTALL) --editable ".[bench]"
	@touch $@

.venv-mutants/.ready: pyproject.toml lock.txt
	@$(PYTHON) -m venv --clear .venv-mutants
	@$(LOCKED) .venv-mutants/$(INSTALL) --editable . pytest hypothesis jsonschema
	@.venv-mutants/$(INSTALL) "cosmic-ray>=8.7"
	@touch $@

.venv-oldest/.test: pyproject.toml tests/versions.py
	@$(PYTHON) -m venv --clear .venv-oldest
	@$(PYTHON) tests/versions.py oldest torch==$(TORCH) > .venv-oldest/constraints.txt
	@$(call CONSTRAINED,.venv-oldest/constraints.txt) .venv-oldest/$(INSTALL) --editable ".[test]"
	@touch $@
