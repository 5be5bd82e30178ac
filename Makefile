# `make run` in a fresh clone is all a newcomer needs; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# A stamp is as new as its last installation: changed requirements install again, everything else starts at once.
REQUIREMENTS := pyproject.toml constraints.txt
BASE := $(VENV)/.installed-base
LOCAL := $(VENV)/.installed-local
DEV := $(VENV)/.installed-dev

# What is shipped: no tests, no benchmarks.
CODE := domain projections service frontend migrations

.DEFAULT_GOAL := help
.PHONY: help run rebuild test lint size bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(BASE) ## start the API and the chat page (embedded models where no endpoint is configured); WORKERS=2 uses two cores
	@extras=$$($(PY) -m service.launch --extras) || exit 1; \
	if [ "$$extras" = local ]; then $(MAKE) --silent --no-print-directory $(LOCAL) || exit 1; fi; \
	exec $(PY) -m service.launch --with-parent

rebuild: $(BASE) ## rebuild memory's indices for another embedding model; ARGS="--dry-run", "--verify", "--prune" ...
	@extras=$$($(PY) -m service.launch --extras) || exit 1; \
	if [ "$$extras" = local ]; then $(MAKE) --no-print-directory $(LOCAL) || exit 1; fi; \
	exec $(PY) -m service.launch --rebuild $(ARGS)

test: lint ## everything a change must pass
	$(PY) -m pytest --numprocesses auto --dist loadfile

lint: $(DEV) ## style, types and the direction of imports
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

size: ## count the lines of code
	@cat $$(find $(CODE) -name '*.py') | wc -l | xargs -I N echo "size: N lines of Python, blank lines and comments included, in $(CODE)"

bench: $(DEV) ## measure; the results go to standard output
	$(PY) -m benchmarks

clean: ## remove the environment and caches; conversations and downloaded models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "OpenPersistentMemory needs Python 3.11 or newer, and '$(PYTHON)' is not: PYTHON=/path/to/python3 make run"; \
	exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	echo "No virtual environment could be made: on Debian and Ubuntu, apt-get install python3-venv."; \
	rm -rf $(VENV); exit 1; }

$(BASE): $(REQUIREMENTS) | $(PY)
	@echo "Installing (once; later starts skip this) ..."
	@$(INSTALL) .
	@touch $@

$(LOCAL): $(REQUIREMENTS) | $(PY)
	@echo "Installing the engines of the embedded models ..."
	@$(INSTALL) '.[local]'
	@touch $(BASE) $@

$(DEV): $(REQUIREMENTS) | $(PY)
	@echo "Installing with everything the tests need ..."
	@$(INSTALL) '.[dev,local]'
	@touch $(BASE) $(LOCAL) $@
