.DEFAULT_GOAL := help
.PHONY: help demo test soak postgres redis pcsc lint format bench contracts lock install install-files uninstall clean
export PYTHON ?= python3
BIN := .venv/bin
MINUTES ?= 60
PREFIX ?= /opt/taprail
EXTRAS ?= terminal,gateway

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1mmake %-10s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready build/node/.ready ## tap cards on a simulated terminal and settle them on a real EVM node
	@$(BIN)/taprail-sim demo

test: lint build/node/.ready build/app_day/.ready postgres redis pcsc ## lint, then all tests (some 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

soak: build/node/.ready ## faults on the whole stack, over seeds, for MINUTES (60)
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

lint: .venv/.ready ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/.ready ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.ready build/node/.ready build/peers/.ready ## measure, and write build/bench.json
	$(BIN)/python -m tests.bench

contracts: .venv/.ready build/node/.ready ## compile the Solidity sources into their committed artifacts
	$(BIN)/python -m taprail_hwsim.contracts
	$(BIN)/python -m taprail_hwsim.contracts gateway/contracts

lock: .venv/.ready ## write .ci/constraints.txt from what .venv holds now
	$(BIN)/python -m pip freeze --exclude-editable > .ci/constraints.txt

install install-files uninstall: export PREFIX := $(PREFIX)
install install-files uninstall: export EXTRAS := $(EXTRAS)
install install-files uninstall: export DESTDIR := $(DESTDIR)

install: ## as root: program, units, rules; EXTRAS=terminal,gateway PREFIX=/opt/taprail DESTDIR=
	@systemd/install program
	@systemd/install files
	@systemd/install activate

install-files:
	@systemd/install files

uninstall: ## as root: take them off again; data, keys and configuration stay
	@systemd/install remove

clean: ## remove everything that make has made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.ready: .ci/setup .ci/constraints.txt pyproject.toml hw-sim/pyproject.toml
	@.ci/setup venv

postgres:
	@.ci/setup postgres

redis:
	@.ci/setup redis

pcsc: .venv/.ready
	@.ci/setup pcsc

build/node/.ready: .venv/.ready hw-sim/node/package.json
	@.ci/setup node

build/app_day/.ready: .venv/.ready tests/e2e/app_day/package.json
	@.ci/setup app

build/peers/.ready: .venv/.ready tests/bench/peers/package.json
	@.ci/setup peers
