PYTHON ?= python3
BIN := .venv/bin
# Marks a finished installation; a changed pyproject.toml installs again.
INSTALLED := .venv/.installed

.PHONY: help demo test test-all lint docs bench coverage clean

help:
	@echo "make demo      a teacher made small on real digits, in a few minutes"
	@echo "make test      the quick tests"
	@echo "make test-all  the slow ones too"
	@echo "make lint      style, types, imports between packages, the wheel, the generated parts of the docs"
	@echo "make docs      write the generated parts of the docs anew"
	@echo "make bench     the benchmarks, each of which prints ratios"
	@echo "make coverage  every edit on 167 networks, in about an hour; goes on where it was stopped (ARGS=--help)"
	@echo "make clean     remove what these commands made"
	@echo "PYTHON=python3.12 make ... picks the interpreter of a new .venv"

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/kdtool demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel
	$(BIN)/check-wheel-contents build/wheel
	$(BIN)/cog --check README.md CONTRIBUTING.md

docs: $(INSTALLED)
	$(BIN)/cog -r README.md CONTRIBUTING.md

bench: $(INSTALLED)
	@for script in benchmarks/*.py; do \
		echo "== $$script"; \
		$(BIN)/python "$$script" || exit 1; \
	done

coverage: $(INSTALLED)
	$(BIN)/python -m benchmarks.coverage $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
