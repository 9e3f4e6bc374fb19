"""The plan of a server: how it is spread over GPUs, what it holds, or why not and what would.

Called by the command line to show it. `execution` is what vLLM is told.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from thinktune.plan.serving import memory
from thinktune.plan.serving.alternatives import ANYTHING, Changeable, by_size, fitting_changes
from thinktune.plan.serving.request import ServeRequest
from thinktune.plan.serving.search import (
    ServeDecision,
    checkpoint_bytes,
    decide,
    disk,
    host_memory,
    shared_memory,
)
from thinktune.plan.serving.work import ServeWork
from thinktune.schema.catalog import HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.serving import Precision, ServeExecution, vllm_arguments, vllm_environment

READ_BYTES_PER_S = 500e6
"""Speed at which a node reads a checkpoint; an assumption, of a network volume or an object
store."""
START_S, EAGER_START_S = 180, 90
"""Seconds to start beside reading: 77 to 127 were measured on an H100 and an H200 with CUDA graphs,
45 without; here with half as much again."""
PATIENCE = 2
"""Times the expected start after which a server is given up: reading can be this much slower."""
SHORTEST_PATIENCE_S = 600
"""vLLM's default for VLLM_ENGINE_READY_TIMEOUT_S."""
PROBE_EXTRA_S = 120
"""Seconds for the adapters, after the engine is ready."""


class ServeAlternative(Closed):
    """A change that makes a refused request fit."""

    change: str
    """Options as the command line takes them: `--precision awq`."""
    precision: Precision
    """Precision of the weights with that change."""
    window: int
    """Window in tokens with that change."""
    gpus: int
    """Number of GPUs with that change, over all nodes."""
    kv_tokens: int
    """Tokens of KV cache of one copy."""


class ServingPlan(Closed):
    """One model planned as a server on its hardware. Where it does not fit, the figures are those
    of the smallest way to serve it."""

    fits: bool
    """Whether the model can be served on its hardware."""
    reason: str
    """One sentence: how much there is room for, or what is short."""
    alternatives: tuple[ServeAlternative, ...]
    """Changes with which it would fit; empty where it does."""
    model: str
    """Name of the model in the catalog."""
    hardware: str
    """Name of the node in the catalog."""
    execution: ServeExecution | None
    """What vLLM is told. Null where it does not fit."""
    gpu_memory_bytes: dict[str, int]
    """Bytes on one GPU by cause, of the pipeline stage with the least room; the KV cache takes what
    the others leave."""
    gpu_outside_bytes: int
    """Bytes on one GPU that vLLM's own share leaves for what it does not count: CUDA context,
    communicators, sampling."""
    gpu_capacity_bytes: int
    """Memory of one GPU as CUDA shows it."""
    kv_bytes_per_token: int
    """Bytes of KV cache on one GPU for each token."""
    kv_tokens: int
    """Tokens of KV cache of one copy."""
    full_windows: float
    """Requests of a full window that all copies together hold at once."""
    gpus: int
    """Number of GPUs over all nodes."""
    host_memory_bytes: int
    """Host memory that each pod takes, /dev/shm aside."""
    shm_bytes: int
    """Size of /dev/shm."""
    disk_bytes: int
    """Local disk that each pod takes."""
    checkpoint_bytes: int
    """Bytes of weights that each node reads."""
    load_s: int
    """Seconds that reading them takes."""
    startup_probe_s: int
    """Seconds that a pod gets to start before it is restarted."""
    arguments: tuple[str, ...]
    """Arguments of `vllm serve` that follow; empty where it does not fit."""
    environment: dict[str, str]
    """Environment variables of vLLM that follow; empty where it does not fit."""
    assumptions: tuple[str, ...]
    """What the figures rest on, one sentence each."""


def make_serving_plan(
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
    may: Changeable = ANYTHING,
) -> ServingPlan:
    """Plans a server of `model`, the catalog entry that the request names. `may`: which changes to
    name where it does not fit, on hardware of the catalog."""
    hardware = catalog[request.hardware]
    decision = decide(request, model, hardware)
    fits, work = decision.fault is None, decision.work
    execution = _execution(request, decision) if fits else None
    figures = _figures(work, decision) if work is not None else _Figures({}, 0, 0, 0)
    load_s = math.ceil(checkpoint_bytes(model, request.precision) / READ_BYTES_PER_S)
    return ServingPlan(
        fits=fits,
        reason=_reason(request, decision),
        alternatives=() if fits else _alternatives(request, model, catalog, may),
        model=request.model,
        hardware=request.hardware,
        execution=execution,
        gpu_memory_bytes=figures.by_cause,
        gpu_outside_bytes=figures.outside,
        gpu_capacity_bytes=figures.capacity,
        kv_bytes_per_token=figures.kv_per_token,
        kv_tokens=decision.tokens,
        full_windows=round(decision.data * decision.tokens / request.window, 2),
        gpus=hardware.num_gpus * request.nodes,
        host_memory_bytes=host_memory(decision, request.nodes),
        shm_bytes=shared_memory(decision, request.nodes),
        disk_bytes=disk(model, request.precision),
        checkpoint_bytes=checkpoint_bytes(model, request.precision),
        load_s=load_s,
        startup_probe_s=_ready_timeout(load_s, execution is None or execution.eager)
        + PROBE_EXTRA_S,
        arguments=vllm_arguments(execution) if execution else (),
        environment=vllm_environment(execution) if execution else {},
        assumptions=_assumptions(request, model, hardware, decision),
    )


def smallest_hardware(
    request: ServeRequest, model: ModelEntry, catalog: Mapping[str, HardwareEntry]
) -> str:
    """Name of the smallest node that the request fits, whatever node it names; of the largest where
    it fits none."""
    names = by_size(catalog)
    fitting = (
        name
        for name in names
        if decide(replace(request, hardware=name), model, catalog[name]).fault is None
    )
    return next(fitting, names[-1])


class _Figures(NamedTuple):
    by_cause: dict[str, int]
    outside: int
    capacity: int
    kv_per_token: int


def _figures(work: ServeWork, decision: ServeDecision) -> _Figures:
    part = memory.tightest_part(work)
    per_token = memory.kv_bytes_per_token(work, part)
    causes = memory.gpu_memory(work, part)
    left = max(0, memory.kv_available(work, part)) if decision.fault is None else 0
    capacity = memory.total_bytes(work.hardware)
    used = math.ceil(capacity * memory.utilization(work))
    return _Figures(causes | {"kv_cache": left}, capacity - used, capacity, per_token)


def _execution(request: ServeRequest, decision: ServeDecision) -> ServeExecution:
    work = decision.work
    assert work is not None
    released_fp8 = work.model.dtype == "float8_e4m3fn"
    online = {"nf4": "bitsandbytes", "fp8": None if released_fp8 else "fp8"}
    load_s = math.ceil(checkpoint_bytes(work.model, work.precision) / READ_BYTES_PER_S)
    return ServeExecution.model_validate(
        {
            "precision": work.precision,
            "quantization": online.get(work.precision),
            "dtype": "bfloat16" if work.hardware.bf16 else "float16",
            "kv_dtype": work.kv_dtype,
            "tensor_parallel": work.tensor,
            "pipeline_parallel": work.pipeline,
            "data_parallel": decision.data,
            "nodes": request.nodes,
            "max_model_len": work.window,
            "gpu_memory_utilization": memory.utilization(work),
            "max_num_seqs": work.sequences,
            "max_num_batched_tokens": work.batched_tokens,
            "max_loras": work.adapters,
            "max_lora_rank": work.rank,
            "lora_targets": work.targets if work.adapters else (),
            "eager": not work.graphs,
            "ready_timeout_s": _ready_timeout(load_s, not work.graphs),
        }
    )


def _ready_timeout(load_s: int, eager: bool) -> int:
    expected = load_s + (EAGER_START_S if eager else START_S)
    return max(SHORTEST_PATIENCE_S, 60 * math.ceil(PATIENCE * expected / 60))


def _alternatives(
    request: ServeRequest,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
    may: Changeable,
) -> tuple[ServeAlternative, ...]:
    found = []
    for change in fitting_changes(request, model, catalog, may):
        work = change.decision.work
        assert work is not None
        found.append(
            ServeAlternative(
                change=change.options,
                precision=work.precision,
                window=work.window,
                gpus=work.tensor * work.pipeline * change.decision.data,
                kv_tokens=change.decision.tokens,
            )
        )
    return tuple(found)


def _reason(request: ServeRequest, decision: ServeDecision) -> str:
    if decision.fault is not None:
        nodes = f"{request.nodes} × " if request.nodes > 1 else ""
        where = f"{nodes}{request.hardware}"
        return f"{request.model} in {request.precision} on {where}: {decision.fault}"
    windows = decision.data * decision.tokens / request.window
    return (
        f"fits: room for {windows:,.1f} requests of {request.window:,} tokens at once"
        f" ({decision.data * decision.tokens:,} tokens of KV cache)"
    )


def _assumptions(
    request: ServeRequest,
    model: ModelEntry,
    hardware: HardwareEntry,
    decision: ServeDecision,
) -> tuple[str, ...]:
    work = decision.work
    found = [
        f"A node reads weights at {READ_BYTES_PER_S / 1e6:,.0f} MB/s; a pod gets {PATIENCE} times"
        " the start that is expected from it.",
        "Weights, adapters and KV cache are counted from shapes; kernels, CUDA graphs and what"
        " CUDA takes for itself are constants.",
    ]
    if request.precision == "awq":
        found.append(
            "AWQ needs a 4-bit checkpoint made beforehand, with groups of 64 or more; answers"
            " differ from those of the 16-bit model, so evaluate it at this window."
        )
    if request.precision == "16bit" and model.dtype == "float8_e4m3fn":
        found.append("The weights are released in FP8: 16 bits need a converted checkpoint.")
    if request.precision == "fp8" and not hardware.fp8_tflops:
        found.append(f"A {hardware.gpu} unpacks FP8 weights and computes in 16 bits (Marlin).")
    if not hardware.bf16 and hardware.num_gpus:
        found.append(f"A {hardware.gpu} has no bfloat16: float16 overflows at 65,504.")
    if request.adapters:
        found.append(
            "Adapters act on the layers in lora_targets alone: vLLM ignores, without an error, what"
            " an adapter has on others."
        )
        found.append(
            "Precision decides answers: serve at the one that the adapter was evaluated at."
        )
    if work is not None and model.mla is not None and work.tensor > 1:
        found.append("Each GPU of a stage has the whole KV cache: a latent has no heads to divide.")
    if work is not None and work.pipeline > 1:
        found.append("Pipeline stages wait for each other: a single request gets slower.")
    return tuple(found)
