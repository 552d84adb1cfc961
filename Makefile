# nblib: everything a person does from a terminal. `make` alone lists the targets.
#
# PYTHON       the interpreter to build on (3.11 is what was tested)
# TORCH        cpu or cuda: which build of torch; the choice is remembered in the environment
# TORCH_INDEX  where that build is found, if not where pip looks by itself (see README.md)
# VENV         where the environment lives
# WORKERS      tests side by side; one more than two cores, since some of them wait for a Slurm

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
TORCH ?= $(or $(shell cat $(VENV)/torch-build 2>/dev/null),cpu)
TORCH_INDEX ?=

BIN := $(VENV)/bin
READY := $(VENV)/ready-$(TORCH)
EXTRAS := train,lab,book,allen,sweep,dev
WORKERS ?= 3

.PHONY: help setup book test test-full lint bench lab clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/; s,\$$\(VENV\),$(VENV),' | expand -t 12
	@echo
	@echo "book and test set everything up by themselves. Choices: PYTHON=$(PYTHON) TORCH=$(TORCH)"

setup: $(READY) ## install all but the extra ibl into $(VENV); does nothing when that is done

book: $(READY) ## run the notebooks on the demo recording and render the book
	$(BIN)/nblib book

test: $(READY) ## the tests of every run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-full: $(READY) ## all tests, the long ones too (ONLY=slow: these alone)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(if $(ONLY),-m $(ONLY))

lint: $(READY) ## check style and the order of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY) ## measure speed on a full-size simulated recording
	$(BIN)/python tests/bench/run.py

lab: $(READY) ## open JupyterLab; the kernel is called nblib
	$(BIN)/jupyter lab --notebook-dir .

clean: ## remove the environment and the rendered book; artifacts stay
	rm -rf $(VENV) _build book/_build book/_generated .pytest_cache .ruff_cache .hypothesis
	find nblib tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up --------------------------------------------------------------------------------------

# uv installs in seconds what pip takes minutes for, but does not read pip's configuration. What a
# person or a site has told pip (folders, indexes, certificates) is passed on at run time.
pip_setting = $$($(BIN)/python -m pip config get global.$(1) 2>/dev/null || true)
define uv_install
	links="$${PIP_FIND_LINKS:-$(call pip_setting,find-links)}"; \
	main="$${PIP_INDEX_URL:-$(call pip_setting,index-url)}"; \
	cert="$${PIP_CERT:-$(call pip_setting,cert)}"; [ -z "$$cert" ] || export SSL_CERT_FILE="$$cert"; \
	more="$${PIP_EXTRA_INDEX_URL:-$(call pip_setting,extra-index-url)}"; \
	sources=(--index-strategy unsafe-best-match); \
	for place in $$links; do sources+=(--find-links "$$place"); done; \
	for place in $$main; do sources+=(--default-index "$$place"); done; \
	for place in $$more; do sources+=(--index "$$place"); done; \
	$(BIN)/uv pip install --python $(BIN)/python --quiet -c constraints.txt $${sources[@]+"$${sources[@]}"}
endef

# Which torch is there: cpu, cuda or none.
define torch_build
$$($(BIN)/python -c 'import torch; print("cuda" if torch.version.cuda else "cpu")' 2>/dev/null || echo none)
endef

# Compiled once here, every notebook's imports take a third of the time. What is seldom or never
# imported is left out: it would only take space.
SELDOM := /(tests?|testing|wandb|sqlalchemy|allensdk|SimpleITK|pip|setuptools|debugpy|neo|fontTools|mne|numba|llvmlite|skorch|braindecode|pulp|hypothesis|jedi|alembic|mako|optuna)/

$(READY): pyproject.toml constraints.txt Makefile
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "TORCH=$(TORCH): choose cpu or cuda" >&2; exit 2;; esac
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11, or name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:3]; ok = (3, 11, 5) <= v < (3, 14); \
	  print("" if ok else f"$(PYTHON) is Python {v[0]}.{v[1]}.{v[2]}; nblib needs 3.11.5 or later, up to 3.13. Name another one: make PYTHON=/path/to/python3.11", file=sys.stderr, end="" if ok else "\n"); \
	  sys.exit(0 if ok else 2)'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make an environment (on Debian: install python3-venv)" >&2; exit 2; }
	@echo "set-up 1/4: uv"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt uv
	@echo "set-up 2/4: torch ($(TORCH)), the largest download"
	@case "$(torch_build)" in none|$(TORCH)) ;; *) $(BIN)/python -m pip uninstall -qq --yes torch;; esac
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@found="$(torch_build)"; if [ "$$found" != "$(TORCH)" ]; then \
	  echo "TORCH=$(TORCH) was asked for, but pip found the $$found build of torch. Name the index of the" >&2; \
	  echo "right build: make setup TORCH=$(TORCH) TORCH_INDEX=<the address that PyTorch's install page gives>" >&2; \
	  if [ "$(TORCH)" = cpu ]; then echo "or take that build: make setup TORCH=cuda" >&2; fi; exit 2; fi
	@echo "set-up 3/4: nblib and what it needs"
	@$(uv_install) -e '.[$(EXTRAS)]'
	@echo "set-up 4/4: allensdk without its pins, kernel"
	@$(uv_install) --no-deps allensdk
	@$(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)' \
	  "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true
	@$(BIN)/python -m ipykernel install --sys-prefix --name nblib --display-name "Python (nblib)" >/dev/null
	@rm -f $(VENV)/ready-*
	@echo $(TORCH) > $(VENV)/torch-build
	@touch $@
