"""Memory that a packed row takes on its way through the model and back.

Called by `memory`. The fused path's counts follow what `thinktune.tasks.model.fused.layer` keeps;
the plain path's are calibrated.
"""

from dataclasses import dataclass

from thinktune.plan import shapes
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.fused import ALIGNMENT, GROUPS, LOGITS_BYTES
from thinktune.schema.lora_targets import target_names
from thinktune.schema.recipe import TrainSpec
from thinktune.schema.task import Execution

LOSS_CHUNK_TOKENS = 4096
"""Targets whose logits exist at once on the plain path: in float32 with their gradient."""
PLAIN_FACTOR = 1.6
"""What plain PEFT keeps, as a multiple of what a fused LoRA linear would: 55 GiB at the 1.5B shape
and 16,384 tokens on an H100."""
LIVE_FACTOR = 0.2
"""Sets of one layer's activations beside its gradients that exist while the plain path recomputes
it: 14.0 GiB at the 8B shape and 8,101 tokens on an H100."""


@dataclass(frozen=True)
class Bytes:
    """At the peak, which is in the backward pass of a layer or at the loss."""

    saved: int
    live: int
    """Of the layer at work; what exceeds it at the loss is `loss`."""
    loss: int


def margins(model: ModelEntry, train: TrainSpec) -> list[int]:
    """Columns that each projection group has for its adapters."""
    names = target_names(model, train)
    ranks = (train.rank * sum(name in names for name in group) for group in GROUPS)
    return [-(-rank // ALIGNMENT) * ALIGNMENT for rank in ranks]


def halves(model: ModelEntry, train: TrainSpec) -> int:
    """Elements of the half-precision copies of A and B, block diagonal in each group."""
    sizes = {linear.name: linear for linear in shapes.linears(model)}
    total = 0
    for group, margin in zip(GROUPS, margins(model, train), strict=True):
        outs = sum(sizes[name].outputs for name in group)
        total += margin * (sizes[group[0]].inputs + outs)
    return total * model.layers


def fused(model: ModelEntry, train: TrainSpec, execution: Execution, tokens: int) -> Bytes:
    """Of one rank on the fused path; activations are in half precision."""
    whole, mlps = execution.recompute_layers, execution.recompute_mlps
    hidden, inner = model.hidden, model.intermediate
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    low = margins(model, train)
    least = hidden + low[3]
    # Log-sum-exp and both norms' scales are in fp32.
    middle = 2 * hidden + 2 * queries + 2 * keys + sum(low) + 2 * model.heads + 4
    most = middle + 2 * inner + low[2]
    rest = model.layers - whole - mlps
    live = 2 * (hidden + inner) + low[0]
    live += most - least if whole else 2 * inner if mlps else 0
    if train.dropout:
        live += inner  # the masked input of down
    if train.fp8:
        live += inner // 2  # and its copy in FP8
    at_loss = LOGITS_BYTES + 2 * tokens * 4 * hidden
    live_bytes = 2 * tokens * live
    return Bytes(
        saved=2 * tokens * (whole * least + mlps * middle + rest * most),
        live=live_bytes,
        loss=max(0, at_loss - live_bytes),
    )


def workspace(model: ModelEntry, execution: Execution) -> int:
    """Elements of the matrices unpacked at once: gate and up, and down beside them where gate and
    up are held for two products."""
    held = execution.recompute_layers or execution.recompute_mlps
    return (3 if held else 2) * model.hidden * model.intermediate


def plain(model: ModelEntry, execution: Execution, tokens: int, element: int, gpu: bool) -> Bytes:
    """Of one rank on the plain path; `element` is the bytes of an activation."""
    factor = PLAIN_FACTOR if gpu else 1
    layer = round(tokens * shapes.saved_elements(model) * element * factor)
    again = min(model.layers, execution.recompute_layers + execution.recompute_mlps)
    inputs = tokens * model.hidden * element * again
    return Bytes(
        saved=inputs + layer * (model.layers - again),
        # One set for the gradients on the way back; more while a layer is recomputed.
        live=round(layer * (1 + (LIVE_FACTOR if again else 0))),
        loss=min(LOSS_CHUNK_TOKENS, tokens) * model.vocabulary * 4 * 2,
    )
