"""What exists at once, beside weights and KV cache, while vLLM computes a batch of tokens.

Called by `memory`. Follows the pass that vLLM profiles, read in 0.26.0 and 0.32.0.
"""

from thinktune.plan.serving.division import Part, local_kv_heads, local_linears, local_vocabulary
from thinktune.plan.serving.work import ELEMENT_BYTES, OLD_RUNNER, ServeWork
from thinktune.schema.catalog import Mixture

CUBLAS_BYTES = 32 * 1024**2
"""Workspace of cuBLAS, which torch allocates."""
LATENT_ROWS = 64 * 1024
"""Most tokens of context that latent attention unpacks at once
(determine_chunked_prefill_workspace_size in mla_attention.py)."""
LATENT_BLOCK_TOKENS = 64


def activation_bytes(work: ServeWork, part: Part) -> int:
    """Peak of the profiled pass over `batched_tokens` tokens: in an attention, in a feed-forward
    network or at the logits, whichever is largest. The routed experts' workspace stays from the
    first layer on that has any."""
    model = work.model
    unpacked = _unpacked_bytes(work, part)
    before = workspace = network = 0
    if part.dense_layers:
        before = _layer_bytes(work, 3 * model.intermediate // work.tensor)
    if part.sparse_layers and model.moe is not None:
        workspace = _workspace_bytes(work, model.moe)
        shared = 3 * model.moe.shared_experts * model.moe.expert_intermediate // work.tensor
        network = _layer_bytes(work, shared + 2 * model.moe.experts)
    attention = _layer_bytes(work, _attention_elements(work)) + _latent_context_bytes(work)
    logits = _logits_bytes(work) if part.head else 0
    return max(before, workspace + max(attention, network, logits)) + unpacked + CUBLAS_BYTES


def _unpacked_bytes(work: ServeWork, part: Part) -> int:
    """What bitsandbytes unpacks at once for many tokens: one matrix, and all routed experts of a
    layer (`_apply_4bit_dequnt` in fused_moe.py)."""
    if work.precision != "nf4":
        return 0
    matrices, experts = [0], 0
    for linear, (inputs, outputs) in local_linears(work.model, work.tensor, part):
        if linear.routed:
            experts += inputs * outputs * linear.copies // part.sparse_layers
        else:
            matrices.append(inputs * outputs)
    return ELEMENT_BYTES * max(*matrices, experts)


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


def latent_rows(work: ServeWork) -> int:
    pages = work.sequences * LATENT_BLOCK_TOKENS
    return max(min(max(8 * work.window, 4 * pages), LATENT_ROWS), pages)


def _latent_context_bytes(work: ServeWork) -> int:
    """Keys and values of cached context, unpacked; the profile allocates their most."""
    if (mla := work.model.mla) is None:
        return 0
    per_row = (work.model.heads // work.tensor) * (mla.qk_nope_head_size + mla.v_head_size)
    return latent_rows(work) * per_row * ELEMENT_BYTES


def _logits_bytes(work: ServeWork) -> int:
    model, chosen = work.model, min(work.sequences, work.batched_tokens)
    hidden = (work.batched_tokens + chosen) * model.hidden * ELEMENT_BYTES
    gathered = chosen * local_vocabulary(model, work.tensor) if work.tensor > 1 else 0
    logits = (chosen * model.vocabulary + gathered) * ELEMENT_BYTES
    if model.architecture in OLD_RUNNER:
        logits += 3 * 4 * chosen * model.vocabulary
    return hidden + logits
