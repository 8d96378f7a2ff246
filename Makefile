# Two commands: `make run` serves OneLoop on this machine, `make test` proves it.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test test-all test-servers bench fuzz load chaos lock audit lint format messages clean

PYTHON ?= python3
BIN := .venv/bin
CHROMIUM ?= $(or $(shell command -v chromium chromium-browser google-chrome | head -n 1),/usr/bin/chromium)
# Arguments for `manage.py up`, e.g. make run UP="--port 8001".
UP ?=
# Arguments for `manage.py bench`, e.g. make bench BENCH="--only cycle_sql".
BENCH ?=
# Arguments for `manage.py chaos`, e.g. make chaos CHAOS="--kills 20".
CHAOS ?=
# Arguments for the load, e.g. make load LOAD="--users 50 --seconds 60".
LOAD ?=
# Arguments for the fuzzer.
FUZZ ?=
# Arguments for pytest, e.g. make test PYTEST="-k queue".
PYTEST ?=

run: .venv/.installed
	$(BIN)/python manage.py up $(UP)

test: .venv/.installed-dev chromium lint
	OMP_NUM_THREADS=1 CHROMIUM=$(CHROMIUM) $(BIN)/pytest -n 2 -m "not long" $(PYTEST)

# Those that take minutes, too.
test-all: .venv/.installed-dev chromium lint
	OMP_NUM_THREADS=1 CHROMIUM=$(CHROMIUM) $(BIN)/pytest -n 2 $(PYTEST)

# The same against the system's PostgreSQL with Redis, then with RabbitMQ and S3 as the media's store.
test-servers: .venv/.installed-dev chromium
	OMP_NUM_THREADS=1 CHROMIUM=$(CHROMIUM) $(BIN)/python -m tests.servers redis -n 2 -m "not long" $(PYTEST)
	OMP_NUM_THREADS=1 CHROMIUM=$(CHROMIUM) $(BIN)/python -m tests.servers rabbitmq -n 2 -m "not long" $(PYTEST)

# Spoilt files by the thousand, e.g. make fuzz FUZZ="--cases 50000 --seed 7".
fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

# Some minutes; writes bench.json.
bench: .venv/.installed
	$(BIN)/python manage.py bench $(BENCH)

# A quarter of an hour; kills 200 processes of a site of its own and writes chaos.json.
chaos: .venv/.installed
	$(BIN)/python manage.py chaos $(CHAOS)

# 200 simulated annotators for five minutes; writes load.json.
load: .venv/.installed-dev
	$(BIN)/python -m tests.load $(LOAD)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Collects the words that pages say into config/locale and compiles it; needs GNU gettext.
messages: .venv/.installed
	$(BIN)/python manage.py makemessages
	$(BIN)/python manage.py compilemessages --ignore .venv

# What the images install, with hashes; LOCK=--upgrade takes the newest versions.
lock: .venv/.installed-audit
	$(BIN)/python config/deploy/lock.py $(LOCK)

# Known holes in what is locked, suspicious code, unsafe production settings.
audit: .venv/.installed-audit
	$(BIN)/python config/deploy/audit.py

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "OneLoop needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "Installing into .venv …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[models,embedded]"
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	@echo "Installing into .venv …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ .venv/.installed

.venv/.installed-audit: pyproject.toml | .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[models,embedded,audit]"
	@touch $@

.PHONY: chromium
chromium:
	@if [ -x "$(CHROMIUM)" ]; then exit 0; fi; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  echo "Installing Chromium for the browser tests …"; \
	  $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null || \
	    { $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null; }; \
	fi; \
	[ -x "$(CHROMIUM)" ] || { echo "The browser tests need Chromium. Install it, or say where it is: make test CHROMIUM=/path/to/chromium"; exit 1; }
