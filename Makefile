# make setup | demo | test | test-fast | test-all | check | docs. Everything happens inside .venv; a second run reinstalls nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-fast test-all check docs results bench-architectures clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]' --constraint constraints.txt
	touch $@

demo: setup
	$(BIN)/shapprune demo

# One torch thread a worker: two threads that wait for each other are slower than one.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadgroup

# Before each commit: what takes milliseconds.
test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadgroup -m "not slow"

# With every optional package, none of which may be missing: what `make test` skips is run.
test-all: .venv-all/ready
	OMP_NUM_THREADS=1 .venv-all/bin/pytest --all-extras --numprocesses auto --dist loadgroup

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/invariants/test_imports.py

# The site, into site/; a link that leads nowhere fails. The variable silences an advertisement.
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]' --constraint constraints.txt
	touch $@

# README's figures and docs/results, from the files of benchmarks/results.
results: setup
	$(BIN)/python -m shapprune_bench.documentation

# All extras: torchvision asks for a torch of its own (with CUDA, some 6 GB), hence a second environment.
.venv-all/ready: pyproject.toml
	$(PYTHON) -m venv .venv-all
	.venv-all/bin/python -m pip install --quiet --editable '.[all,demo,dev]'
	touch $@

# Networks of timm and torchvision.
bench-architectures: .venv-all/ready
	.venv-all/bin/shapprune bench architectures --out benchmarks/results/architectures

clean:
	rm -rf .venv .venv-all site
