"""What would fit, where the recipe as it is does not: one change at a time.

Called by `plan` for refusals.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thinktune.plan.training.search import Decision, decide
from thinktune.schema.catalog import HardwareEntry, ModelEntry
from thinktune.schema.recipe import Recipe

MOST_HARDWARE = 3
"""Nodes to name: the smallest of each kind of GPU, smallest first."""
SHORTEST_MAX_SEQ_LEN = 512
LOWEST_RANK = 4
MOST_NODES = 16


@dataclass(frozen=True)
class Change:
    """One change of the recipe that makes it fit."""

    override: str
    """As `--set` takes it: `hardware=h100x1`."""
    recipe: Recipe
    hardware: HardwareEntry
    decision: Decision


def fitting_changes(
    recipe: Recipe,
    model: ModelEntry,
    hardware: HardwareEntry,
    catalog: Mapping[str, HardwareEntry],
) -> tuple[Change, ...]:
    """Changes that make the recipe fit: on the same node first, then other nodes, then more."""
    here = [
        Change(override, changed, hardware, decision)
        for steps in (_shorter_sequences(recipe, model), _ranks(recipe), _train_changes(recipe))
        for override, changed, decision in _first_fitting(steps, model, hardware)
    ]
    elsewhere = list(_other_hardware(recipe, model, catalog))
    if not here and not elsewhere:
        elsewhere = list(_more_nodes(recipe, model, catalog))
    if not here and not elsewhere:
        # Two faults at once, such as rows longer than the context on a GPU that is too small.
        for _, changed in (*_shorter_sequences(recipe, model), *_train_changes(recipe)):
            elsewhere = list(_other_hardware(changed, model, catalog, recipe))
            if elsewhere:
                break
    return (*here, *elsewhere)


Step = tuple[str, Recipe]


def _first_fitting(
    steps: Iterator[Step], model: ModelEntry, hardware: HardwareEntry
) -> Iterator[tuple[str, Recipe, Decision]]:
    for override, changed in steps:
        decision = decide(changed, model, hardware)
        if decision.fault is None:
            yield override, changed, decision
            return


def _shorter_sequences(recipe: Recipe, model: ModelEntry) -> Iterator[Step]:
    max_seq_len = recipe.data.max_tokens
    if max_seq_len > model.context:
        max_seq_len = model.context
        yield _with_max_seq_len(recipe, max_seq_len)
    while max_seq_len // 2 >= SHORTEST_MAX_SEQ_LEN:
        max_seq_len //= 2
        yield _with_max_seq_len(recipe, max_seq_len)


def _with_max_seq_len(recipe: Recipe, max_seq_len: int) -> Step:
    data = recipe.data.model_copy(update={"max_tokens": max_seq_len})
    return f"data.max_tokens={max_seq_len}", recipe.model_copy(update={"data": data})


def _ranks(recipe: Recipe) -> Iterator[Step]:
    rank = recipe.train.rank
    while rank // 2 >= LOWEST_RANK:
        rank //= 2
        yield _with_train(recipe, "rank", rank)


def _train_changes(recipe: Recipe) -> Iterator[Step]:
    if recipe.train.base != "nf4":
        yield _with_train(recipe, "base", "nf4")
    if recipe.train.dtype != "auto":
        yield _with_train(recipe, "dtype", "auto")
    if recipe.train.targets != "all":
        yield _with_train(recipe, "targets", "all")


def _with_train(recipe: Recipe, field: str, value: str | int) -> Step:
    train = recipe.train.model_copy(update={field: value})
    return f"train.{field}={value}", recipe.model_copy(update={"train": train})


def _size(entry: HardwareEntry) -> tuple[float, float]:
    """Stands for the price, which the catalog does not know: memory of all GPUs, then speed."""
    return entry.num_gpus * entry.gpu_memory_gib, entry.num_gpus * entry.bf16_tflops


def _other_hardware(
    recipe: Recipe,
    model: ModelEntry,
    catalog: Mapping[str, HardwareEntry],
    original: Recipe | None = None,
) -> Iterator[Change]:
    kinds: set[str] = set()
    for name, entry in sorted(catalog.items(), key=lambda item: (_size(item[1]), item[0])):
        if entry.num_gpus == 0 or entry.gpu in kinds or len(kinds) == MOST_HARDWARE:
            continue
        decision = decide(recipe, model, entry)
        if decision.fault is None:
            kinds.add(entry.gpu)
            changed = recipe.model_copy(update={"hardware": name})
            override = " ".join([f"hardware={name}", *_differences(original, recipe)])
            yield Change(override, changed, entry, decision)


def _differences(original: Recipe | None, changed: Recipe) -> list[str]:
    if original is None:
        return []
    found = []
    if original.data.max_tokens != changed.data.max_tokens:
        found.append(f"data.max_tokens={changed.data.max_tokens}")
    for field in ("base", "dtype", "targets"):
        if getattr(original.train, field) != getattr(changed.train, field):
            found.append(f"train.{field}={getattr(changed.train, field)}")
    return found


def _more_nodes(
    recipe: Recipe, model: ModelEntry, catalog: Mapping[str, HardwareEntry]
) -> Iterator[Change]:
    """The fewest nodes that fit, of the smallest kind that does."""
    entries = sorted(catalog.items(), key=lambda item: (_size(item[1]), item[0]))
    nodes = recipe.nodes * 2
    while nodes <= MOST_NODES:
        for name, entry in entries:
            changed = recipe.model_copy(update={"hardware": name, "nodes": nodes})
            decision = decide(changed, model, entry) if entry.num_gpus else None
            if decision is not None and decision.fault is None:
                yield Change(f"hardware={name} nodes={nodes}", changed, entry, decision)
                return
        nodes *= 2
