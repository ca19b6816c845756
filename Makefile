# The only list of commands. `make help` prints it.

DATA ?= demo
RECIPE ?= starter
BANK ?= bank
RUN ?= runs/$(RECIPE)
DEVICE ?= auto
PART ?= all
BUDGET ?= 50
STUDENT ?= student

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FEATBANK := $(BIN)/featbank

# One BLAS thread in each of our own worker processes: more threads on small matrices only fight each other.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

# Tests of one file share costly fixtures and stay together, the files in their order: by default those of few tests, which
# are the long ones, would come last. Each process may load torch, so that memory bounds their number.
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup setup-encoders demo features fit search distill report notebooks docs dist test test-slow lint format types imports check bench clean

help: ## show this list
	@echo "featbank: photographs to quality scores with frozen features and classic regression"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-15s %s\n", $$1, $$2}'
	@echo
	@echo "Variables: DATA=$(DATA) RECIPE=$(RECIPE) BANK=$(BANK) RUN=$(RUN) DEVICE=$(DEVICE) BUDGET=$(BUDGET) STUDENT=$(STUDENT)"
	@echo "Example:   make features fit DATA=~/uhd-iqa RECIPE=starter"

# Two stamps: users need the package alone, developers its tools as well.
$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "featbank needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "featbank needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-encoders: pyproject.toml | $(VENV)/.ready-dev
	$(BIN)/python -m pip install --quiet --editable '.[students,openvino]'
	@touch $@

$(VENV)/.ready-docs: pyproject.toml | $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

setup: $(VENV)/.ready-dev ## make the private environment in .venv, with the developer's tools

setup-encoders: $(VENV)/.ready-encoders ## add the libraries of network encoders and students (6 GB on disk); their tests then run too

demo: demo/uhd-iqa-metadata.csv ## render the built-in photo set into demo/ (a simulation)

demo/uhd-iqa-metadata.csv: | $(VENV)/.ready
	$(FEATBANK) demo demo

# The demo set is made only when it is the dataset asked for.
ifeq ($(DATA),demo)
DATA_READY := demo/uhd-iqa-metadata.csv
endif

features: $(VENV)/.ready $(DATA_READY) ## compute the features the bank lacks
	$(FEATBANK) features $(DATA) --recipe $(RECIPE) --bank $(BANK) --device $(DEVICE)

fit: features ## fit, evaluate, and write the run folder with its report
	$(FEATBANK) fit $(DATA) --recipe $(RECIPE) --bank $(BANK) --out $(RUN)

search: features ## find the best band subset within BUDGET; resumable, run it in several terminals at once
	$(FEATBANK) search $(DATA) --recipe $(RECIPE) --bank $(BANK) --budget $(BUDGET) --out runs/search-$(RECIPE)

distill: $(VENV)/.ready-encoders $(DATA_READY) ## distil the fitted RUN into the small encoder featbank:STUDENT
	$(FEATBANK) distill $(DATA) --teacher $(RUN) --out $(STUDENT) --bank $(BANK) --device $(DEVICE)

report: $(VENV)/.ready ## write the run's report again
	$(FEATBANK) report $(RUN)

notebooks: $(VENV)/.ready-dev demo ## execute every notebook on the demo set (CHECK=--check leaves the files as they are)
	$(FEATBANK) features demo --recipe starter
	$(FEATBANK) features demo --recipe search-classic
	$(BIN)/python -m experiments.notebooks $(CHECK)

docs: $(VENV)/.ready-docs ## build the documentation into site/ (warnings are errors)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: $(VENV)/.ready-dev ## build wheel and sdist into dist/, and try both in clean environments
	rm -rf build dist
	$(BIN)/python -m build --outdir dist
	FEATBANK_DIST=dist $(BIN)/python -m pytest -q tests/architecture/test_distribution.py

test: $(VENV)/.ready-dev ## run the tests (fast suite)
	$(BIN)/python -m pytest -q -m "not slow" $(SPREAD)

test-slow: $(VENV)/.ready-dev ## run every test, the long ones too
	$(BIN)/python -m pytest -q

lint: $(VENV)/.ready-dev ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready-dev ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.ready-dev ## check the types
	$(BIN)/mypy

imports: $(VENV)/.ready-dev ## check the import contracts
	$(BIN)/lint-imports

check: lint types imports test ## everything a commit must pass

bench: $(VENV)/.ready-dev ## measure speed as ratios, side by side in one run (PART=features, networks, scale, fit or all)
	$(BIN)/python -m experiments.benchmarks --part $(PART)

clean: ## remove the demo set, the bank, the runs and the tools' caches (not the environment)
	rm -rf demo bank runs build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
