"""Memory of one GPU of a server, by cause, as vLLM counts it, and what is left for the KV cache.

Called by the search. Weights, adapters and the KV cache are counted from shapes. The rest follows
`determine_available_memory` of vLLM's gpu_worker.py and the forward pass that it profiles, read in
0.26.0 and 0.32.0; the constants say where they come from.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from thinktune.plan.serving.division import (
    Part,
    local_kv_heads,
    local_linears,
    local_vocabulary,
    parts,
)
from thinktune.schema.catalog import GIB, HardwareEntry, LatentAttention, Mixture, ModelEntry
from thinktune.schema.serving import KvDtype, Precision

MIB = 1024**2

LINEAR_BYTES: dict[Precision, float] = {
    "16bit": 2.0,
    # A float32 scale for each block of 128 × 128.
    "fp8": 1 + 4 / 128**2,
    # A 16-bit scale and a 4-bit zero for each group of 64; groups of 128 take 2.0% of that less.
    "awq": 0.5 + 2.5 / 64,
    # vLLM unpacks the scales of blocks of 64 to float32 (bitsandbytes_loader._dequantize_dq).
    "nf4": 0.5 + 4 / 64,
}
"""Bytes of one weight of a linear."""
ELEMENT_BYTES = 2
BLOCK_TOKENS = 16
"""Tokens of one block of the KV cache."""
DRIVER_BYTES = 6 * GIB // 10
"""Memory that nvidia-smi shows and no process gets: 0.4 to 0.6 GiB from T4 to H200."""
CONTEXT_BYTES = GIB // 2
"""CUDA context. vLLM takes its first snapshot after it, so its own share does not count it."""
NCCL_BYTES = 3 * GIB // 4
"""Communicators and buffers of several GPUs, which exist before the first snapshot too."""
SPARE_BYTES = GIB // 4
"""Kernels that are loaded and blocks that fragment while requests are computed."""
KERNEL_BYTES = GIB // 4
"""What kernels take that are loaded between the first snapshot and the end of the profile; an
assumption."""
CUBLAS_BYTES = 32 * MIB
"""Workspace of cuBLAS, which torch allocates."""
GRAPH_BYTES = 3 * MIB // 20
"""A captured CUDA graph for one layer and batch size; an assumption, from 0.5 GiB for 8B."""
MOST_GRAPH_TOKENS = 512
LATENT_ROWS = 64 * 1024
"""Most tokens of context that latent attention unpacks at once
(determine_chunked_prefill_workspace_size in mla_attention.py)."""
LATENT_BLOCK_TOKENS = 64
MOST_UTILIZATION = 0.92
"""vLLM's default since 0.28."""
OLD_RUNNER = frozenset({"deepseek_v3"})
"""Architectures that vLLM still runs with its first model runner (_is_default_v2_model_runner_model
in config/vllm.py); its sampler computes in float32."""


@dataclass(frozen=True)
class ServeWork:
    """The facts that decide how much memory a server takes."""

    model: ModelEntry
    hardware: HardwareEntry
    precision: Precision
    window: int
    """Longest prompt with its answer, in tokens."""
    sequences: int
    """Requests computed at once."""
    batched_tokens: int
    """Tokens computed in one step."""
    adapters: int
    rank: int
    """As `lora_rank_setting` rounds it."""
    targets: tuple[str, ...]
    kv_dtype: KvDtype
    tensor: int
    pipeline: int
    graphs: bool
    share: float | None = None
    """gpu_memory_utilization; None takes what leaves room for `outside_bytes`."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What GPUs of the pipeline stages have, each kind once."""
        return parts(self.model, self.pipeline)


def total_bytes(hardware: HardwareEntry) -> int:
    """Memory of one GPU in bytes, as CUDA shows it."""
    return round(hardware.gpu_memory_gib * GIB) - DRIVER_BYTES


def outside_bytes(work: ServeWork) -> int:
    """Memory that vLLM's own share must leave: what was there before, and what comes after the
    profile, such as sampling by top_p, which sorts the logits in float32."""
    communicators = NCCL_BYTES if work.tensor * work.pipeline > 1 else 0
    sampling = 8 * work.sequences * work.model.vocabulary
    gathered = 0
    if (mla := work.model.mla) is not None:
        gathered = _latent_rows(work) * (mla.kv_rank + mla.qk_rope_head_size) * ELEMENT_BYTES
    return CONTEXT_BYTES + communicators + SPARE_BYTES + sampling + gathered


def utilization(work: ServeWork) -> float:
    """Share of each GPU for vLLM, in hundredths, rounded down."""
    if work.share is not None:
        return work.share
    share = 1 - outside_bytes(work) / total_bytes(work.hardware)
    return max(0.01, min(MOST_UTILIZATION, math.floor(100 * share) / 100))


def gpu_memory(work: ServeWork, part: Part) -> dict[str, int]:
    """Bytes on one GPU of that stage, by cause, without the KV cache."""
    # Counts, biases and the text of penalties: bytes for each token of the vocabulary.
    new_runner = work.model.architecture not in OLD_RUNNER
    sampling = 4 * work.sequences * work.model.vocabulary if part.head and new_runner else 0
    return {
        "weights": part_weight_bytes(work, part),
        "adapters": adapter_bytes(work, part),
        "sampling_state": sampling,
        "activations": activation_bytes(work, part),
        "kernels": KERNEL_BYTES,
        "cuda_graphs": graph_bytes(work, part),
    }


def part_weight_bytes(work: ServeWork, part: Part) -> int:
    """Weights of a stage on one GPU, and the copies that vLLM makes of them."""
    return _weight_bytes(work.model, work.precision, work.tensor, part)


@lru_cache(maxsize=4096)
def _weight_bytes(model: ModelEntry, precision: Precision, tensor: int, part: Part) -> int:
    linears = sum(
        inputs * outputs * linear.copies * LINEAR_BYTES[precision]
        for linear, (inputs, outputs) in local_linears(model, tensor, part)
    )
    rows = local_vocabulary(model, tensor) * model.hidden * ELEMENT_BYTES
    own_head = part.head and not model.tied_embeddings
    vocabulary = rows * ((1 if part.embedding else 0) + (1 if own_head else 0))
    norms = part.layers * 4 * model.hidden * ELEMENT_BYTES
    experts = model.moe.experts if model.moe else 0
    routers = part.sparse_layers * model.hidden * experts * ELEMENT_BYTES
    rotary = model.mla.qk_rope_head_size if model.mla else model.head_size
    positions = model.context * rotary * ELEMENT_BYTES
    copies = _absorbed_bytes(model, model.mla, tensor) * part.layers if model.mla else 0
    return round(linears) + vocabulary + norms + routers + positions + copies


def _absorbed_bytes(model: ModelEntry, mla: LatentAttention, tensor: int) -> int:
    """W_UK and W_UV of a layer, which vLLM keeps in 16 bits beside kv_b_proj
    (mla_attention.py)."""
    heads = model.heads // tensor
    return heads * (mla.qk_nope_head_size + mla.v_head_size) * mla.kv_rank * ELEMENT_BYTES


def adapter_bytes(work: ServeWork, part: Part) -> int:
    """Places of all adapters on one GPU: A and B of each target, in 16 bits. Of a divided linear,
    one of both is divided and the other whole (without fully_sharded_loras)."""
    if not work.adapters:
        return 0
    elements = sum(
        (inputs + outputs) * linear.copies
        for linear, (inputs, outputs) in local_linears(work.model, work.tensor, part)
        if linear.name in work.targets and not linear.routed
    )
    return work.adapters * work.rank * elements * ELEMENT_BYTES


def kv_bytes_per_token(work: ServeWork, part: Part) -> int:
    """Bytes of the KV cache for each token on one GPU of that stage. A latent is the same for all
    heads, so that all GPUs of the stage have it whole."""
    element = 1 if work.kv_dtype == "fp8" else ELEMENT_BYTES
    if (mla := work.model.mla) is not None:
        return part.layers * (mla.kv_rank + mla.qk_rope_head_size) * element
    heads = local_kv_heads(work.model, work.tensor)
    return 2 * part.layers * heads * work.model.head_size * element


def activation_bytes(work: ServeWork, part: Part) -> int:
    """Peak of the profiled pass over `batched_tokens` tokens: in an attention, in a feed-forward
    network or at the logits, whichever is largest. The routed experts' workspace stays from the
    first layer on that has any."""
    model = work.model
    workspace, after, before = 0, [_attention_elements(work)], 0
    if part.dense_layers:
        before = _layer_bytes(work, 3 * model.intermediate // work.tensor)
    if part.sparse_layers and model.moe is not None:
        workspace = _workspace_bytes(work, model.moe)
        shared = 3 * model.moe.shared_experts * model.moe.expert_intermediate // work.tensor
        after.append(shared + 2 * model.moe.experts)
    attention, *networks = (_layer_bytes(work, elements) for elements in after)
    logits = _logits_bytes(work) if part.head else 0
    peak = workspace + max(attention + _latent_context_bytes(work), *networks, logits)
    return max(before, peak) + CUBLAS_BYTES


def _layer_bytes(work: ServeWork, elements: int) -> int:
    """With that many elements per token beside the residual, the layer's input and its output;
    where each operation runs by itself, also the output of the attention."""
    stream = (3 if work.graphs else 4) + (work.tensor > 1)  # and its sum over the GPUs
    layer = work.batched_tokens * (elements + stream * work.model.hidden) * ELEMENT_BYTES
    if work.adapters:
        layer += 2 * work.batched_tokens * work.rank * 4  # x·Aᵀ of gate and up, in float32
    return layer


def _workspace_bytes(work: ServeWork, moe: Mixture) -> int:
    """Both workspaces of the routed experts (`workspace_shapes` in triton_moe.py)."""
    hidden, width = work.model.hidden, moe.expert_intermediate // work.tensor
    elements = moe.experts_per_token * (max(width, hidden) + max(2 * width, hidden))
    return work.batched_tokens * elements * ELEMENT_BYTES


def _attention_elements(work: ServeWork) -> int:
    model = work.model
    if (mla := model.mla) is None:
        heads = model.heads // work.tensor
        return (2 * heads + 2 * local_kv_heads(model, work.tensor)) * model.head_size
    heads = model.heads // work.tensor
    query = heads * (mla.qk_nope_head_size + mla.qk_rope_head_size)
    latents = mla.kv_rank + mla.qk_rope_head_size + (mla.q_rank or 0)
    return query + heads * mla.v_head_size + latents


def _latent_rows(work: ServeWork) -> int:
    pages = work.sequences * LATENT_BLOCK_TOKENS
    return max(min(max(8 * work.window, 4 * pages), LATENT_ROWS), pages)


def _latent_context_bytes(work: ServeWork) -> int:
    """Keys and values of cached context, unpacked; the profile allocates their most."""
    if (mla := work.model.mla) is None:
        return 0
    per_row = (work.model.heads // work.tensor) * (mla.qk_nope_head_size + mla.v_head_size)
    return _latent_rows(work) * per_row * ELEMENT_BYTES


def _logits_bytes(work: ServeWork) -> int:
    model, chosen = work.model, min(work.sequences, work.batched_tokens)
    hidden = (work.batched_tokens + chosen) * model.hidden * ELEMENT_BYTES
    gathered = chosen * local_vocabulary(model, work.tensor) if work.tensor > 1 else 0
    logits = (chosen * model.vocabulary + gathered) * ELEMENT_BYTES
    if model.architecture in OLD_RUNNER:
        logits += 3 * 4 * chosen * model.vocabulary
    return hidden + logits


def graph_bytes(work: ServeWork, part: Part) -> int:
    """CUDA graphs: for each batch size, whole and in pieces, with adapters and without."""
    if not work.graphs:
        return 0
    cases = 2 * (2 if work.adapters else 1)
    return GRAPH_BYTES * part.layers * len(graph_sizes(work.sequences)) * cases


def graph_sizes(sequences: int) -> tuple[int, ...]:
    """Batch sizes that vLLM captures (`_set_cudagraph_sizes` in config/vllm.py)."""
    most = min(2 * sequences, MOST_GRAPH_TOKENS)
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, MOST_GRAPH_TOKENS + 1, 16))
    return tuple(size for size in sizes if size <= most)


def kv_available(work: ServeWork, part: Part) -> int:
    """Bytes left for the KV cache on one GPU of that stage; negative where the rest does not
    fit."""
    requested = math.ceil(total_bytes(work.hardware) * utilization(work))
    return requested - sum(gpu_memory(work, part).values())


def kv_tokens(work: ServeWork, *, unsure: float = 0.0) -> int:
    """Tokens that the KV cache of one copy holds: those of its tightest stage, in whole blocks.
    `unsure` is the share by which all else may take more than is counted."""
    found = []
    for part in work.parts:
        more = round(unsure * sum(gpu_memory(work, part).values()))
        left = max(0, kv_available(work, part) - more)
        found.append(left // (kv_bytes_per_token(work, part) * BLOCK_TOKENS))
    return min(found) * BLOCK_TOKENS


def tightest_part(work: ServeWork) -> Part:
    """The stage whose GPUs hold the fewest tokens."""
    return min(
        work.parts, key=lambda part: kv_available(work, part) / kv_bytes_per_token(work, part)
    )
