"""The fastest execution that fits, or why none does.

Called by `plan` for the recipe as it is and by `alternatives` for changed ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from thinktune.plan.training import memory, speed
from thinktune.plan.training.memory import Workload
from thinktune.plan.training.speed import Speed
from thinktune.schema.catalog import GIB, HardwareEntry, ModelEntry
from thinktune.schema.recipe import Recipe
from thinktune.schema.task import Execution

MICRO_BATCH_TOKENS = (1024, 2048, 4096, 8192, 16384, 32768)
"""Past 32,768 nothing is gained: dequantization is then 1% of a step."""
USABLE = 0.95
"""Share of a device's memory that a plan may fill: the memory model is right within 5% where it
was measured, and running out costs a run."""
NEARLY_AS_FAST = 0.99
"""Among executions this near to the fastest, the one with the least memory is taken."""

ZeroStage = Literal[0, 1, 2, 3]


@dataclass(frozen=True)
class Decision:
    """An execution with its memory and its speed."""

    work: Workload
    execution: Execution
    causes: dict[str, int]
    """Bytes at the peak on one device, by cause."""
    capacity: int
    """Bytes of memory that one device has."""
    speed: Speed
    fault: str | None
    """Why the execution does not fit; None where it does."""

    @property
    def total(self) -> int:
        """Bytes at the peak on one device, all causes together."""
        return sum(self.causes.values())


def decide(recipe: Recipe, model: ModelEntry, hardware: HardwareEntry) -> Decision:
    """The fastest execution that fits; where none does, the smallest one with its fault."""
    work = memory.workload(recipe, model, hardware)
    length = speed.mean_tokens(recipe)
    budget = round(USABLE * memory.capacity(hardware))
    if work.gpus_per_node == 0:
        budget -= memory.HOST_RESERVE_BYTES
    fault = _impossible(recipe, model, hardware)
    found = [] if fault else list(_fitting(work, recipe, budget))
    if found:
        timed = [
            (
                speed.step_speed(work, hardware, execution, recipe.train.batch_size, length),
                execution,
            )
            for execution in found
        ]
        best = max(pace.tokens_per_s for pace, _ in timed)
        near = [pair for pair in timed if pair[0].tokens_per_s >= NEARLY_AS_FAST * best]
        # Stage 2 adds gradients up after every row: for its memory alone it is not taken.
        pace, execution = min(
            near, key=lambda pair: (pair[1].zero_stage == 2, _total(work, pair[1]))
        )
    else:
        execution = _smallest(work)
        pace = speed.step_speed(work, hardware, execution, recipe.train.batch_size, length)
    causes = memory.gpu_memory(work, execution)
    if not found and not fault:
        fault = _too_large(sum(causes.values()), budget, hardware)
    fault = fault or _node_too_small(work, hardware, sum(causes.values()))
    return Decision(work, execution, causes, memory.capacity(hardware), pace, fault)


def _total(work: Workload, execution: Execution) -> int:
    return sum(memory.gpu_memory(work, execution).values())


def _execution(work: Workload, tokens: int, again: int, stage: ZeroStage) -> Execution:
    """`again` counts the steps that trade time for memory: layers on the plain path; on the fused
    one first the MLPs of all layers, which give more memory per product, then the rest of each."""
    layers = work.model.layers
    whole = max(0, again - layers) if work.fused else again
    return Execution(
        num_processes=work.world,
        micro_batch_tokens=tokens,
        recompute_layers=whole,
        recompute_mlps=min(again, layers) - whole if work.fused else 0,
        zero_stage=stage,
    )


def _most_again(work: Workload) -> int:
    return work.model.layers * (2 if work.fused else 1)


def _fitting(work: Workload, recipe: Recipe, budget: int) -> Iterator[Execution]:
    """For each micro-batch and ZeRO stage, the execution with the least recompute that fits."""
    examples = -(-recipe.train.batch_size // work.world)
    # More than a rank gets in a step would reserve memory for nothing.
    most = 2 * examples * speed.mean_tokens(recipe)
    sizes = [work.max_seq_len, *(t for t in MICRO_BATCH_TOKENS if work.max_seq_len < t < most)]
    for stages in _stages(work):
        found = False
        for stage in stages:
            for tokens in sizes:
                again = _least_recompute(work, tokens, stage, budget)
                if again is not None:
                    found = True
                    execution = _execution(work, tokens, again, stage)
                    yield execution
                    if not again:
                        yield _unpacked(work, execution, budget)
        if found:
            return


def _stages(work: Workload) -> Iterator[tuple[ZeroStage, ...]]:
    """Groups of ZeRO stages, tried in turn: 3 moves the whole base twice per row, so only where
    nothing else fits."""
    if work.world == 1 or work.gpus_per_node == 0:
        yield (0,)
        return
    yield (1,) if work.fp16 else (1, 2)
    yield (3,)


def _least_recompute(work: Workload, tokens: int, stage: ZeroStage, budget: int) -> int | None:
    if _total(work, _execution(work, tokens, 0, stage)) <= budget:
        return 0
    low, high = 1, _most_again(work)  # from the first on, each takes less memory
    if _total(work, _execution(work, tokens, high, stage)) > budget:
        return None
    while low < high:
        middle = (low + high) // 2
        if _total(work, _execution(work, tokens, middle, stage)) <= budget:
            high = middle
        else:
            low = middle + 1
    return low


def _unpacked(work: Workload, execution: Execution, budget: int) -> Execution:
    """The execution with as many layers unpacked for good as memory is left for."""
    if not work.fused or work.train.base != "nf4":
        return execution
    none, one = (_total(work, execution.model_copy(update={"unpacked_layers": n})) for n in (0, 1))
    layers = min(work.model.layers, (budget - none) // (one - none))
    return execution.model_copy(update={"unpacked_layers": layers})


def _smallest(work: Workload) -> Execution:
    stages = [stage for group in _stages(work) for stage in group]
    tried = [
        _execution(work, work.max_seq_len, layers, stage)
        for stage in stages
        for layers in (0, _most_again(work))
    ]
    return min(tried, key=lambda execution: _total(work, execution))


def _impossible(recipe: Recipe, model: ModelEntry, hardware: HardwareEntry) -> str | None:
    max_seq_len = recipe.data.max_tokens
    if max_seq_len > model.context:
        return (
            f"data.max_tokens is {max_seq_len:,}, and {recipe.model} supports"
            f" {model.context:,} tokens"
        )
    if recipe.train.dtype == "bfloat16" and not hardware.bf16:
        return f"train.dtype is bfloat16, and a {hardware.gpu} does not compute in it"
    if not memory.workload(recipe, model, hardware).adapter:
        return f"train.targets has no layer of {recipe.model} that takes an adapter"
    return None


def _too_large(needed: int, budget: int, hardware: HardwareEntry) -> str:
    where = f"one {hardware.gpu}" if hardware.num_gpus else "the node, which has no GPU,"
    return (
        f"needs at least {needed / GIB:.1f} GiB, and {where} has {budget / GIB:.1f} GiB for it"
        f" (of {memory.capacity(hardware) / GIB:.1f})"
    )


def _node_too_small(work: Workload, hardware: HardwareEntry, on_device: int) -> str | None:
    host, disk = memory.host_memory(work, on_device), memory.disk(work)
    if host > hardware.host_memory_gib * GIB:
        return f"needs {host / GIB:.0f} GiB of host memory; the node has {hardware.host_memory_gib}"
    if disk > hardware.disk_gib * GIB:
        return f"needs {disk / GIB:.0f} GiB of disk, and the node has {hardware.disk_gib}"
    return None
