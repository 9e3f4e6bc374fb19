"""The plan of a training: what runs where, what it takes, how long, or why not and what would.

Called by the command line to show it, and by the launcher, which puts `execution` into the train
task and the sizes into chart values.
"""

import math
from collections.abc import Mapping

from thinktune.plan.training import memory, speed
from thinktune.plan.training.alternatives import Change, fitting_changes
from thinktune.plan.training.search import USABLE, Decision, decide
from thinktune.schema.catalog import GIB, DatasetEntry, HardwareEntry, ModelEntry
from thinktune.schema.closed import Closed
from thinktune.schema.fused import FUSED_KINDS
from thinktune.schema.recipe import Recipe
from thinktune.schema.task import Execution

UPLOAD_BYTES_PER_S = 50e6
"""Speed of an upload from a pod to the store; an assumption, on the slow side."""
MEASURED = ("H100", "H200")
"""GPUs that benchmarks/results/measurements.jsonl has runs of: dense models, at most four GPUs of
a node. All else is scaled."""
GRACE_RESERVE_S = 30
"""Time for what surrounds a last checkpoint: noticing the signal, hashing, the manifest."""


class Topology(Closed):
    """How the training is spread over nodes, GPUs and ranks."""

    nodes: int
    """Number of nodes."""
    gpus_per_node: int
    """Number of GPUs of each node; 0 on nodes without."""
    world_size: int
    """Number of ranks: one per GPU, or one per node without GPUs."""
    data_parallel: int
    """Number of ranks that get different examples: all of them, with ZeRO too."""
    zero_stage: int
    """ZeRO stage (arXiv:1910.02054); 0 divides nothing among the ranks."""


class Alternative(Closed):
    """One change that makes a refused recipe fit."""

    change: str
    """Overrides as `--set` takes them, one or several with a blank between: `hardware=h100x1`."""
    gpu_total_bytes: int
    """Bytes at the peak on one GPU."""
    gpu_capacity_bytes: int
    """Bytes of memory that one GPU has."""
    tokens_per_s: float
    """Tokens per second over all GPUs."""
    hours: float | None
    """Hours of training alone; null where the number of rows is not known."""
    gpu_hours: float | None
    """Those hours times all GPUs; null where the number of rows is not known."""


class Plan(Closed):
    """One recipe planned on its hardware. Where it does not fit, the figures are those of the
    smallest execution."""

    fits: bool
    """Whether the recipe can be trained on its hardware."""
    reason: str
    """One sentence: how much is used, or what is short."""
    alternatives: tuple[Alternative, ...]
    """Changes of the recipe that would fit; empty where the recipe itself does."""
    topology: Topology
    """How the training is spread over nodes, GPUs and ranks."""
    execution: Execution
    """How each rank trains: the settings of the train task that decide speed and memory alone."""
    gpu_memory_bytes: dict[str, int]
    """Bytes at the peak on one GPU, by cause; on a node without GPUs, those of the process."""
    gpu_total_bytes: int
    """Sum of the causes: what the driver shows at the peak."""
    gpu_allocated_bytes: int
    """Share of the sum that is tensors, in bytes: what torch calls allocated."""
    load_gpu_bytes: int
    """Peak on one GPU while the base is loaded; counted from shapes, not measured."""
    gpu_capacity_bytes: int
    """Memory that one GPU has; on a node without GPUs, the node's memory."""
    host_memory_bytes: int
    """Host memory that each pod takes."""
    disk_bytes: int
    """Local disk that each pod takes."""
    shm_bytes: int
    """Size of /dev/shm."""
    checkpoint_bytes: int
    """Size of one checkpoint in the store."""
    grace_s: int
    """Seconds from the stop signal to the kill: the step at work and a last checkpoint."""
    optimizer_steps: int | None
    """Optimizer steps of the whole training; null where the number of rows is not known."""
    step_s: float | None
    """Seconds per optimizer step; null where the recipe does not fit."""
    tokens_per_s: float | None
    """Tokens per second over all GPUs; null where the recipe does not fit."""
    hours: float | None
    """Hours of training alone; null where the number of rows is not known."""
    gpu_hours: float | None
    """Those hours times all GPUs; null where the number of rows is not known."""
    measured: bool
    """Whether rates were measured on this kind of GPU; else they are scaled by published peaks."""
    assumptions: tuple[str, ...]
    """What the figures rest on, one sentence each."""


def make_plan(
    recipe: Recipe,
    model: ModelEntry,
    hardware: HardwareEntry,
    hardware_catalog: Mapping[str, HardwareEntry],
    *,
    dataset: DatasetEntry | None = None,
) -> Plan:
    """Plans the training of `recipe` on `recipe.nodes` nodes of `hardware`.

    `model` and `hardware` are the catalog entries that the recipe names; `hardware_catalog` is
    searched for what would fit; `dataset`, where given, says how many rows there are.
    """
    decision = decide(recipe, model, hardware)
    fits, work = decision.fault is None, decision.work
    steps = speed.optimizer_steps(recipe, dataset)
    changes = () if fits else fitting_changes(recipe, model, hardware, hardware_catalog)
    hours, gpu_hours = _hours(recipe, decision, dataset) if fits else (None, None)
    return Plan(
        fits=fits,
        reason=_reason(recipe, decision, hardware),
        alternatives=tuple(_alternative(change, dataset) for change in changes),
        topology=_topology(decision),
        execution=decision.execution,
        gpu_memory_bytes=decision.causes,
        gpu_total_bytes=decision.total,
        gpu_allocated_bytes=memory.allocated(decision.causes),
        load_gpu_bytes=memory.load_peak(work, decision.execution),
        gpu_capacity_bytes=decision.capacity,
        host_memory_bytes=memory.host_memory(work, decision.total),
        disk_bytes=memory.disk(work),
        shm_bytes=memory.shared_memory(work),
        checkpoint_bytes=memory.checkpoint(work),
        grace_s=_grace(decision),
        optimizer_steps=steps,
        step_s=decision.speed.step_s if fits else None,
        tokens_per_s=decision.speed.tokens_per_s if fits else None,
        hours=hours,
        gpu_hours=gpu_hours,
        measured=_measured(work, hardware),
        assumptions=_assumptions(recipe, hardware, decision, steps),
    )


def _measured(work: memory.Workload, hardware: HardwareEntry) -> bool:
    return hardware.gpu in MEASURED and work.fused and work.world <= 4 and work.nodes == 1


def _topology(decision: Decision) -> Topology:
    work = decision.work
    return Topology(
        nodes=work.nodes,
        gpus_per_node=work.gpus_per_node,
        world_size=work.world,
        data_parallel=work.world,
        zero_stage=decision.execution.zero_stage,
    )


def _reason(recipe: Recipe, decision: Decision, hardware: HardwareEntry) -> str:
    if decision.fault is not None:
        return f"{recipe.model} on {recipe.hardware}: {decision.fault}"
    device = f"each {hardware.gpu}" if hardware.num_gpus else "the node"
    used, has = decision.total / GIB, decision.capacity / GIB
    return f"fits: {used:.1f} of {has:.1f} GiB on {device}"


def _hours(
    recipe: Recipe, decision: Decision, dataset: DatasetEntry | None
) -> tuple[float | None, float | None]:
    steps = speed.optimizer_steps(recipe, dataset)
    if steps is None:
        return None, None
    hours = steps * decision.speed.step_s / 3600
    return hours, hours * decision.work.gpus_per_node * decision.work.nodes


def _alternative(change: Change, dataset: DatasetEntry | None) -> Alternative:
    hours, gpu_hours = _hours(change.recipe, change.decision, dataset)
    return Alternative(
        change=change.override,
        gpu_total_bytes=change.decision.total,
        gpu_capacity_bytes=change.decision.capacity,
        tokens_per_s=change.decision.speed.tokens_per_s,
        hours=hours,
        gpu_hours=gpu_hours,
    )


def _grace(decision: Decision) -> int:
    upload = memory.checkpoint(decision.work) / UPLOAD_BYTES_PER_S
    # The step whose work is queued, and on several ranks those that pass the request on.
    seconds = 3 * decision.speed.step_s + upload + GRACE_RESERVE_S
    return 10 * math.ceil(seconds / 10)


def _assumptions(
    recipe: Recipe, hardware: HardwareEntry, decision: Decision, steps: int | None
) -> tuple[str, ...]:
    work = decision.work
    model = work.model
    path = "fused" if work.fused else "plain"
    found = [
        f"Examples have {speed.mean_tokens(recipe):,} tokens on average.",
        f"Training takes the {path} path and reaches {speed.peak_share(work, hardware):.0%} of the"
        " 16-bit peak: "
        + (
            "as measured on this GPU."
            if _measured(work, hardware)
            else "from runs on an H100, scaled by published peaks, not measured on this hardware."
        ),
        "Hours are of training alone: loading, evaluation and waiting for a node come on top.",
        "Memory is counted from shapes, and within 5% of what torch allocated in 28 runs of 1.5B"
        f" to 70B on one to four GPUs; a plan fills at most {USABLE:.0%} of a GPU.",
    ]
    if steps is None:
        found.append("The number of rows is not known before prep, so hours are not given.")
    elif recipe.data.sample_rows is None and recipe.train.max_steps is None:
        found.append("All rows that there should be are trained on; prep may drop some.")
    if decision.execution.zero_stage == 3:
        found.append(
            "With ZeRO-3 each rank keeps its part of every layer; a layer at a time is whole."
        )
        if model.architecture not in FUSED_KINDS:
            found.append(
                f"A plan only: dividing {model.architecture} among ranks is not built, and a run"
                " is refused."
            )
    if model.moe is not None:
        found.append("Routed experts are quantized like other linears and take no adapter.")
    if decision.work.nodes > 1 or decision.work.world > 1:
        found.append("The links between GPUs reach what their kind usually does.")
    return tuple(found)
