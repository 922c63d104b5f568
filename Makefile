# What there is to do with this repository. Every target makes its own `.venv`; a second run is instant.
#
#   make demo                    orders that survive kill -9; ORDERS=path.csv takes your file
#   make test                    every test, with the reason of each skip
#   make test-clients            what speaks EventStoreDB, once with each client package
#   make test-docker             the same on real servers in containers
#   make check                   formatting, lint, types (mypy and pyright), import contracts
#   make bench                   the measurements that need no peer, into benchmarks/latest.json
#   make bench-peers             those against a peer, which gets its own virtual environment
#   make bench-clients           those of the EventStoreDB adapter, with a client package
#   make docs                    the guides' code blocks and links
#   make clean                   takes everything away that the targets made

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
# Tests that kill processes are slow and mostly wait; two workers keep two cores busy.
WORKERS ?= 2

.PHONY: help demo test test-clients test-docker check bench bench-peers bench-clients docs clean

help:
	@sed -n 's/^#   //p' Makefile

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "aion-es needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@touch $@

# The demo needs the package, rich and typer: much less than the tests do.
.venv/demo.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing what the demo needs into .venv, once …" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	@touch $@

# pip reads dependency groups from 25.1 on; what `venv` brings along is often older.
.venv/dev.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing what development needs into .venv, once …" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@ .venv/demo.stamp

demo: .venv/demo.stamp
	@$(BIN)/python -m examples.order_fulfilment.demo $(if $(ORDERS),--orders "$(ORDERS)")

test: .venv/dev.stamp
	@$(BIN)/python -m pytest -rs -n $(WORKERS) --dist worksteal

# The two client packages exclude each other, so each has a virtual environment of its own.
.venvs/esdbclient.stamp: EXTRA = eventstoredb
.venvs/kurrentdbclient.stamp: EXTRA = kurrentdb
.venvs/%.stamp: .venv/python.stamp pyproject.toml
	@echo "Installing aion-es with $* into .venvs/$*, once …" >&2
	@[ -x .venvs/$*/bin/python ] || $(PYTHON) -m venv .venvs/$*
	@.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[cli,testing,$(EXTRA)]' 'opentelemetry-sdk>=1.45' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
	@touch $@

# What is named for EventStoreDB, and the guide, whose second half needs a client.
CLIENT_TESTS = $$(find tests -name 'test_*eventstoredb*.py' -o -name 'test_local_server_*.py' | sort) \
	'tests/docs/test_guides.py::test_the_code_of_a_guide_does_what_the_guide_says[eventstoredb]'

# esdbclient pins a gRPC that has no wheels for Python 3.14.
CLIENTS = $(shell $(PYTHON) -c 'import sys; print("esdbclient" * (sys.version_info < (3, 14)), "kurrentdbclient")')

test-clients:
	@$(MAKE) --no-print-directory $(CLIENTS:%=.venvs/%.stamp)
	@failed=; for client in $(CLIENTS); do \
		echo "With $$client:"; \
		.venvs/$$client/bin/python -m pytest -rs -n $(WORKERS) --dist worksteal $(CLIENT_TESTS) \
			|| failed="$$failed $$client"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed with$$failed" >&2; exit 1; }

# Real servers in containers, through testcontainers; without a Docker engine this fails.
test-docker: .venvs/esdbclient.stamp
	@.venvs/esdbclient/bin/python -m pip install --quiet --disable-pip-version-check 'testcontainers>=4.8'
	@AION_ES_REQUIRE_DOCKER=1 .venvs/esdbclient/bin/python -m pytest -rs tests/integration

check: .venv/dev.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: .venv/dev.stamp
	@$(BIN)/python -m benchmarks all

bench-peers: .venv/dev.stamp
	@$(BIN)/python -m benchmarks peers

bench-clients: .venvs/esdbclient.stamp
	@.venvs/esdbclient/bin/python -m benchmarks p12

docs: .venv/dev.stamp
	@$(BIN)/python -m pytest -rs tests/docs tests/architecture/test_architecture_names_tests.py

clean:
	rm -rf .venv .venvs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
