PYTHON ?= python3
# Each version of Python has an environment of its own: python3's is .venv, that of PYTHON=python3.12 is .venv-3.12.
ifneq ($(PYTHON),python3)
SHOW_VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
WANTED := $(shell $(PYTHON) $(SHOW_VERSION))
$(if $(WANTED),,$(error PYTHON=$(PYTHON) does not run; install it, or name another))
VERSION := $(if $(filter $(shell python3 $(SHOW_VERSION)),$(WANTED)),,-$(WANTED))
endif
VENV := .venv$(VERSION)
BIN := $(VENV)/bin
# Marks a finished installation; a changed pyproject.toml installs again.
INSTALLED := $(VENV)/.installed

LOWEST := tests/constraints/lowest
LOWEST_VENV := .venv-lowest$(VERSION)
LOWEST_INSTALLED := $(LOWEST_VENV)/.installed
AUDIT_VENV := .venv-audit$(VERSION)
# Every Python that pyproject.toml names.
PYTHONS := python3.11 python3.12 python3.13 python3.14
# Two processes; the tests of a file share what its fixtures make.
PARALLEL := --numprocesses 2 --dist loadfile
INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-all test-lowest matrix lint wheel-check audit tables docs bench coverage soak fuzz faults clean

help:
	@echo "make demo         a teacher made small on real digits, in a few minutes"
	@echo "make test         the quick tests"
	@echo "make test-all     the slow ones too"
	@echo "make test-lowest  the quick tests with the lowest versions of all dependencies, in .venv-lowest"
	@echo "make matrix       the quick tests with each of $(PYTHONS) that is installed"
	@echo "make lint         style, types, imports between packages, the wheel"
	@echo "make wheel-check  sdist and wheel, the wheel in an empty environment, and its demo"
	@echo "make audit        known vulnerabilities of the newest and of the lowest versions of all dependencies"
	@echo "make tables       the tables of the examples, from the results that their studies wrote"
	@echo "make docs         the documentation, in build/site; a warning is an error"
	@echo "make bench        the benchmarks, each of which prints ratios"
	@echo "make coverage     every edit on 167 networks, in four hours of computing; goes on where it was stopped (ARGS=--help)"
	@echo "make soak         50 kills of every method and kind of command, which go on to the same bits (ARGS=--help)"
	@echo "make fuzz         20,000 changed files of every kind that kdtool reads, in a quarter of an hour (ARGS=--help)"
	@echo "make faults       full disks, closed streams, too little memory and the like (ARGS=--help)"
	@echo "make clean        remove what these commands made"
	@echo "make test PYTHON=python3.12 takes another interpreter, with its own environment: .venv-3.12"

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	@touch $@

$(LOWEST).txt: pyproject.toml $(LOWEST).py
	$(PYTHON) $(LOWEST).py > $@

$(LOWEST_INSTALLED): $(LOWEST).txt
	$(PYTHON) -m venv --clear $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python $(INSTALL) --constraint $(LOWEST).txt --editable '.[test]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/kdtool demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL)

test-lowest: $(LOWEST_INSTALLED)
	$(LOWEST_VENV)/bin/python -m pytest -m "not slow" $(PARALLEL)

matrix:
	@for python in $(PYTHONS); do \
		if $$python -c '' 2> /dev/null; then \
			echo "== $$python"; \
			$(MAKE) test PYTHON=$$python || exit 1; \
		else \
			echo "== $$python: not installed, left out"; \
		fi; \
	done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel
	$(BIN)/check-wheel-contents build/wheel

# The wheel is built from the sdist. Nothing of the repository is on the path of what is tried.
wheel-check: $(INSTALLED)
	rm -rf build/wheel-check
	$(BIN)/python -m build --no-isolation --outdir build/wheel-check
	$(PYTHON) -m venv build/wheel-check/venv
	build/wheel-check/venv/bin/python $(INSTALL) build/wheel-check/*.whl
	cd build/wheel-check && env -u PYTHONPATH venv/bin/kdtool plugins && env -u PYTHONPATH venv/bin/kdtool demo
	rm -rf build/wheel-check/venv

# --strict: what the service does not know is no success.
audit: $(INSTALLED)
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python $(INSTALL) pip-audit
	@mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[^ ;]*//' > build/newest.txt
	$(AUDIT_VENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement build/newest.txt
	$(AUDIT_VENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement $(LOWEST).txt

tables: $(INSTALLED)
	$(BIN)/cog -r -P -I examples examples/README.md examples/*/README.md

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --site-dir build/site

bench: $(INSTALLED)
	@for script in benchmarks/*.py; do \
		echo "== $$script"; \
		$(BIN)/python "$$script" || exit 1; \
	done
	$(BIN)/python -m benchmarks.peers

coverage: $(INSTALLED)
	$(BIN)/python -m benchmarks.coverage $(ARGS)

soak: $(INSTALLED)
	$(BIN)/python -m benchmarks.safety.soak $(ARGS)

fuzz: $(INSTALLED)
	$(BIN)/python -m benchmarks.safety.fuzz $(ARGS)

faults: $(INSTALLED)
	$(BIN)/python -m benchmarks.safety.faults $(ARGS)

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
