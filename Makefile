# From a clone to a proven allocation:  make demo
# From a clone to passing tests:        make test
# Both set up .venv first; Python 3.11 or newer and make are all that is needed.

# The first interpreter that is new enough; override with make PYTHON=/path/to/python.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# The trainer's reference numbers belong to this version; see the extra `train` in pyproject.toml.
TORCH := torch==2.13.0
WORKERS ?= 2
# Workers that each start a thread per core fight for the cores, and the tests of the trainer take ten times as long.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: help demo flower test test-slow lint format docs bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       solve realistic cells with proof, train under the allocations; pictures in out/"
	@echo "make flower     federated training in Flower's simulation, allocated every round"
	@echo "make test       the default tests (minutes)"
	@echo "make test-slow  the long tests"
	@echo "make lint       ruff, mypy --strict, import layers"
	@echo "make format     rewrite the sources as ruff format wants them"
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

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.test
	@$(BIN)/python -m sphinx -W -q docs docs/_build

bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks.fdma_speed

clean:
	rm -rf $(VENV) build dist out docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Stamp files: an environment is set up once, and again only when pyproject.toml changes.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "edgealloc needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON): once, a minute or a few" >&2
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	@$(PIP) $(TORCH) --editable ".[plot,frame,train]"
	@touch $@

# torch first and alone, so that nothing else can choose another version of it
$(VENV)/.torch: | $(BIN)/python
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.torch | $(BIN)/python
	@$(PIP) $(TORCH) --editable ".[test]"
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.test
	@$(PIP) $(TORCH) --editable ".[bench]"
	@touch $@
