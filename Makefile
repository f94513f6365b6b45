# `make` alone shows this help. Every target does its own set-up in .venv from a bare `python3` (3.11 or newer) with pip.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PIP := -m pip install --quiet --disable-pip-version-check
STAMP := .venv/.installed
SDK_OLD := .venv-sdk/1/.installed .venv-sdk/2/.installed
# Where there is npm, the tests walk the wire with the client for Node too.
SDK_NODE := $(if $(shell command -v npm),.node-sdk/.installed)
# One test process is one of several on the machine; torch's own threads would fight for the same cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test run check bench soak fuzz docs

help: ## Show the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tunesmith needs Python 3.11 or newer, for example: make $@ PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing Tunesmith into .venv (a few minutes the first time) ..."
	@$(BIN)/python $(PIP) -c constraints.txt torch
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

# The tests walk the wire with the last release of each earlier major version of the openai client too.
.venv-sdk/1/.installed: OPENAI := openai==1.109.1
.venv-sdk/2/.installed: OPENAI := openai==2.54.0
$(SDK_OLD): Makefile
	@$(PYTHON) -m venv $(@D)
	@echo "Installing $(OPENAI) into $(@D) ..."
	@$(@D)/bin/python $(PIP) '$(OPENAI)'
	@touch $@

.node-sdk/.installed: OPENAI := openai@6.49.0 axe-core@4.12.0
.node-sdk/.installed: Makefile
	@echo "Installing $(OPENAI) into $(@D) ..."
	@mkdir -p $(@D)
	@npm install --prefix $(@D) --silent --no-audit --no-fund --no-save --ignore-scripts $(OPENAI)
	@touch $@

install: $(STAMP) ## Make .venv with the development set

demo: $(STAMP) ## Tune the embedded base model as a user would, by all three methods, in under three minutes
	@$(BIN)/tunesmith demo

run: $(STAMP) ## Start the server on http://127.0.0.1:8000/v1
	@$(BIN)/tunesmith serve

check: $(STAMP) ## Lint, format, types, import contracts, house tests
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/lint-imports --no-logo --no-cache | tail -n 1
	@$(BIN)/pyright --warnings | tail -n 1
	@$(BIN)/pytest tests/house

test: $(STAMP) $(SDK_OLD) $(SDK_NODE) ## Run all tests on the CPU, without a network
	@TUNESMITH_SDK_VENVS=.venv-sdk/1:.venv-sdk/2 TUNESMITH_SDK_NODE=.node-sdk $(BIN)/pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		--cov --cov-report= --cov-fail-under=90 tests

bench: $(STAMP) ## Measure the figures of benchmarks/README.md on this machine
	@$(BIN)/python -m benchmarks

# Seeds that no earlier run has played, Hypothesis at random, real processes; the first failure stops it and tells its seed.
soak: $(STAMP) ## Run the long versions of the life-cycle tests for ten minutes
	@end=$$((SECONDS + 600)); first=$$(date +%s)0000; while [ $$SECONDS -lt $$end ]; do \
		PYTHONPATH=tests $(BIN)/python -m simulation $$first 20000; first=$$((first + 20000)); \
		TUNESMITH_TEST_PROFILE=soak TUNESMITH_TEST_NEMESIS_S=120 TUNESMITH_TEST_N_REQUESTS=1000 TUNESMITH_TEST_SEED=$$first $(BIN)/pytest -x tests/store/test_lives.py tests/flow tests/store tests/contract/test_webhooks.py; done

# What Schemathesis needs is no part of the development set, and nothing of `make test`.
.venv-fuzz/.installed: Makefile
	@$(PYTHON) -m venv $(@D)
	@echo "Installing Schemathesis into $(@D) ..."
	@$(@D)/bin/python $(PIP) 'schemathesis==4.32.5'
	@touch $@

FUZZ_S ?= 120
fuzz: $(STAMP) .venv-fuzz/.installed ## Ask a server for FUZZ_S seconds what Schemathesis makes of its OpenAPI description
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz $(FUZZ_S)

.venv/.docs: $(STAMP)
	@$(BIN)/python $(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

docs: .venv/.docs ## Build the documentation into site/, which needs no network, and check its links and code
	@PYTHONPATH=tools $(BIN)/python -m docsite site
	@TUNESMITH_TEST_PROFILE=soak $(BIN)/pytest tests/house/test_docs.py tests/unit/docsite tests/flow/test_documentation.py
	@echo "The documentation is site/index.html."
