"""Memory of one GPU during training, by cause, and of the node around it.

Called by the search, which tries executions against it. Weights, states and activations are
counted from shapes; the constants below are calibrated on measured runs and say so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from thinktune.plan import shapes
from thinktune.plan.training import activations
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.fused import is_fused
from thinktune.schema.recipe import Recipe, TrainSpec
from thinktune.schema.task import Execution

MIB = 1024**2

PACKED_BYTES = 0.5
"""NF4 weights, per parameter."""
ABSMAX_BYTES = 0.0159
"""Scales with double quantization, per parameter: 8 bits per 64 weights and 32 per 256 of these
(arXiv:2305.14314, section 3)."""
CUDA_CONTEXT_BYTES = 3 * GIB // 4
"""CUDA context and loaded kernels; measured on an H200."""
NCCL_PEER_BYTES = 5 * GIB // 4
"""NCCL's buffers for a neighbor in its ring, of which there are at most two; measured with one."""
NCCL_GATHER_BYTES = 7 * GIB // 16
"""What NCCL takes more where layers are gathered beside the computation; measured on two H200."""
FRAGMENTATION = 0.028
"""Share of everything allocated that the caching allocator wastes: 0.4% to 11% were measured, the
more the less there is in all."""
HOST_PROCESS_BYTES = 5 * GIB
"""Host memory of one rank: interpreter, libraries, pinned buffers and one tensor being loaded."""
HOST_RESERVE_BYTES = 11 * GIB // 4
"""Interpreter, libraries and what the allocator keeps, of a training without a GPU; calibrated on
SmolLM2-135M in NF4 with 1,024 tokens a step: 4.1 to 4.9 GB in all."""
SHARD_BYTES = 5 * GIB
"""Largest file of released weights, mapped while loading."""
DISK_RESERVE_BYTES = 5 * GIB
"""Disk for tokenized data, logs and trackers."""
OUTSIDE = frozenset({"fragmentation_reserve", "nccl_buffers", "cuda_context"})
"""Causes of `gpu_memory` that are no tensors."""


@dataclass(frozen=True)
class Workload:
    """The facts of a recipe, a model and a node that decide how much memory a training takes."""

    model: ModelEntry
    train: TrainSpec
    max_seq_len: int
    """Length of the longest example in tokens, which gets a row of its own if it must."""
    gpus_per_node: int
    """Number of GPUs of each node; 0 on nodes without."""
    nodes: int
    element_bytes: int
    """Bytes of an activation: 2, or 4 where nothing computes in 16 bits."""
    fused: bool
    """Whether the training takes the fused path."""
    fp16: bool = False
    """Whether gradients are computed in float16, and so must be whole until they are looked at."""

    @property
    def world(self) -> int:
        """Number of ranks: one per GPU, or one per node without GPUs."""
        return max(1, self.gpus_per_node) * self.nodes

    @cached_property
    def adapter(self) -> int:
        """Number of weights that are trained: those of the adapter."""
        return shapes.adapter_parameters(self.model, self.train)


def workload(recipe: Recipe, model: ModelEntry, hardware: HardwareEntry) -> Workload:
    """Reads from recipe and catalog what the formulas need."""
    dtype, gpu = recipe.train.dtype, hardware.num_gpus > 0
    full = dtype == "float32" or (dtype == "auto" and not gpu)
    return Workload(
        model=model,
        train=recipe.train,
        max_seq_len=recipe.data.max_tokens,
        gpus_per_node=hardware.num_gpus,
        nodes=recipe.nodes,
        element_bytes=4 if full else 2,
        fused=is_fused(model, recipe.train, hardware),
        fp16=dtype == "float16" or (dtype == "auto" and gpu and not hardware.bf16),
    )


def gpu_memory(work: Workload, execution: Execution) -> dict[str, int]:
    """Bytes at the peak of a training step on one rank, by cause."""
    tokens = max(execution.micro_batch_tokens, work.max_seq_len)
    causes = _weights(work, execution)
    causes["adapter_and_optimizer"] = round(work.adapter * _adapter_bytes(work, execution))
    if work.fused:
        causes["adapter_and_optimizer"] += 2 * activations.half_precision_adapter(
            work.model, work.train
        )
    row = _row(work, execution, tokens)
    causes["saved_activations"] = row.saved
    causes["live_recompute"] = row.live
    causes["loss_workspace"] = row.loss
    causes["dequantization_workspace"] = _workspace(work, execution)
    causes["communication_buckets"] = _slots(work, execution)
    # Gradients are added up when activations are gone: only a large adapter needs more for it.
    activity = row.saved + row.live + row.loss + causes["dequantization_workspace"]
    causes["communication_buckets"] += max(0, _bucket(work, execution) - activity)
    # The rest is outside the caching allocator, so it does not fragment.
    causes["fragmentation_reserve"] = round(FRAGMENTATION * sum(causes.values()))
    causes["nccl_buffers"] = _nccl(work, execution)
    causes["cuda_context"] = CUDA_CONTEXT_BYTES if work.gpus_per_node else 0
    return causes


def allocated(causes: Mapping[str, int]) -> int:
    """The part of `gpu_memory` that torch's allocator hands out at the peak
    (`max_memory_allocated`)."""
    return sum(size for cause, size in causes.items() if cause not in OUTSIDE)


def load_peak(work: Workload, execution: Execution) -> int:
    """Bytes on one GPU while the base is loaded: what stays of it, the layer at work whole beside
    the one that is handed round, and its largest matrix in 16 bits."""
    layer = 2 * layer_bytes(work) if work.world > 1 else 0
    largest = shapes.largest_linear(work.model) * 2
    slots = _slots(work, execution)
    return sum(_weights(work, execution).values()) + slots + layer + largest


def _weights(work: Workload, execution: Execution) -> dict[str, int]:
    count = shapes.linear_parameters(work.model)
    rest = shapes.embedding_parameters(work.model) + shapes.other_parameters(work.model)
    shards = work.world if execution.zero_stage == 3 else 1
    quantized = work.train.base == "nf4"
    each = PACKED_BYTES if quantized else work.element_bytes
    return {
        "base_weights": round(count * each / shards),
        "quantization_state": round(count * ABSMAX_BYTES / shards) if quantized else 0,
        "embeddings_head_and_norms": round(rest * work.element_bytes),
    }


def _adapter_bytes(work: Workload, execution: Execution) -> float:
    """Per trained weight, in float32: itself, its gradient, two Adam moments (16 in all). Divided,
    the rank's own share of the weights stands twice. Stage 3 treats the adapter as 1 does."""
    weight, gradient, moments = 4.0, 4.0, _moment_bytes(work)
    if execution.zero_stage >= 1:
        weight += 4.0 / work.world
        moments /= work.world
    if execution.zero_stage == 2:
        gradient /= work.world
    return weight + gradient + moments


def _moment_bytes(work: Workload) -> float:
    # 8-bit states carry one float32 scale per block of 256; they need a GPU and do not divide.
    alone = work.gpus_per_node == 1 and work.nodes == 1
    return 2 * (1 + 4 / 256) if work.train.optimizer == "adamw_8bit" and alone else 8.0


def _row(work: Workload, execution: Execution, tokens: int) -> activations.Bytes:
    if work.fused:
        return activations.fused(work.model, work.train, execution, tokens)
    gpu = work.gpus_per_node > 0
    return activations.plain(work.model, execution, tokens, work.element_bytes, gpu)


def _workspace(work: Workload, execution: Execution) -> int:
    if work.train.base != "nf4":
        return 0
    if work.fused:
        unpacked = execution.unpacked_layers * shapes.linear_parameters(work.model)
        kept = unpacked // work.model.layers
        return (activations.workspace(work.model, execution) + kept) * work.element_bytes
    # Gate and up are one group and dequantized together; so are the others, but smaller.
    return 2 * shapes.largest_linear(work.model) * work.element_bytes


def layer_bytes(work: Workload) -> int:
    """Bytes of one layer's frozen weights as they are kept: what ZeRO-3 divides and gathers."""
    quantized = work.train.base == "nf4"
    each = PACKED_BYTES + ABSMAX_BYTES if quantized else work.element_bytes
    return round(shapes.linear_parameters(work.model) / work.model.layers * each)


def _slots(work: Workload, execution: Execution) -> int:
    """Bytes of the layer at work and of the one fetched ahead, with ZeRO-3."""
    return 2 * layer_bytes(work) if execution.zero_stage == 3 else 0


def _bucket(work: Workload, execution: Execution) -> int:
    """Bytes at the optimizer step: the adapter's gradients in a row, and this rank's share."""
    if work.world == 1:
        return 0
    share = 1 / work.world if execution.zero_stage else 0.0
    return round(4 * work.adapter * (1 + share))


def _nccl(work: Workload, execution: Execution) -> int:
    if work.world == 1 or work.gpus_per_node == 0:
        return 0
    gathers = NCCL_GATHER_BYTES if execution.zero_stage == 3 else 0
    return min(2, work.world - 1) * NCCL_PEER_BYTES + gathers


def capacity(hardware: HardwareEntry) -> int:
    """Bytes that a rank may use: the GPU's memory, or the host's on a node without."""
    gib = hardware.gpu_memory_gib if hardware.num_gpus else hardware.host_memory_gib
    return math.floor(gib * GIB)


def host_memory(work: Workload, on_device: int) -> int:
    """Bytes of host memory that a pod needs; `on_device` is what a rank takes on its device."""
    if work.gpus_per_node == 0:
        return on_device + HOST_RESERVE_BYTES
    released = shapes.released_bytes(work.model)
    # The rank that saves holds a checkpoint, and once more while it is written.
    copies = 2 * checkpoint(work)
    return work.gpus_per_node * HOST_PROCESS_BYTES + min(SHARD_BYTES, released) + copies


def checkpoint(work: Workload) -> int:
    """Bytes of one checkpoint: adapter, both moments and, where it is chosen, the best adapter so
    far, all in float32, and a little for the rest."""
    copies = 4 if work.train.select == "best" else 3
    return round(work.adapter * 4 * copies) + MIB


def disk(work: Workload) -> int:
    """Bytes of local disk: the weights, a checkpoint per rank that resumes, data. With a store on
    the node itself also those that are kept."""
    kept = max(_kept_checkpoints(work.train) + 1, work.gpus_per_node)
    return shapes.released_bytes(work.model) + kept * checkpoint(work) + DISK_RESERVE_BYTES


def _kept_checkpoints(train: TrainSpec) -> int:
    """How many checkpoints are kept at a time. `all` of a training whose steps only the data tells
    count as two: its store is rarely the node's own disk."""
    if train.keep_checkpoints != "all":
        return train.keep_checkpoints
    return max(2, -(-(train.max_steps or 0) // train.checkpoint_every_steps))


def shared_memory(work: Workload) -> int:
    """Bytes of /dev/shm: NCCL's segments between the ranks of a node, or the usual 64 MiB."""
    ranks = work.gpus_per_node
    return 64 * MIB + (ranks * 512 * MIB if ranks > 1 else 0)
