# make demo: train on, segment and score synthetic neuropil.  make test: the fast tests.
# Both set themselves up in .venv on the first call, and again when the pins change.

VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

.PHONY: demo test test-slow lint docs bench real install clean

demo: install
	$(BIN)/pea demo demo

test: install
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, docs/site/index.html.
docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/site
	@echo "docs/site/index.html"

bench: install
	$(BIN)/python -m tests.bench.speed
	$(BIN)/python -m tests.bench.chain
	$(BIN)/python -m tests.bench.fragments $(DATA)
	$(BIN)/python -m tests.bench.batches
	$(BIN)/python -m tests.bench.predict
	$(BIN)/python -m tests.bench.storage $(DATA)/fib25_train.h5
	$(BIN)/python -m tests.bench.scores $(DATA)/pinky40_labels.h5
	$(BIN)/python -m tests.bench.pinky40 $(DATA)

# Real data, from their files to scores: FIB-25 by the released network, two probability maps.
real: install
	$(BIN)/pea ingest $(DATA)/fib25_train.h5 data/fib25.zarr/raw --dataset volumes/raw --overwrite
	$(BIN)/pea ingest $(DATA)/fib25_train.h5 data/fib25.zarr/labels --dataset volumes/labels/neuron_ids --overwrite
	$(BIN)/pea run all configs/fib25.yaml
	$(BIN)/pea ingest $(DATA)/gala_train.h5 data/gala.zarr/affinities --dataset volumes/boundary_probability --overwrite
	$(BIN)/pea ingest $(DATA)/gala_train.h5 data/gala.zarr/raw --dataset volumes/raw --overwrite
	$(BIN)/pea ingest $(DATA)/gala_train.h5 data/gala.zarr/labels --dataset volumes/labels/neuron_ids --overwrite
	$(BIN)/pea run all configs/gala.yaml
	$(BIN)/pea ingest $(DATA)/snemi_mini.h5 data/snemi-mini.zarr/affinities --dataset volumes/interior_probability --overwrite
	$(BIN)/pea ingest $(DATA)/snemi_mini.h5 data/snemi-mini.zarr/labels --dataset volumes/labels/neuron_ids --background 1 --overwrite
	$(BIN)/pea run all configs/snemi-mini.yaml

install: $(VENV)/installed

# Any interpreter from 3.12 on will do; PYTHON=... chooses one.
$(VENV)/installed: requirements.lock pyproject.toml
	@python=$$(for each in $(PYTHON) python3.12 python3.13 python3.14 python3 python $$HOME/.pyenv/versions/3.1[2-9]*/bin/python; do \
	    "$$each" -c 'import sys, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$$each" && break; \
	  done); \
	if [ -z "$$python" ]; then \
	    echo "make install needs Python 3.12 or newer, and found none. Name one: make install PYTHON=/path/to/python"; exit 1; \
	fi; \
	echo "installing into $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . && \
	touch $@

clean:
	rm -rf $(VENV) demo
