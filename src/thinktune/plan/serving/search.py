"""How a server is spread over its GPUs, or why it does not fit.

Called by `plan` for a request as it is and by `alternatives` for changed ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from thinktune.plan.serving import memory
from thinktune.plan.serving.division import divides
from thinktune.plan.serving.memory import ServeWork
from thinktune.plan.serving.request import ServeRequest
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.serving import Precision

ENOUGH_WINDOWS = 4
"""Full windows at once from which on a copy of the model gets no more GPUs: they serve more
requests as a further copy."""
MOST_SEQUENCES, FEWEST_SEQUENCES = 256, 8
TOKENS_PER_SEQUENCE = 1024
"""Tokens of KV cache for each request that is computed at once, at least; vLLM preempts and
recomputes what does not fit."""
UNSURE = 0.02
"""Share by which memory without the KV cache may be larger than planned, in a plan that fits."""
HOST_PROCESS_BYTES = 5 * GIB
"""Host memory of one vLLM process: interpreter, libraries, pinned buffers; an assumption."""
HOST_RESERVE_BYTES = 4 * GIB
"""Host memory of the front end; an assumption."""
DISK_RESERVE_BYTES = 10 * GIB
"""Disk for adapters, compiled graphs and logs."""


@dataclass(frozen=True)
class ServeDecision:
    """A way to serve with what it holds."""

    work: ServeWork | None
    """None where there is no GPU, or no way to divide the model among those that there are."""
    data: int
    """Copies of the model."""
    tokens: int
    """Tokens that the KV cache of one copy holds."""
    fault: str | None
    """Why the request cannot be served; None where it can."""


def decide(request: ServeRequest, model: ModelEntry, hardware: HardwareEntry) -> ServeDecision:
    """The fewest GPUs for each copy that hold `ENOUGH_WINDOWS`; where none do, those that hold
    most; where nothing fits, the smallest that there is, with its fault."""
    if hardware.num_gpus == 0:
        return ServeDecision(None, 1, 0, "the node has no GPU, and vLLM's image needs one")
    layouts = list(_layouts(request, model, hardware))
    if not layouts:
        gpus = hardware.num_gpus * request.nodes
        undivided = f"{model.layers} layers of {model.heads} heads do not divide among {gpus} GPUs"
        return ServeDecision(None, 1, 0, undivided)
    fault = _impossible(request, model, hardware)
    best: ServeDecision | None = None
    for size in [] if fault else dict.fromkeys(size for size, _, _ in layouts):
        same = [layout for layout in layouts if layout[0] == size]
        found = _first_fitting(request, model, hardware, same)
        if found is None or (best is not None and found.tokens <= best.tokens):
            continue
        best = found
        if found.tokens >= ENOUGH_WINDOWS * request.window:
            break
    if best is not None:
        fault = _node_too_small(best, request, hardware)
        return replace(best, fault=fault)
    works = (_work(request, model, hardware, layout, VARIANTS[-1]) for layout in layouts)
    smallest = min(works, key=_short)
    fault = fault or _too_large(smallest, hardware)
    return ServeDecision(smallest, 1, memory.kv_tokens(smallest), fault)


def _short(work: ServeWork) -> int:
    """Bytes by which one GPU is too small."""
    part = memory.tightest_part(work)
    cache = memory.kv_bytes_per_token(work, part) * work.window
    taken = sum(memory.gpu_memory(work, part).values())
    return cache + round(UNSURE * taken) - memory.kv_available(work, part)


Layout = tuple[int, int, int]
"""GPUs of one copy, tensor parallel and pipeline parallel size."""


def _layouts(request: ServeRequest, model: ModelEntry, hardware: HardwareEntry) -> Iterator[Layout]:
    """Fewest GPUs for a copy first; among as many, the fewest pipeline stages first.

    Several nodes serve one copy. So do all GPUs of a node that serve a mixture: copies in one
    server would divide the experts among them all the same.
    """
    gpus = hardware.num_gpus
    whole = request.nodes > 1 or model.moe is not None
    for size in [gpus * request.nodes] if whole else _divisors(gpus):
        for tensor in reversed(_divisors(gpus)):
            if size % tensor or size // tensor > model.layers:
                continue
            if divides(model, request.precision, tensor):
                yield size, tensor, size // tensor


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


@dataclass(frozen=True)
class _Variant:
    """Settings that take less memory for less speed."""

    batched_tokens: int | None
    """None takes vLLM's default for the GPU."""
    sequences: int
    graphs: bool


VARIANTS = (
    _Variant(None, MOST_SEQUENCES, True),
    _Variant(2048, MOST_SEQUENCES, True),
    _Variant(2048, 32, True),
    _Variant(2048, FEWEST_SEQUENCES, False),
)


def _first_fitting(
    request: ServeRequest, model: ModelEntry, hardware: HardwareEntry, layouts: list[Layout]
) -> ServeDecision | None:
    for layout in layouts:
        works = [_work(request, model, hardware, layout, variant) for variant in VARIANTS]
        if not _fits(works[-1]):  # which takes least
            continue
        work = next(work for work in works if _fits(work))
        work = replace(work, sequences=_sequences(memory.kv_tokens(work), work.sequences))
        data = hardware.num_gpus * request.nodes // layout[0]
        return ServeDecision(work, data, memory.kv_tokens(work), None)
    return None


def _fits(work: ServeWork) -> bool:
    # Weights alone say it soonest, and of most nodes that are tried.
    room = memory.total_bytes(work.hardware)
    weights = (memory.part_weight_bytes(work, part) for part in work.parts)
    return max(weights) < room and memory.kv_tokens(work, unsure=UNSURE) >= work.window


def _sequences(tokens: int, most: int) -> int:
    """The largest power of two with enough tokens of KV cache for each request."""
    while most > FEWEST_SEQUENCES and tokens < most * TOKENS_PER_SEQUENCE:
        most //= 2
    return most


def _work(
    request: ServeRequest,
    model: ModelEntry,
    hardware: HardwareEntry,
    layout: Layout,
    variant: _Variant,
) -> ServeWork:
    _, tensor, pipeline = layout
    return ServeWork(
        model=model,
        hardware=hardware,
        precision=request.precision,
        window=request.window,
        sequences=variant.sequences,
        batched_tokens=variant.batched_tokens or _batched_tokens(hardware),
        adapters=request.adapters,
        rank=request.rank,
        targets=request.targets,
        kv_dtype=request.kv_dtype,
        tensor=tensor,
        pipeline=pipeline,
        graphs=variant.graphs,
    )


def _batched_tokens(hardware: HardwareEntry) -> int:
    """vLLM's default for such a GPU (`get_batch_defaults` in engine/arg_utils.py)."""
    if hardware.gpu_memory_gib >= 160:
        return 16384
    return 8192 if hardware.gpu_memory_gib >= 70 and "A100" not in hardware.gpu else 2048


def _impossible(request: ServeRequest, model: ModelEntry, hardware: HardwareEntry) -> str | None:
    if request.window > model.context:
        return f"the window is {request.window:,} tokens, and the model supports {model.context:,}"
    if model.mla is not None and not hardware.bf16:
        return f"a {hardware.gpu} has no kernel for latent attention, which needs Ampere or newer"
    if request.precision == "fp8" and not hardware.bf16:
        return f"a {hardware.gpu} has no kernel for weights in FP8, which needs Ampere or newer"
    if request.kv_dtype == "fp8" and not hardware.fp8_tflops:
        return f"a {hardware.gpu} does not compute in FP8, which a KV cache in FP8 needs"
    if request.precision == "nf4" and model.dtype == "float8_e4m3fn":
        return "the weights are released in FP8, and vLLM does not quantize those to NF4"
    return None


def _too_large(work: ServeWork, hardware: HardwareEntry) -> str:
    part = memory.tightest_part(work)
    taken = sum(memory.gpu_memory(work, part).values())
    cache = memory.kv_bytes_per_token(work, part) * work.window
    needed = (round((1 + UNSURE) * taken) + cache) / GIB
    offered = (memory.kv_available(work, part) + taken) / GIB
    weights = memory.gpu_memory(work, part)["weights"] / GIB
    return (
        f"needs at least {needed:.1f} GiB on each {hardware.gpu}, which has {offered:.1f} GiB for"
        f" it: {weights:.1f} GiB of weights, {cache / GIB:.1f} GiB of KV cache for a window of"
        f" {work.window:,} tokens, and the rest"
    )


def host_memory(decision: ServeDecision, nodes: int) -> int:
    """Bytes of host memory of one node: a process for each GPU, and the front end."""
    if decision.work is None:
        return 0
    processes = decision.work.tensor * decision.work.pipeline * decision.data // nodes
    return processes * HOST_PROCESS_BYTES + HOST_RESERVE_BYTES


def checkpoint_bytes(model: ModelEntry, precision: Precision) -> int:
    """Bytes of the checkpoint that vLLM reads."""
    if precision == "awq":
        return round(model.parameters * memory.LINEAR_BYTES["awq"])
    if precision == "fp8" and model.dtype == "float8_e4m3fn":
        return round(model.parameters * memory.LINEAR_BYTES["fp8"])
    return 2 * model.parameters


def disk(model: ModelEntry, precision: Precision) -> int:
    """Bytes of local disk of one node."""
    return checkpoint_bytes(model, precision) + DISK_RESERVE_BYTES


def _node_too_small(
    decision: ServeDecision, request: ServeRequest, hardware: HardwareEntry
) -> str | None:
    assert decision.work is not None
    host = host_memory(decision, request.nodes)
    room = disk(decision.work.model, request.precision)
    if host > hardware.host_memory_gib * GIB:
        return f"needs {host / GIB:.0f} GiB of host memory; the node has {hardware.host_memory_gib}"
    if room > hardware.disk_gib * GIB:
        return f"needs {room / GIB:.0f} GiB of disk, and the node has {hardware.disk_gib}"
    return None
