"""How long a training step takes: arithmetic, dequantization, launches and gathers.

Called by the search, to choose among executions that fit, and for the hours a plan shows. The share
of the peak is measured with `make bench-gpu` on one H100 (4-bit LoRA of rank 16, packed rows,
examples of about 1,000 tokens) and scaled by the published peaks of other GPUs.
"""

import math
from dataclasses import dataclass

from thinktune.plan import shapes
from thinktune.plan.training.memory import ABSMAX_BYTES, PACKED_BYTES, Workload, layer_bytes
from thinktune.schema.catalog import DatasetEntry, HardwareEntry
from thinktune.schema.recipe import Recipe
from thinktune.schema.task import Execution

MEAN_TOKENS = 1000
"""Assumed length of an example in tokens, as in the probes; at most half of the recipe's maximum
sequence length."""
PEAK_SHARE = 0.70
"""Share of the peak that an endlessly wide model would reach."""
HALF_WIDTH = 1200
"""Width of the residual stream at which half of `PEAK_SHARE` is reached."""
LAUNCH_S = 2e-5
"""Seconds per layer and pass that no tokens can hide: kernel launches. These three and FP8's two
are fitted to nine runs of the fused path on an H100 (benchmarks/results/measurements.jsonl)."""
PLAIN_SHARE, PLAIN_WIDTH = 0.62, 630
"""What the plain path reaches of the fused one's rate with an endlessly wide model, and the width
at which it reaches half of that: 0.44 at 1.5B and 0.54 at 8B were measured."""
FP8_GAIN, FP8_WIDTH = 0.45, 1536
"""How much faster FP8 products make a step of an endlessly wide model, and the width at which they
give nothing: 1.05 at 1.5B, 1.29 at 8B and 1.36 at 32B were measured."""
DROPOUT_S = 3 * 3.3e-12
"""Seconds per element of an adapter's input for its mask: drawn forward, again backward, and once
more for the gradient; of benchmarks/kernel_times.py on an H100, scaled by peak elsewhere."""
PEAK_FLOPS = 989e12
"""Dense 16-bit FLOP/s of the H100 that `DROPOUT_S` was measured on."""
HOST_S = 5e-3
"""Seconds per layer and row that the host needs to launch it all, which small models wait for."""
PARALLEL_SHARE = 0.98
"""Share of the speed per rank that data parallelism leaves: 0.976 at 8B on two H200."""
GATHER_SHARE = 0.98
"""Share of the speed per rank that ZeRO-3 leaves in turn, where links keep up: 0.984 at 8B on two
H200."""
LINK_BYTES_PER_S = {"nvlink": 150e9, "pcie": 10e9, "none": 10e9}
"""Bytes per second that a gather reaches between the GPUs of a node; an assumption."""
NETWORK_BYTES_PER_S = 10e9
"""Bytes per second that a gather reaches between nodes; an assumption (100 Gbit/s or more)."""


@dataclass(frozen=True)
class Speed:
    """The speed of a training, all ranks together."""

    tokens_per_s: float
    """Tokens per second over all ranks."""
    step_s: float
    """Seconds per optimizer step."""


def mean_tokens(recipe: Recipe) -> int:
    """Assumed length of an example in tokens."""
    return max(1, min(MEAN_TOKENS, recipe.data.max_tokens // 2))


def peak_share(work: Workload, hardware: HardwareEntry) -> float:
    """Share of a GPU's dense 16-bit peak that training reaches; with FP8 products, as if it were
    higher."""
    hidden = work.model.hidden
    share = PEAK_SHARE * hidden / (hidden + HALF_WIDTH)
    if not work.fused:
        return share * PLAIN_SHARE * hidden / (hidden + PLAIN_WIDTH)
    if not (work.train.fp8 and hardware.fp8_tflops and work.train.base == "nf4"):
        return share
    return share * (1 + FP8_GAIN * max(0, 1 - FP8_WIDTH / hidden))


def flops_per_token(work: Workload, execution: Execution, length: int) -> float:
    """FLOPs of a training step for each token of documents of `length` tokens.

    A frozen weight takes 4, forward and for the activation's gradient, and 2 more where a second
    forward pass recomputes it. Of attention the causal half counts, and its backward pass as 2.5
    forward passes.
    """
    model = work.model
    head = model.vocabulary * model.hidden
    weights = shapes.active_linear_parameters(model)
    values = model.mla.v_head_size if model.mla else model.head_size
    attention = length * model.heads * (model.head_size + values)
    whole, mlps = recomputed(work, execution)
    layer, up = weights / model.layers, model.hidden * model.intermediate
    # The fused path leaves the down projection out of a second pass: nothing reads its output.
    again = whole * (layer - up if work.fused else layer) + mlps * 2 * up
    return 4 * (weights + head) + 2 * again + attention * (3.5 * model.layers + whole)


def recomputed(work: Workload, execution: Execution) -> tuple[int, int]:
    """The number of layers that run twice, and of layers of which only gate and up do."""
    whole = min(execution.recompute_layers, work.model.layers)
    mlps = min(execution.recompute_mlps, work.model.layers - whole)
    return (whole, mlps) if work.fused else (whole + mlps, 0)


def step_speed(
    work: Workload, hardware: HardwareEntry, execution: Execution, batch_size: int, length: int
) -> Speed:
    """Speed of an optimizer step of `batch_size` examples of `length` tokens."""
    step_tokens = batch_size * length
    # A rank that gets no example waits for those that do: the slowest has the rounded-up share.
    rank_tokens = math.ceil(batch_size / work.world) * length
    passes = max(1, math.ceil(rank_tokens / execution.micro_batch_tokens))
    micro = _micro_batch_s(work, hardware, execution, rank_tokens / passes, length)
    step_s = passes * micro
    if work.world > 1:
        # Once per step; where gradients are divided, after every row.
        sums = passes if execution.zero_stage == 2 else 1
        step_s = step_s / PARALLEL_SHARE + sums * _sum_s(work, hardware)
    return Speed(tokens_per_s=step_tokens / step_s, step_s=step_s)


def _sum_s(work: Workload, hardware: HardwareEntry) -> float:
    """Adding up the adapter's gradients over all ranks: a ring sends them almost twice."""
    sent = 2 * 4 * work.adapter * (work.world - 1) / work.world
    return sent / _link(work, hardware)


def _link(work: Workload, hardware: HardwareEntry) -> float:
    return LINK_BYTES_PER_S[hardware.link] if work.nodes == 1 else NETWORK_BYTES_PER_S


def _micro_batch_s(
    work: Workload, hardware: HardwareEntry, execution: Execution, tokens: float, length: int
) -> float:
    model = work.model
    reached = hardware.bf16_tflops * 1e12 * peak_share(work, hardware)
    seconds = tokens * flops_per_token(work, execution, length) / reached
    whole, mlps = recomputed(work, execution)
    passes = 2 + (whole + mlps) / model.layers
    seconds += LAUNCH_S * model.layers * passes
    if work.train.base == "nf4":
        unpacked = 1 - min(1, execution.unpacked_layers / model.layers)
        count = shapes.linear_parameters(model)
        moved = count * unpacked * (PACKED_BYTES + ABSMAX_BYTES + work.element_bytes)
        seconds += passes * moved / (hardware.memory_gb_per_s * 1e9)
    if work.train.dropout:
        inputs = model.layers * (3 * model.hidden + model.intermediate)
        seconds += tokens * inputs * DROPOUT_S * PEAK_FLOPS / (hardware.bf16_tflops * 1e12)
    if work.gpus_per_node:
        again = (whole + mlps / 4) / model.layers
        seconds = max(seconds, HOST_S * model.layers * (1 + again / 2))
    if execution.zero_stage == 3:
        # A pass each way; gathered ahead, so it shows only where it takes longer than the rest.
        gathered = 2 * model.layers * layer_bytes(work)
        seconds = max(seconds / GATHER_SHARE, gathered / _link(work, hardware))
    return seconds


def optimizer_steps(recipe: Recipe, dataset: DatasetEntry | None) -> int | None:
    """Optimizer steps of the run; null where neither recipe nor catalog says how many rows.

    Filters and balancing drop an unknown number of rows, and a user's own file has its own.
    """
    data, train = recipe.data, recipe.train
    rows = data.sample_rows
    held_out = data.split.test_rows + data.split.validation_rows
    if rows is None and data.expected_rows is not None:
        rows = max(1, data.expected_rows - held_out)
    if rows is None and dataset is not None and dataset.rows and not data.filters:
        rows = None if data.balance else max(1, dataset.rows - held_out)
    if rows is None:
        return train.max_steps
    steps = math.ceil(train.epochs * rows / train.batch_size)
    return min(steps, train.max_steps) if train.max_steps else steps
