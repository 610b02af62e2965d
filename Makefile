# make setup | demo | test | check. Everything happens inside .venv; a second run reinstalls nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench-architectures clean

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
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/invariants/test_imports.py

# Networks of timm and torchvision; torchvision asks for a torch of its own, hence the second venv.
bench-architectures: .venv-architectures/ready
	.venv-architectures/bin/shapprune bench architectures --out benchmarks/results/architectures

.venv-architectures/ready: pyproject.toml
	$(PYTHON) -m venv .venv-architectures
	.venv-architectures/bin/python -m pip install --quiet --editable '.[timm,torchvision]'
	touch $@

clean:
	rm -rf .venv .venv-architectures
