# Everything a person does with a checkout. `make help` lists it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# Compiled modules are what every start-up time here rests on.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint types layers unit e2e kind-test cluster-tools node-tools postgres crds manifests bench bench-cluster bench-peer faults storm lock clean image

help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "cloacina needs Python 3.10 or newer; run: make PYTHON=/path/to/python3.x $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(STAMP) ## The main job, live: pack, deploy, poll, fire, run (about a minute)
	@$(BIN)/python examples/data-ingest/demo.py

test: lint types layers cluster-tools node-tools postgres unit ## Every check and every test

lint: $(STAMP) ## Style: ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## Types: mypy --strict; the public API with pyright too
	@$(BIN)/mypy
	@$(BIN)/mypy tests/typing/public_api.py
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

layers: $(STAMP) ## Layers: import-linter
	@$(BIN)/lint-imports --no-cache

unit: $(STAMP) ## The tests, but for what `make e2e` has beyond its best part
	@$(BIN)/pytest -q -n 4 --dist loadgroup -m 'not long'

e2e: $(STAMP) cluster-tools node-tools ## The whole end-to-end story on a real node (root; some 10 minutes)
	@sh tests/setup/docker.sh
	@$(BIN)/pytest -q tests/cluster/node tests/cluster/story

kind-test: $(STAMP) ## The same in a kind cluster, where Docker runs: image, kind load, helm install, tests
	@PYTHON=$(BIN)/python tests/setup/kind.sh

cluster-tools: $(STAMP) ## Build etcd and Kubernetes for the tests, once, into ~/.cache/cloacina (10 minutes)
	@$(BIN)/python tests/cluster/binaries.py >/dev/null || echo "the tests that need a cluster will be skipped" >&2

node-tools: $(STAMP) ## Install what a real node needs (as root, on Debian or Ubuntu), and make its images once
	@sh tests/setup/node.sh
	@cd tests && ../$(BIN)/python -m cluster.node.images >/dev/null || echo "the tests on a real node will be skipped" >&2

postgres: ## Install a PostgreSQL server for the tests where there is none (as root, on Debian or Ubuntu)
	@sh tests/setup/postgres.sh

crds: $(STAMP) ## Write crds/*.yaml from the types
	@$(BIN)/python -m cloaca.resources.crds crds
	@cp crds/*.yaml manifests/chart/files/crds/

manifests: crds ## Write manifests/install.yaml from the chart
	@manifests/install.sh "$$(cd tests && ../$(BIN)/python -m cluster.chart.helm_binary)" > manifests/install.yaml.new
	@mv manifests/install.yaml.new manifests/install.yaml

bench: $(STAMP) ## Measure, and write docs/reference/benchmarks.md
	@$(BIN)/python tests/bench/run.py

bench-cluster: $(STAMP) cluster-tools node-tools ## The same for clusters: fires beside bare Jobs, many objects (root, long)
	@$(BIN)/python tests/bench/run.py cluster

faults: $(STAMP) $(if $(MINUTES),,storm) ## Break everything at every point (hours; MINUTES=…: so many now, and on from there the next time)
	@PYTHONPATH=tests:operator:. $(BIN)/python -m faults --all --write $(if $(MINUTES),--minutes $(MINUTES))

storm: $(STAMP) ## Kill a real daemon again and again for five minutes
	@PYTHONPATH=tests:operator:. $(BIN)/python -m faults.storm --seconds 300 --write

bench-peer: PEER := $(filter-out python3,$(PYTHON))
bench-peer: override PYTHON := python3
bench-peer: $(STAMP) ## Measure another cloaca too: make bench-peer PYTHON=/path/to/python
	@$(BIN)/python tests/bench/peer.py "$(PEER)"

lock: $(STAMP) ## Renew requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	  --all-extras --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --extra operator --extra postgres --constraint requirements.lock --custom-compile-command "make lock" \
	  --output-file image/requirements.lock pyproject.toml
	@printf 'hatchling\nuv\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --output-file image/build.lock -

image: ## Make the image without Docker: a Debian base and wheels (root, debootstrap)
	@MEASURE=1 image/build.sh $(IMAGE)

clean: ## Remove the environment and every cache
	@rm -rf $(VENV) .faults .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
