# Sets up .venv by itself; every target can be run again at any time.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: requirements.txt requirements-dev.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "deepmerge needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." >&2; exit 2; }
	@echo "Setting up .venv with the pinned packages (about half a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
	@uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.txt
	@uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: .venv/ready  ## Set up .venv with the pinned packages

data: .venv/ready  ## Simulate the demo sample into data/, unless images are there already
	@if [ -e data/pristine_2filt_X.npy ] && [ -e data/noisy_2filt_X.npy ]; then \
		echo "data/ holds both variants already."; else deepmerge data simulate; fi

demo: data  ## The main job on the demo sample: train, evaluate, explain
	mlflow run . -P dataset=pristine

repro: data  ## The whole pipeline on both variants, as far as it is out of date
	dvc repro

ui: .venv/ready  ## Open the MLflow UI on this machine
	@deepmerge ui

lint: .venv/ready  ## Check style and types
	ruff check .
	ruff format --check .
	mypy

test: .venv/ready  ## Fast tests
	pytest

slow: .venv/ready  ## End-to-end tests: documented commands, environments, pipeline, real data
	pytest -m slow -n 2 --dist loadfile --durations 8

docs: .venv/ready  ## Build the documentation into docs/_build/html; warnings are errors
	sphinx-build -q -W --keep-going -b html docs docs/_build/html

bench: data  ## Time and memory beside other ways to do the same; writes BENCHMARKS.md (25 minutes)
	python -m benchmarks --write

lock: .venv/ready  ## Pin the packages anew from pyproject.toml
	uv pip compile --quiet --python-version 3.11 --no-header --no-annotate $(UPGRADE) pyproject.toml -o requirements.txt
	uv pip compile --quiet --python-version 3.11 --no-header --no-annotate $(UPGRADE) pyproject.toml --extra dev \
		--extra docs -c requirements.txt -o requirements-dev.txt
	sed -i "s/^# requirements.txt sha256: .*/# requirements.txt sha256: $$(sha256sum requirements.txt | cut -d' ' -f1)/" conda.yaml

.PHONY: help setup data demo repro ui lint test slow docs bench lock
