"""Memory that a packed row takes on its way through the model and back.

Called by `memory`. The fused path's counts follow what `thinktune.tasks.model.fused.layer` keeps;
the plain path's are calibrated.
"""

from dataclasses import dataclass
from typing import NamedTuple

from thinktune.plan import shapes
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.fused import ALIGNMENT, LOGITS_BYTES, PROJECTION_GROUPS
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
    """Bytes of a row's activations at the peak, which is in the backward pass of a layer or at the
    loss."""

    saved: int
    """What all layers keep for the backward pass."""
    live: int
    """What the layer at work needs beside that."""
    loss: int
    """By how much the loss needs more than `live`."""


class LoraColumns(NamedTuple):
    """Columns that the adapters of each projection group take, in the order of
    `PROJECTION_GROUPS`."""

    qkv: int
    out: int
    gate_up: int
    down: int


def lora_columns(model: ModelEntry, train: TrainSpec) -> LoraColumns:
    """The columns of a model's adapters, each number padded to a multiple of `ALIGNMENT`."""
    names = target_names(model, train)
    ranks = (train.rank * sum(name in names for name in group) for group in PROJECTION_GROUPS)
    return LoraColumns(*(-(-rank // ALIGNMENT) * ALIGNMENT for rank in ranks))


def half_precision_adapter(model: ModelEntry, train: TrainSpec) -> int:
    """Elements of the half-precision copies of A and B, block diagonal in each group."""
    sizes = {linear.name: linear for linear in shapes.linears(model)}
    total = 0
    for group, columns in zip(PROJECTION_GROUPS, lora_columns(model, train), strict=True):
        outputs = sum(sizes[name].outputs for name in group)
        total += columns * (sizes[group[0]].inputs + outputs)
    return total * model.layers


def fused(model: ModelEntry, train: TrainSpec, execution: Execution, tokens: int) -> Bytes:
    """Bytes of one rank on the fused path; activations are in half precision."""
    recomputed, mlps = execution.recompute_layers, execution.recompute_mlps
    whole = model.layers - recomputed - mlps
    kept = _kept_elements(model, train)
    live_bytes = 2 * tokens * _live_elements(model, train, execution, kept)
    at_loss = LOGITS_BYTES + 2 * tokens * 4 * model.hidden
    elements = recomputed * kept.recomputed + mlps * kept.mlp_recomputed + whole * kept.whole
    return Bytes(saved=2 * tokens * elements, live=live_bytes, loss=max(0, at_loss - live_bytes))


@dataclass(frozen=True)
class _Kept:
    """Elements per token that one layer keeps for the backward pass."""

    recomputed: int
    """What a layer keeps that is recomputed: its input, and the LoRA activation of down."""
    mlp_recomputed: int
    """What a layer keeps whose gate and up are recomputed."""
    whole: int
    """What a layer keeps of which nothing is recomputed but norms and SwiGLU."""


def _kept_elements(model: ModelEntry, train: TrainSpec) -> _Kept:
    columns = lora_columns(model, train)
    queries = model.heads * model.head_size
    keys = model.kv_heads * model.head_size
    # Log-sum-exp of the attention and the scales of both norms, in float32.
    scales = 2 * model.heads + 4
    mlp_recomputed = 2 * model.hidden + 2 * queries + 2 * keys + sum(columns) + scales
    return _Kept(
        recomputed=model.hidden + columns.down,
        mlp_recomputed=mlp_recomputed,
        whole=mlp_recomputed + 2 * model.intermediate + columns.gate_up,
    )


def _live_elements(model: ModelEntry, train: TrainSpec, execution: Execution, kept: _Kept) -> int:
    """Elements per token that exist beside what is kept, while one layer's backward pass runs."""
    live = 2 * (model.hidden + model.intermediate) + lora_columns(model, train).qkv
    if execution.recompute_layers:
        live += kept.whole - kept.recomputed
    elif execution.recompute_mlps:
        live += 2 * model.intermediate
    if train.dropout:
        live += model.intermediate  # the masked input of down
    if train.fp8:
        live += model.intermediate // 2  # and its copy in FP8
    return live


def workspace(model: ModelEntry, execution: Execution) -> int:
    """Elements of the matrices unpacked at once: gate and up, and down beside them where gate and
    up are held for two products."""
    held = execution.recompute_layers or execution.recompute_mlps
    return (3 if held else 2) * model.hidden * model.intermediate


def plain(model: ModelEntry, execution: Execution, tokens: int, element: int, gpu: bool) -> Bytes:
    """Bytes of one rank on the plain path; `element` is the bytes of an activation."""
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
