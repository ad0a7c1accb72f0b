# Everything a newcomer needs: make demo, make test, make check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOT ?= runs
PIP := $(BIN)/python -m pip --disable-pip-version-check
# two processes, each with the test files that tests/conftest.py gives it
TWO_AT_ONCE := --numprocesses=2 --dist=loadgroup
export VAE_SWEEP_TEST_DATA ?= $(abspath ../shared/data)

.PHONY: demo test test-all check bench clean

demo: $(VENV)/.runtime ## run the sweep `beta` on embedded data and print its table
	$(BIN)/vae-sweep run beta --root $(ROOT)

test: $(VENV)/.dev ## the everyday tests
	$(BIN)/python -m pytest -m "not slow" $(TWO_AT_ONCE) --junit-xml=test-report.xml

test-all: $(VENV)/.dev ## also the slow ones
	$(BIN)/python -m pytest --junit-xml=test-report.xml

check: $(VENV)/.dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev ## the figures of BENCHMARKS.md
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache test-report.xml

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@ $(VENV)/.runtime
