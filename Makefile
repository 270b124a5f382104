# The two commands to know are `make demo` and `make test`; both need Python ≥ 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
# One exact release: a range would let pip bring another build of several GB.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
DEMO ?= demo
# Two tests at a time; each computes with one thread, unless it is about threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
MINIMUM ?= .venv-minimum
MINIMUM_EXTRAS := deepspeed nwb onnx parquet remote tensorboard umap wandb
comma := ,
space := $() $()

# A web site in build/site; links, includes and the names of the Python API are checked.
docs: $(VENV)/.installed-all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Runs the cells of docs/tutorial.ipynb and stores what they give.
notebook: $(VENV)/.installed-all
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docs/_notebook.py

.PHONY: demo docs notebook test test-all test-minimum test-slurm test-containers lint lock clean

demo: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" sh benchmarks/demo.sh $(DEMO)

test: $(VENV)/.installed-all lint
	$(PYTEST)

# Also what `make test` samples: all combinations of options, and a kill at every write.
test-all: $(VENV)/.installed-all lint
	LISBET_ALL_CRASHES=1 $(PYTEST) -m "not slurm and not containers"

lint: $(VENV)/.installed-all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint containers/Dockerfile
	$(BIN)/shellcheck launch/slurm/*.sbatch containers/*.sh benchmarks/*.sh .ci/run

# With the oldest versions that pyproject.toml allows. They warn of what newer ones have changed.
test-minimum: $(MINIMUM)/.installed
	$(MINIMUM)/bin/python -m pytest -W default

# On a SLURM cluster of two nodes that the tests start here: apt-get install slurm-wlm munge iproute2
test-slurm: $(VENV)/.installed-all
	$(BIN)/python -m pytest -rs -m "" tests/test_slurm.py

# Builds the images and runs them: apt-get install buildah podman runc debootstrap
test-containers: $(VENV)/.installed-all
	$(BIN)/python -m pytest -rs -s -m "" tests/test_containers.py

# Writes containers/*.lock anew, from pyproject.toml.
lock: $(VENV)/.installed-all
	UV="$(BIN)/uv" TORCH="$(TORCH)" containers/lock.sh

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; set PYTHON=…"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "could not make a virtual environment: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-all: $(VENV)/.installed
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

$(MINIMUM)/.installed: pyproject.toml tests/minimum_versions.py
	$(PYTHON) -m venv $(MINIMUM)
	$(PYTHON) tests/minimum_versions.py $(MINIMUM_EXTRAS) > $(MINIMUM)/constraints.txt
	$(MINIMUM)/bin/python -m pip install --quiet "$(TORCH)"
	DS_BUILD_OPS=0 $(MINIMUM)/bin/python -m pip install --quiet \
		--constraint $(MINIMUM)/constraints.txt --editable ".[$(subst $(space),$(comma),$(MINIMUM_EXTRAS))]" \
		allpairspy hatchling hypothesis pytest 'moto[server]' 'aiobotocore[boto3]'
	touch $@

clean:
	rm -rf $(VENV) $(MINIMUM) $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
