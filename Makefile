# Everything that a target needs is installed into .venv first; for the demo, no more than that.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_dev := --compile-bytecode  # once, and not by each of the many processes of the tests
# Both installations write to .venv.
.NOTPARALLEL:
.PHONY: demo test test-fast compiled check format bench clean

demo: $(VENV)/installed-demo
	@$(BIN)/python -m captioner.jobs.demo demo

test: $(VENV)/installed-dev compiled
	$(BIN)/python -m pytest -n logical

test-fast: $(VENV)/installed-dev compiled  # without whole commands, Dask clusters and S3 servers
	$(BIN)/python -m pytest -n logical -m "not slow and not cluster and not s3"

compiled: $(VENV)/installed-dev  # like UV_dev
	@$(BIN)/python -m compileall -q captioner jobs schemas

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev  # those that need no photographs; the others are in tests/README.md
	$(BIN)/python tests/benchmarks/speed.py --rounds 2 --limit 128
	$(BIN)/python tests/benchmarks/fault_matrix.py --injections 100
	$(BIN)/python tests/benchmarks/out_of_domain.py
	$(BIN)/python tests/benchmarks/planning.py
	$(BIN)/python tests/benchmarks/listing.py --objects 20000
	$(BIN)/python tests/benchmarks/flat_memory.py --rows 100000

clean:
	rm -rf $(VENV) demo build dist *.egg-info

# uv takes seconds where pip takes minutes; pip takes over where uv cannot be had, or fails.
$(VENV)/installed-demo $(VENV)/installed-dev: $(VENV)/installed-%: pyproject.toml
	@echo "Installing into $(VENV): under a minute on a fast network (PyTorch is large)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) uv && $(BIN)/uv pip install --quiet $(UV_$*) --python $(BIN)/python --editable '.[$*]' \
		|| { echo "Installing with pip instead, which takes minutes"; $(PIP) --editable '.[$*]'; }
	@touch $(VENV)/installed-demo $@  # the extra `dev` includes `demo`
