# One command for each thing one does here. Every target makes its own virtual environment first.
#   make drill      see the incidents happen bare, and not happen under Interlock (under a minute)
#   make test       all tests but the long ones; `make full` adds those, the checklist and the benchmarks
#   make proof      kills workers 1,020 times a store and counts effects at the remote (tests/proof/README.md)
#   make lint       ruff, mypy, import-linter, pyright: all of them, without changing a file
#   make bench      the benchmarks; writes the tables of docs/why.md
#   make docs       writes the generated reference pages and runs the code of the documentation
#   make figures    runs the drill with five seeds; writes the tables of README.md and docs/evidence.md
#   make conformance  every agent framework, bare and under Interlock; writes the matrix of docs/conformance.md
#   make accept     renews the accepted record of our own suites and schedules: look at what differs before you commit
#   make mutation   puts small faults into a sample of the guards' lines: the share that the chaos suites notice
#   make checklist  switches each guard and each setting off in a copy and requires that a named test fails

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python on the path that is new enough. `make PYTHON=/path/to/python …` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# Arguments for the program behind a target: make drill ARGS="--seed 2 --json"
ARGS ?=
WORKERS ?= auto

.PHONY: help venv drill test full proof lint format bench figures docs conformance checklist accept mutation coverage clean

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Interlock needs Python 3.11 or newer: make PYTHON=/path/to/python venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment: install its venv module" >&2; exit 1; }

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Interlock into $(VENV)" >&2
	@$(INSTALL) --editable .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Interlock and its development tools into $(VENV)" >&2
	@$(INSTALL) --editable '.[dev]'
	@touch $(BASE) $@

venv: $(DEV)

drill: $(BASE)
	@$(BIN)/interlock drill $(ARGS)

test: $(DEV)
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not full" $(ARGS)

full: $(DEV)
	@INTERLOCK_TEST_FULL=1 $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)
	@$(MAKE) proof
	@$(MAKE) checklist
	@$(MAKE) mutation
	@$(MAKE) bench

proof: $(DEV)
	@INTERLOCK_PROOF_SCALE=$${INTERLOCK_PROOF_SCALE:-34} $(BIN)/python -m pytest -q tests/proof $(ARGS)

lint: $(DEV)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy examples tests/typing
	@$(BIN)/lint-imports
	@$(BIN)/pyright

format: $(DEV)
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

bench: $(DEV)
	@$(BIN)/python -m benchmarks --write docs/why.md $(ARGS)

figures: $(DEV)
	@$(BIN)/python tools/figures.py drill

conformance: $(DEV)
	@$(BIN)/python -m conformance $(or $(ARGS),--write docs/conformance.md)

docs: $(DEV)
	@$(BIN)/python tools/reference.py
	@$(BIN)/python -m pytest -q tests/docs tests/test_runbooks.py

checklist: $(DEV)
	@$(BIN)/python tools/checklist.py $(ARGS)

accept: $(DEV)
	@$(BIN)/python tests/proof/accepted_record.py --accept

mutation: $(DEV)
	@$(BIN)/python tools/mutation.py $(or $(ARGS),--sample 160 --quick)

coverage: $(DEV)
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m "not full" --cov --cov-report=term $(ARGS)

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage* dist build
