"""Memory of the device on which an evaluation's answers are computed, by cause, and how many
answers it computes at once.

Called by `speed` and `plan`. All is counted from shapes; what vLLM takes beside weights and cache
is an assumption, because nothing measured tells it apart.
"""

from dataclasses import dataclass

from thinktune.plan import shapes
from thinktune.plan.training.memory import (
    ABSMAX_BYTES,
    CUDA_CONTEXT_BYTES,
    HOST_RESERVE_BYTES,
    PACKED_BYTES,
    capacity,
)
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.engines import (
    CACHE_COPIES,
    LOGIT_BYTES,
    MEMORY_SHARE,
    MOST_SEQUENCES,
    UNPACKED_SHARE,
    rows_at_once,
)
from thinktune.schema.recipe import EngineName, Precision
from thinktune.schema.serving import LORA_RANKS, lora_rank_setting

VLLM_PROMPT_TOKENS = 8192
"""Prompt tokens that vLLM computes in one step and reserves memory for: its default on a GPU of
70 GiB or more, and more than that of smaller ones."""
VLLM_GRAPHS_BYTES = 3 * GIB // 2
"""CUDA graphs and what vLLM keeps besides; an assumption."""
VLLM_CPU_CACHE_BYTES = 4 * GIB
"""The cache that vLLM reserves on a CPU unless it is told otherwise."""
LORA_ELEMENT_BYTES = 4
"""Adapters are loaded in float32 by PEFT, and so is what they compute."""


@dataclass(frozen=True)
class Answering:
    """The facts that decide memory and speed of one arm's answers on one device."""

    model: ModelEntry
    engine: EngineName
    base: Precision
    element_bytes: int
    """Bytes of an activation and of an unpacked weight: 2, or 4 on a CPU."""
    adapter: int
    """Trained weights of the adapter."""
    rank: int
    requests: int
    """Answers of the arm: questions times samples."""
    prompt_tokens: int
    """Tokens of a prompt on average."""
    longest_prompt_tokens: int
    max_new_tokens: int
    """Longest answer in tokens."""
    window: int
    """Tokens of the longest prompt with its answer."""
    batch_size: int | None = None
    """Rows of a batch of transformers, where the recipe says it."""


def is_unpacked(work: Answering, hardware: HardwareEntry) -> bool:
    """Whether transformers keeps a 4-bit base in 16 bits (`thinktune.tasks.model.base.unpack`)."""
    if work.engine != "transformers":
        return False
    unpacked = 2 * shapes.linear_parameters(work.model)
    return hardware.num_gpus == 0 or unpacked <= UNPACKED_SHARE * capacity(hardware)


def weights(work: Answering, hardware: HardwareEntry) -> int:
    """Bytes of the base as it is kept."""
    linear = shapes.linear_parameters(work.model)
    rest = shapes.embedding_parameters(work.model) + shapes.other_parameters(work.model)
    packed = work.base == "nf4" and not is_unpacked(work, hardware)
    each = PACKED_BYTES + ABSMAX_BYTES if packed else work.element_bytes
    if work.base == "fp8":
        each = 1
    return round(linear * each + rest * work.element_bytes)


def cache_bytes_per_token(work: Answering) -> int:
    """Bytes of keys and values of one token, over all layers."""
    model = work.model
    if model.mla is not None:
        # transformers keeps the keys and values of all heads, not what they are compressed to.
        mla = model.mla
        head = mla.qk_nope_head_size + mla.qk_rope_head_size + mla.v_head_size
        return model.layers * model.heads * head * work.element_bytes
    return 2 * model.layers * model.kv_heads * model.head_size * work.element_bytes


def answering_memory(work: Answering, hardware: HardwareEntry) -> dict[str, int]:
    """Bytes at the peak on the device, by cause."""
    if work.engine == "vllm":
        return _vllm(work, hardware)
    causes = {"weights": weights(work, hardware), "adapter": LORA_ELEMENT_BYTES * work.adapter}
    at_once = rows(work, hardware)
    prompt, window = at_once * work.longest_prompt_tokens, at_once * work.window
    cache = cache_bytes_per_token(work)
    prefill = prompt * (cache + _prefill_bytes_per_token(work))
    logits = at_once * LOGIT_BYTES * work.model.vocabulary
    decoding = round(CACHE_COPIES * window * cache) + logits
    # The prompts are computed before there is an answer, so the larger of both counts.
    if prefill > decoding:
        causes |= {"cache": prompt * cache, "prompts": prefill - prompt * cache}
    else:
        causes |= {"cache": decoding - logits, "logits": logits}
    if hardware.num_gpus:
        return causes | {"cuda_context": CUDA_CONTEXT_BYTES}
    return causes | {"process": HOST_RESERVE_BYTES}


def _prefill_bytes_per_token(work: Answering) -> int:
    """Gate, its activation and up, an adapter's product and its sum in float32; and four
    activations of the residual stream's width, chosen with 21.0 GiB in view, the measured peak of
    117,360 tokens of the 1.5B shape."""
    model = work.model
    wide = 3 * work.element_bytes + 2 * LORA_ELEMENT_BYTES
    width = model.intermediate
    if model.moe is not None:
        each = model.moe.expert_intermediate
        width = max(width, each * (model.moe.experts_per_token + model.moe.shared_experts))
    return wide * width + 4 * work.element_bytes * model.hidden


def _vllm(work: Answering, hardware: HardwareEntry) -> dict[str, int]:
    # An adapter's slot has the next larger rank that vLLM takes.
    rank = lora_rank_setting(min(work.rank, LORA_RANKS[-1]), "train.rank", "")
    causes = {
        "weights": weights(work, hardware),
        "adapter": work.element_bytes * work.adapter * rank // work.rank,
        "prompts": VLLM_PROMPT_TOKENS * _prefill_bytes_per_token(work),
        "logits": MOST_SEQUENCES * LOGIT_BYTES // 2 * work.model.vocabulary,
    }
    if not hardware.num_gpus:
        return causes | {"cache": VLLM_CPU_CACHE_BYTES, "process": HOST_RESERVE_BYTES}
    causes |= {"graphs": VLLM_GRAPHS_BYTES, "cuda_context": CUDA_CONTEXT_BYTES}
    # What is left is the cache's, and it holds one whole window at least, or vLLM does not start.
    left = int(MEMORY_SHARE * capacity(hardware)) - sum(causes.values())
    return causes | {"cache": max(left, work.window * cache_bytes_per_token(work))}


def budget(work: Answering, hardware: HardwareEntry) -> int:
    """Bytes that an evaluation may take on its device."""
    share = MEMORY_SHARE if work.engine == "vllm" and hardware.num_gpus else 1.0
    return int(share * capacity(hardware))


def rows(work: Answering, hardware: HardwareEntry) -> int:
    """Answers that are computed at once: as many as the cache holds, or the recipe says."""
    if work.engine == "transformers":
        memory = capacity(hardware) if hardware.num_gpus else None
        at_once = work.batch_size or rows_at_once(work.model, work.base, work.window, memory)
    else:
        # Half-way through, a sequence has half of its answer in the cache.
        tokens = work.prompt_tokens + work.max_new_tokens // 2
        cache = answering_memory(work, hardware)["cache"]
        at_once = min(MOST_SEQUENCES, cache // (tokens * cache_bytes_per_token(work)))
    return max(1, min(work.requests, at_once))
