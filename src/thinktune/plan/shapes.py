"""Shapes and counts of weights, derived from a model's catalog entry.

Called by the memory and speed models, and by the test that checks the catalog's own counts.
Names of linears are those of the released checkpoints, by their last part.
"""

from dataclasses import dataclass
from functools import lru_cache

from thinktune.schema.catalog import LatentAttention, Mixture, ModelEntry
from thinktune.schema.lora_targets import target_names
from thinktune.schema.recipe import TrainSpec


@dataclass(frozen=True)
class Linear:
    """One kind of linear layer, counted over the whole model."""

    name: str
    inputs: int
    outputs: int
    copies: int
    """How many there are, over all layers."""
    routed: bool = False
    """Whether it belongs to routed experts, of which a token uses a few."""

    @property
    def weights(self) -> int:
        """Weights of all copies, biases not counted."""
        return self.inputs * self.outputs * self.copies


def _attention(model: ModelEntry, layers: int) -> list[Linear]:
    hidden, heads = model.hidden, model.heads
    if model.mla is not None:
        return _latent_attention(model.mla, hidden, heads, layers)
    queries, keys = heads * model.head_size, model.kv_heads * model.head_size
    return [
        Linear("q_proj", hidden, queries, layers),
        Linear("k_proj", hidden, keys, layers),
        Linear("v_proj", hidden, keys, layers),
        Linear("o_proj", queries, hidden, layers),
    ]


def _latent_attention(mla: LatentAttention, hidden: int, heads: int, layers: int) -> list[Linear]:
    queries = heads * (mla.qk_nope_head_size + mla.qk_rope_head_size)
    keys_and_values = heads * (mla.qk_nope_head_size + mla.v_head_size)
    found = [
        Linear("kv_a_proj_with_mqa", hidden, mla.kv_rank + mla.qk_rope_head_size, layers),
        Linear("kv_b_proj", mla.kv_rank, keys_and_values, layers),
        Linear("o_proj", heads * mla.v_head_size, hidden, layers),
    ]
    if mla.q_rank is None:
        return [Linear("q_proj", hidden, queries, layers), *found]
    return [
        Linear("q_a_proj", hidden, mla.q_rank, layers),
        Linear("q_b_proj", mla.q_rank, queries, layers),
        *found,
    ]


def _feed_forward(hidden: int, width: int, copies: int, routed: bool = False) -> list[Linear]:
    return [
        Linear("gate_proj", hidden, width, copies, routed),
        Linear("up_proj", hidden, width, copies, routed),
        Linear("down_proj", width, hidden, copies, routed),
    ]


def dense_layers(model: ModelEntry) -> int:
    """Layers with an ordinary feed-forward network."""
    return model.layers if model.moe is None else min(model.moe.dense_layers, model.layers)


@lru_cache(maxsize=256)
def layer_linears(model: ModelEntry, *, sparse: bool) -> tuple[Linear, ...]:
    """Linear layers of one layer, which has routed experts if it is `sparse`."""
    found = _attention(model, 1)
    if model.moe is None or not sparse:
        return (*found, *_feed_forward(model.hidden, model.intermediate, 1))
    return (*found, *_experts(model.hidden, model.moe, 1))


def _experts(hidden: int, moe: Mixture, layers: int) -> list[Linear]:
    # The released code builds the shared experts as one network of their summed width.
    width = moe.shared_experts * moe.expert_intermediate
    shared = _feed_forward(hidden, width, layers) if width else []
    return shared + _feed_forward(
        hidden, moe.expert_intermediate, layers * moe.experts, routed=True
    )


@lru_cache(maxsize=256)
def linears(model: ModelEntry) -> tuple[Linear, ...]:
    """All linear layers of the model but the output head: what 4-bit quantization packs."""
    found = _attention(model, model.layers)
    dense = dense_layers(model)
    if dense:
        found += _feed_forward(model.hidden, model.intermediate, dense)
    if model.moe is not None:
        found += _experts(model.hidden, model.moe, model.layers - dense)
    return tuple(found)


def linear_parameters(model: ModelEntry) -> int:
    """Weights of all linears, the output head left out."""
    return sum(linear.weights for linear in linears(model))


def active_linear_parameters(model: ModelEntry) -> int:
    """Weights of the linears that one token passes, the output head left out."""
    moe = model.moe
    share = moe.experts_per_token / moe.experts if moe else 1.0
    return round(sum(n.weights * (share if n.routed else 1) for n in linears(model)))


def embedding_parameters(model: ModelEntry) -> int:
    """Weights of the embedding and, where it is another matrix, of the output head."""
    return model.vocabulary * model.hidden * (1 if model.tied_embeddings else 2)


def other_parameters(model: ModelEntry) -> int:
    """Norms, biases of q, k and v, and routers: kept in 16 bits."""
    per_layer = 2 * model.hidden
    if model.mla is not None:
        per_layer += model.mla.kv_rank + (model.mla.q_rank or 0)
    elif model.attention_bias:
        per_layer += (model.heads + 2 * model.kv_heads) * model.head_size
    if model.architecture == "qwen3":
        per_layer += 2 * model.head_size  # norms of q and k
    routers = _router_parameters(model, model.moe) if model.moe else 0
    return model.layers * per_layer + model.hidden + routers


def _router_parameters(model: ModelEntry, moe: Mixture) -> int:
    # DeepSeek-V3 adds one bias per expert for balancing (arXiv:2412.19437, section 2.1.2).
    biases = moe.experts if model.architecture == "deepseek_v3" else 0
    return (model.layers - dense_layers(model)) * (moe.experts * model.hidden + biases)


def total_parameters(model: ModelEntry) -> int:
    """All weights; within 0.5% of the catalog's `parameters`."""
    return linear_parameters(model) + embedding_parameters(model) + other_parameters(model)


def active_parameters(model: ModelEntry) -> int:
    """Weights that one token uses, embedding and head included."""
    return active_linear_parameters(model) + embedding_parameters(model) + other_parameters(model)


def largest_linear(model: ModelEntry) -> int:
    """Weights of the largest single matrix that is dequantized at once."""
    return max(linear.inputs * linear.outputs for linear in linears(model))


def adapter_parameters(model: ModelEntry, train: TrainSpec) -> int:
    """Trained weights: rank × (inputs + outputs) of each target. Routed experts take none."""
    names = target_names(model, train)
    return train.rank * sum(
        (linear.inputs + linear.outputs) * linear.copies
        for linear in linears(model)
        if linear.name in names and not linear.routed
    )


@lru_cache(maxsize=256)
def saved_elements(model: ModelEntry) -> int:
    """Elements per token that one layer keeps for its backward pass, without recompute.

    Counts what a fused LoRA linear and FlashAttention-like kernels need: the inputs of both norms
    and of each projection group, q, k, v and the attention's output, gate and up and their
    product. The low-rank products (rank per target) are below 1% and left out.
    """
    hidden, heads = model.hidden, model.heads
    if model.mla is not None:
        mla = model.mla
        query = mla.qk_nope_head_size + mla.qk_rope_head_size
        attention = heads * (2 * query + 2 * mla.v_head_size)
        attention += 2 * (mla.q_rank or 0) + 2 * mla.kv_rank + mla.qk_rope_head_size
    else:
        attention = (2 * heads + 2 * model.kv_heads) * model.head_size
    return 4 * hidden + attention + _feed_forward_elements(model)


def _feed_forward_elements(model: ModelEntry) -> int:
    if model.moe is None:
        return 3 * model.intermediate
    moe = model.moe
    experts = 3 * moe.expert_intermediate * (moe.experts_per_token + moe.shared_experts)
    # Each routed expert gets its own copy of the token and gives one back.
    sparse = experts + 2 * moe.experts_per_token * model.hidden
    # A mean over layers would undercount the one being recomputed: take the larger kind.
    return max(sparse, 3 * model.intermediate if dense_layers(model) else 0)
