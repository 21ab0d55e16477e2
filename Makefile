# Everything a developer types. `make` lists it.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
IMAGE ?= busyapi:dev
BASE ?=

.DEFAULT_GOAL := help
.PHONY: help run test soak lint bench image lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run  ## Valkey, two API processes and a flusher on this machine; ARGS="--help"
	$(BIN)/busyapi dev $(ARGS)

test: $(VENV)/.test  ## every test, on real servers; ARGS="-k lane" for some
	.ci/system-packages
	$(BIN)/python -m pytest -m "not long" $(ARGS)

soak: $(VENV)/.test  ## the tests that take many minutes
	.ci/system-packages
	$(BIN)/python -m pytest -m long $(ARGS)

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test  ## measure this machine; ARGS="--help"
	.ci/system-packages
	$(BIN)/python -m bench $(ARGS)

image:  ## one container image for both roles, with docker, podman or buildah
	@tool=$$(command -v docker || command -v podman || command -v buildah) || \
	  { echo "make image needs docker, podman or buildah on PATH" >&2; exit 1; }; \
	case $$tool in */buildah) build=bud ;; *) build=build ;; esac; \
	$$tool $$build -f service/Dockerfile -t $(IMAGE) $(if $(BASE),--build-arg BASE=$(BASE)) .

lock: $(VENV)/.test  ## write the lock files anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --upgrade \
	  pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --upgrade \
	  --extra dev-server pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --upgrade \
	  --extra test pyproject.toml -o requirements-test.lock

clean:  ## remove what make made; the state of `make run` stays
	rm -rf $(VENV) build dist service/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	.ci/make-venv $(VENV)

# A stamp is older than a lock that changed, so the next make installs again.
$(VENV)/.run: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.test: requirements-test.lock pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.run
