"""Which linear layers take a LoRA adapter: the groups that a recipe can name, and their members.

The plan counts parameters by it, the adapter is built from it, and a recipe is checked against it,
so that all three always mean the same layers.
"""

from typing import Literal

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.recipe import TrainSpec

TARGET_GROUPS: dict[Literal["attention", "mlp"], frozenset[str]] = {
    "attention": frozenset(
        {
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "q_a_proj",
            "q_b_proj",
            "kv_a_proj_with_mqa",
            "kv_b_proj",
        }
    ),
    "mlp": frozenset({"gate_proj", "up_proj", "down_proj"}),
}
"""What `targets: attention` and `targets: mlp` can mean; a model's `lora_targets` narrow them. A
layer in neither group takes an adapter with `targets: all`, or by its name."""


def target_names(model: ModelEntry, train: TrainSpec) -> tuple[str, ...]:
    """Names of the linear layers that take an adapter: those that the recipe asks for and the
    model allows, in the order of whichever of the two lists them.

    Raises SpecInvalid for a name that the model does not allow, and where no layer is left.
    """
    allowed = model.lora_targets
    if train.targets == "all":
        return allowed
    if isinstance(train.targets, str):
        names = tuple(name for name in allowed if name in TARGET_GROUPS[train.targets])
    else:
        names = train.targets
    if not names:
        fault = f"{train.targets!r} names no layer of {model.repo} that takes an adapter"
        raise SpecInvalid("train.targets", fault, f"use 'all', or name some: {', '.join(allowed)}")
    for name in names:
        if name not in allowed:
            fault = f"'{name}' is no layer of {model.repo} that takes an adapter"
            raise SpecInvalid("train.targets", fault, near_misses(name, allowed))
    return names
