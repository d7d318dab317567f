# Everything a newcomer, a developer and CI do. `make` alone prints this menu.
# If the machine lacks something, a message names the command that installs it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
RUNTIME := $(VENV)/.runtime
# Demo and tests start dozens of processes; without byte code each of them compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
DEV := $(VENV)/.dev
# Which tests: make test T="tests/unit -k outgoing_filter"
T ?=
# More than two cores: while one waits for PostgreSQL or a process it started, another works.
WORKERS := -n 3

.PHONY: help install demo up test test-all browser check lint types audit format lock package bench bench-console pictures hour openapi docs guide defects clean

help: ## Print this menu
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET"; print ""} \
	      /^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2} \
	      END {print ""; print "First: make demo (shows everything), then make up (leaves it running)."}' $(MAKEFILE_LIST)

install: $(DEV) ## Install everything in .venv, with the test tools (the other targets install what they need)

demo: $(RUNTIME) ## Show everything that exists, with progress bars, and stop again (2 to 3 minutes, with the installation)
	@$(BIN)/pipeline demo

up: $(RUNTIME) ## Run everything on this machine until Ctrl-C, with a new sandbox; with credentials in the environment, against real systems
	@$(BIN)/pipeline up

test: $(DEV) ## Run the tests, without the slow ones; T="tests/unit -k outgoing_filter" runs some
	@$(BIN)/python -m pytest $(WORKERS) -m "not slow" $(T)

test-all: $(DEV) ## Run all tests, the slow ones too
	@$(BIN)/python -m pytest $(WORKERS) -m "not browser" $(T)
	@$(if $(T),true,$(BIN)/python -m pytest -m browser tests/browser)

browser: $(DEV) ## Test the console in a real Chromium (three minutes)
	@$(BIN)/python -m pytest -m browser tests/browser

check: lint types test-all ## Everything CI checks: lint, types, all tests

lint: $(DEV) ## Check the style, the formatting and the layers of imports
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports > $(VENV)/layers.log || { cat $(VENV)/layers.log; exit 1; }
	@$(BIN)/ruff format --check --quiet . || { echo "Some files are not formatted; Run: make format"; exit 1; }

types: $(DEV) ## Check the types
	@$(BIN)/mypy

audit: $(DEV) ## Check the pinned packages for known vulnerabilities; exit code 3 if that could not be checked
	@$(BIN)/python deploy/audit.py

format: $(DEV) ## Format the code, and fix what can be fixed automatically
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

package: $(DEV) ## Install the wheel in an empty folder and run everything there (two minutes)
	@$(BIN)/python -m tests.package

bench: $(DEV) ## Measure a full fetch: rate, CPU by process, memory, tokens
	@$(BIN)/python -m benchmarks.full_fetch

bench-console: $(DEV) ## Measure every page of the console over ten million events (some minutes)
	@$(BIN)/python -m benchmarks.console

pictures: $(DEV) ## Renew docs/pictures/: every page of the console, light and dark (three minutes; needs Chromium, pngquant)
	@$(BIN)/python -m tests.browser.pictures

hour: $(DEV) ## Run an hour of lost webhooks, an outage and a lost token, then compare both sides (twenty minutes)
	@$(BIN)/python -m benchmarks.hour

lock: ## Renew the lock files: every dependency pinned, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "uv is missing. Install it with: python3 -m pip install uv"; exit 1; }
	@python3 deploy/requirements.py | $(UV_COMPILE) -o requirements.lock -
	@python3 deploy/requirements.py embedded | $(UV_COMPILE) -c requirements.lock -o requirements-embedded.lock -
	@python3 deploy/requirements.py embedded dev | $(UV_COMPILE) -c requirements-embedded.lock -o requirements-dev.lock -
	@echo "requirements.lock, requirements-embedded.lock and requirements-dev.lock are new; now: make check"

openapi: $(DEV) ## Renew docs/openapi.json and the tables of docs/api.md: the public contract of /api/v1; review its changes
	@$(BIN)/python -m tests.unit.test_operations

docs: openapi ## Renew the generated documentation: docs/modules.md, the runbook's reasons, and the API
	@$(BIN)/python -m tests.unit.test_docs

guide: $(DEV) ## Check what the customer's guide promises, sentence by sentence
	@$(BIN)/python -m tests.promises guide

defects: $(DEV) ## Test the 24 known defects of the earlier connector, one by one
	@$(BIN)/python -m tests.promises defects

clean: ## Remove what was made here: .venv, caches, and the data of the embedded servers
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m pipeline.local remove 2>/dev/null || true; fi
	@rm -rf $(VENV) .data build .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
	--no-emit-index-url --no-header --no-annotate

$(VENV)/bin/python:
	@deploy/make-venv $(VENV)

# Large packages of which next to nothing is imported: their byte code would take a third of the time of all.
NOT_COMPILED := site-packages/(graphql|mypy|mypyc|playwright|pygments/lexers|schemathesis)/

# What pip says is kept, and shown when it failed. All cores write the byte code; pip would use one.
define INSTALL
@echo "$(1) …"
@{ $(PIP) install --no-compile --require-hashes --only-binary :all: -r $(2) \
   && $(PIP) install --no-deps --no-build-isolation -e . \
   && { $(BIN)/python -m compileall -q -j 0 -x '$(NOT_COMPILED)' $(VENV)/lib db pipeline sandbox || true; }; } > $(VENV)/install.log 2>&1 \
   || { cat $(VENV)/install.log; echo "The installation failed; the lines above say why."; exit 1; }
endef

# The demo needs what runs and the embedded servers; an installation for the tests has both. requirements.lock is for production.
$(RUNTIME): requirements-embedded.lock setup.cfg | $(VENV)/bin/python
	$(call INSTALL,Installing the program (once, 1 to 3 minutes),$(if $(wildcard $(DEV)),requirements-dev.lock,requirements-embedded.lock))
	@touch $@

$(DEV): requirements-dev.lock setup.cfg | $(VENV)/bin/python
	$(call INSTALL,Installing the program and its test tools (once, 1 to 3 minutes),requirements-dev.lock)
	@touch $(RUNTIME) $@
