"""How long answers take: weights and cache read in each step, arithmetic, the host's own work.

Called by `plan`. Each step reads all weights once and the cache of every row, and computes a token
for each row; what a GPU reaches of its bandwidth and of its peak are assumptions. The host's times
are fitted to four of ten rates on an H200 (benchmarks/results/2026-11-30-h200-generation.jsonl);
the other six are predicted within 20%. That unpacking a base counts on its own was seen from two
of them.
"""

from dataclasses import dataclass

from thinktune.plan import shapes
from thinktune.plan.evaluation import memory
from thinktune.plan.evaluation.memory import Answering
from thinktune.plan.training.memory import ABSMAX_BYTES, PACKED_BYTES
from thinktune.schema.catalog import HardwareEntry

BANDWIDTH_SHARE = 0.8
"""Share of the memory's bandwidth that reading weights and cache reaches; an assumption."""
COMPUTE_SHARE = 0.5
"""Share of the 16-bit peak that products reach while answers are computed; an assumption."""
CPU_SHARE = 0.3
"""The same of a CPU, whose rate in the catalog is fitted to training; fitted to the demo."""
ROW_S = 1.96e-5
"""Seconds per row and step: scheduling, and a draw by the row's own generator. Fitted to vLLM's own
call with a 16-bit base: 25,849 tokens/s in 326 rows of the 1.5B shape."""
VLLM_STEP_S = 2e-3
"""Seconds per step that vLLM takes beside its rows; an assumption, because all that was measured
has 326 rows."""
LAYER_S = 2.13e-3
"""Seconds per layer and step that transformers needs to launch a layer with adapters. Fitted to
256 tokens/s of the tuned model on a packed base, in 16 rows."""
FIRST_ARM_S = 6.2
"""Seconds that the first arm takes longer with transformers on a GPU: kernels are loaded and the
allocator grows. 8.8 s and 2.8 s were measured, and this is between them."""
ANSWER_SHARE = 0.5
"""Assumed length of an answer, as a share of the limit: lengths lie evenly between nothing and the
limit, so that the last answer of many is as long as the limit."""


@dataclass(frozen=True)
class Seconds:
    """Time of one arm's answers."""

    expected: float
    """With answers of `ANSWER_SHARE` of the limit on average."""
    most: float
    """With answers that all reach the limit."""


def arm_seconds(work: Answering, hardware: HardwareEntry, *, first: bool) -> Seconds:
    """Time of one arm, its engine loaded; `first` after the engine was loaded."""
    if work.engine == "vllm":
        return Seconds(_vllm_s(work, hardware), _vllm_to_limit_s(work, hardware))
    load = FIRST_ARM_S if first and hardware.num_gpus else 0.0
    return Seconds(
        load + _batches_s(work, hardware, to_limit=False),
        load + _batches_s(work, hardware, to_limit=True),
    )


def step_seconds(
    work: Answering, hardware: HardwareEntry, num_rows: float, context: float
) -> float:
    """Seconds of one step, in which each of `num_rows` rows gets a token after `context` tokens."""
    bandwidth = BANDWIDTH_SHARE * hardware.memory_gb_per_s * 1e9
    cached = num_rows * context * memory.cache_bytes_per_token(work)
    seconds = _linear_s(work, hardware, num_rows) + _cache_passes(work) * cached / bandwidth
    host = VLLM_STEP_S if work.engine == "vllm" else LAYER_S * work.model.layers
    return seconds + host + ROW_S * num_rows


def _linear_s(work: Answering, hardware: HardwareEntry, num_rows: float) -> float:
    """All linear layers and the head: bound by reading weights, or by arithmetic. Packed weights
    are unpacked in each step, by a kernel of its own."""
    model, element = work.model, work.element_bytes
    bandwidth = BANDWIDTH_SHARE * hardware.memory_gb_per_s * 1e9
    linear, head = shapes.linear_parameters(model), model.vocabulary * model.hidden
    active = shapes.active_linear_parameters(model)
    read = min(linear, active * num_rows)  # of experts, those that some row uses
    packed = work.base == "nf4" and not memory.is_unpacked(work, hardware)
    unpacking = read * (PACKED_BYTES + ABSMAX_BYTES + element) if packed else 0.0
    reading = element * (read + head) / bandwidth
    computing = 2 * num_rows * (active + head) / _flops_per_s(hardware)
    return unpacking / bandwidth + max(reading, computing)


def _flops_per_s(hardware: HardwareEntry) -> float:
    share = COMPUTE_SHARE if hardware.num_gpus else CPU_SHARE
    return share * hardware.bf16_tflops * 1e12


def _cache_passes(work: Answering) -> int:
    """How often a step moves the cache: vLLM reads it. transformers copies it with the new token in
    it, and again for each query head of a group, because its prompts are padded."""
    if work.engine == "vllm":
        return 1
    group = 1 if work.model.mla else work.model.heads // work.model.kv_heads
    return 2 + (1 + 2 * group if group > 1 else 1)


def _prompt_s(work: Answering, hardware: HardwareEntry, tokens: float) -> float:
    return 2 * tokens * shapes.active_linear_parameters(work.model) / _flops_per_s(hardware)


def _vllm_s(work: Answering, hardware: HardwareEntry) -> float:
    """A finished row makes room for the next request; at the end fewer and fewer rows are left."""
    limit, at_once = work.max_new_tokens, memory.rows(work, hardware)
    context = work.prompt_tokens + limit / 3
    queued = (work.requests - at_once) * ANSWER_SHARE * limit / at_once
    seconds = queued * step_seconds(work, hardware, at_once, context)
    seconds += limit * step_seconds(work, hardware, at_once * ANSWER_SHARE, context)
    return seconds + _prompt_s(work, hardware, work.requests * work.prompt_tokens)


def _vllm_to_limit_s(work: Answering, hardware: HardwareEntry) -> float:
    limit = work.max_new_tokens
    context = work.prompt_tokens + limit / 2
    seconds = sum(
        limit * step_seconds(work, hardware, num_rows, context)
        for num_rows in _groups(work.requests, memory.rows(work, hardware))
    )
    return seconds + _prompt_s(work, hardware, work.requests * work.prompt_tokens)


def _batches_s(work: Answering, hardware: HardwareEntry, *, to_limit: bool) -> float:
    """One padded batch after the other, each as long as its longest answer."""
    seconds = 0.0
    for num_rows in _groups(work.requests, memory.rows(work, hardware)):
        steps = work.max_new_tokens * (1.0 if to_limit else num_rows / (num_rows + 1))
        context = work.longest_prompt_tokens + steps / 2
        seconds += steps * step_seconds(work, hardware, num_rows, context)
        seconds += _prompt_s(work, hardware, num_rows * work.longest_prompt_tokens)
    return seconds


def _groups(requests: int, at_once: int) -> list[int]:
    whole, rest = divmod(requests, at_once)
    return [at_once] * whole + ([rest] if rest else [])
