# make setup | demo | test | check. Everything happens inside .venv; a second run reinstalls nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench-shapley clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]' --constraint constraints.txt
	touch $@

demo: setup
	$(BIN)/shapprune demo

# One torch thread a worker: two threads that wait for each other are slower than one.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_imports.py

# Compares the estimators of Shapley values; needs the models of ../shared.
bench-shapley: setup
	$(BIN)/python benchmarks/shapley.py

clean:
	rm -rf .venv
