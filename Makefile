# make demo    install into .venv, fly the quadrotor from model to certified controller
# make test    install the developers' tools too, then lint, type check, check imports, test
# make lint    the checks without the tests
# make clean   remove the virtual environment, builds and caches; runs/ stays
# Another interpreter: make clean, then make demo PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
PLANT ?= quadrotor
OUT ?= runs/$(PLANT)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
MADE_FROM := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(VENV)/.installed
	$(BIN)/physai run $(PLANT) --out $(OUT)

test: lint
	$(BIN)/python -m pytest -n 2

lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One recipe for both: a change of either file installs again, nothing else does.
$(VENV)/.installed: EXTRA := all
$(VENV)/.installed-dev: EXTRA := dev
$(VENV)/.installed $(VENV)/.installed-dev: $(MADE_FROM)
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "physai needs Python 3.11 or newer, but '$(PYTHON)' was not found." >&2; \
	  echo "Install it, or name yours: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "physai needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name a newer one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv module is missing." >&2; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing physai[$(EXTRA)] into $(VENV) (a few minutes the first time)"
	@$(PIP) -e '.[$(EXTRA)]'
	@touch $@
