# Each target makes .venv if it is missing, and again when pyproject.toml or constraints.txt have changed.
# The Python is the one of .venv or else python3; another: make test PYTHON=python3.13

PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed
ARGS ?=

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# uv where it is on the PATH, as it is several times faster; the pins of constraints.txt make both install the same.
ifneq ($(shell uv --version 2>/dev/null),)
INSTALL := uv pip install --quiet --python $(RUN)
else
INSTALL := $(RUN) -m pip install --quiet
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-oldest lint format figures docs bench constraints venv clean FORCE

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: venv  ## minutes on two cores: run one experiment, print its summary, draw its figure
	$(RUN) -m experiments before_and_after_training --preset laptop
	$(RUN) -m analysis before_and_after_training --summaries results/summaries
	$(RUN) -m paper_figures before_and_after_training --summaries results/summaries --output results/figures

test: venv  ## the tests but for the slow ones; make test ARGS='-k lstm' picks some, ARGS='-m slow' the slow ones
	$(RUN) -m pytest $(ARGS)

test-oldest:  ## the tests with the oldest versions that pyproject.toml allows (needs uv)
	uv venv --quiet --clear --python 3.11 .venv/oldest
	uv pip install --quiet --python .venv/oldest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv/oldest/bin/python -m pytest $(ARGS)

lint: venv  ## ruff and pyright
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m pyright

format: venv  ## let ruff put right what it can
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

figures: venv  ## every figure, from the committed summaries
	$(RUN) -m paper_figures

docs: venv  ## the numbers in docs/cells.md
	OPENBLAS_NUM_THREADS=1 $(RUN) -m docs.cell_facts

bench: .venv/.bench  ## every benchmark, one after the other
	$(RUN) -m benchmarks

constraints:  ## pin every dependency anew, within what constraints.txt says already; delete it to take the newest
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-index-url --no-emit-find-links \
		--annotation-style line --custom-compile-command 'make constraints' pyproject.toml --output-file constraints.txt

venv: $(INSTALLED)  ## .venv with all that the other targets need

clean:  ## remove .venv, caches and builds; results and figures stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A PYTHON that was asked for, and is not the version that .venv has, remakes .venv.
VERSION := import platform; print(platform.python_version())
ifneq ($(filter command environment,$(origin PYTHON)),)
ifneq ($(shell $(PYTHON) -c '$(VERSION)' 2>/dev/null),$(shell $(RUN) -c '$(VERSION)' 2>/dev/null))
$(INSTALLED): FORCE
endif
endif

$(INSTALLED): pyproject.toml constraints.txt
	@if [ -n "$(filter FORCE,$^)" ] || [ ! -x $(RUN) ]; then \
		version=$$($(PYTHON) -c '$(VERSION)' 2>/dev/null || echo missing); \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "rnn_dynamics needs Python 3.11 or newer, and $(PYTHON) is $$version;" \
				"name another one, as in: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
		echo "making .venv with Python $$version"; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	@echo "installing rnn_dynamics and what it needs into .venv"
	@$(INSTALL) -e '.[dev]' -c constraints.txt
	@touch $@

.venv/.bench: $(INSTALLED)
	@$(INSTALL) -e '.[dev,bench]' -c constraints.txt
	@touch $@
