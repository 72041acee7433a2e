# Each target sets itself up: it makes .venv if it is missing and installs what pyproject.toml asks for, within
# constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

# The data that tests, benchmarks and recipes read, where it lies beside this checkout.
ifneq ($(wildcard ../shared/data),)
export APPORTION_DATA ?= $(abspath ../shared/data)
endif

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast test-oldest wheel-check lint bench site

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(STAMP) ## Make .venv and install the package with its tools.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@# torch alone first: plain pip then settles on one build of it before anything else may ask for another.
	$(PIP) torch
	$(PIP) -e '.[dev,rl]'
	@touch $@

run: $(STAMP) ## Compare four mixtures toward a target on made-up sources (minutes); goes on where it was stopped.
	$(BIN)/apportion compare recipes/targets.yaml --methods uniform,proportional,upsample,adapt --seeds 0,1,2 --out runs/quality

test: lint ## Lint, then all tests.
	$(BIN)/python -m pytest -n 2

test-fast: $(STAMP) ## The inner loop: all tests but the slow ones (tests/conftest.py names those).
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-oldest: ## The fast tests, and whole runs, on the oldest versions that pyproject.toml allows.
	test -x $(OLDEST)/pip || $(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install --disable-pip-version-check --quiet -c constraints-oldest.txt torch
	$(OLDEST)/python -m pip install --disable-pip-version-check --quiet -c constraints-oldest.txt -e '.[dev]'
	@# TRL asks for newer packages than these.
	$(OLDEST)/python -m pytest -n 2 -m "not slow" --ignore tests/exports/test_trl.py --ignore tests/training/rl \
		--deselect 'tests/test_house.py::test_every_module_imports_and_says_what_it_is[training/rl/trainer.py]'
	$(OLDEST)/python -m pytest -n 2 $(addprefix tests/training/test_,run.py resume.py adapters.py)

wheel-check: ## Build the wheel, install it away from here, and train with it.
	PYTHON=$(PYTHON) .ci/wheel

lint: $(STAMP) ## Check style, format and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: export OMP_WAIT_POLICY = PASSIVE
bench: $(STAMP) ## Run every benchmark, one after the other; each prints its table.
	$(PIP) -e '.[bench]'
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script; done

site: export NO_MKDOCS_2_WARNING = 1
site: $(STAMP) ## Build the documentation into site/; a warning is an error.
	$(PIP) -e '.[docs]'
	$(BIN)/mkdocs build --strict --quiet
	@echo "$(BIN)/python -m http.server -d site shows it."
