# Needs make and a Python from 3.11 to 3.13. Everything else comes from PyPI into .venv, at the versions and hashes of
# requirements.lock. To choose the interpreter: make env PYTHON=python3.12

SHELL := /bin/sh
BIN := .venv/bin
CANDIDATES := $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python)

# No tool reports home.
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export FEAST_USAGE := False
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help env demo test check fmt lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.ready ## .venv with the locked dependencies and the project (PYTHON=... chooses the interpreter)

demo: env ## the whole story on a year of flights, into build/demo (REDIS=redis://... to serve from Redis)
	$(BIN)/python -m pipelines.demo --out build/demo $(if $(REDIS),--redis $(REDIS))

test: env ## every test
	$(BIN)/python -m pytest

check: env ## format, lint, types, the order of the rooms, the documents
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_docs.py

fmt: env ## format, and mend what the linter can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: $(BIN)/uv ## requirements.lock anew from pyproject.toml, at the newest versions that fit
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --upgrade --quiet --custom-compile-command "make lock" --output-file requirements.lock

clean: ## remove what was built; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# An interpreter counts when it runs: a name on PATH may be a shim with nothing behind it, or lack ensurepip.
$(BIN)/uv:
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
			echo ".venv from $$("$$python" --version)"; \
			"$$python" -m venv .venv && exit 0; exit 1; \
		fi; \
	done; \
	echo "No Python from 3.11 to 3.13 with venv and ensurepip among: $(CANDIDATES)." >&2; \
	echo "Name one: make env PYTHON=/path/to/python3.12 (Debian and Ubuntu: apt-get install python3-venv)" >&2; \
	exit 1
	@sed -n '/^uv==/,/^    # via/p' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.lock

# The lock also pins, as build constraints, what builds the one dependency that comes without a wheel.
.venv/.ready: requirements.lock pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --build-constraints requirements.lock requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@
