"""The layers that a recipe's `targets` mean: one answer for the plan, the adapter and the check."""

from pathlib import Path

import pytest
import torch
from tiny_tokenizer import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.plan.shapes import adapter_parameters, linears
from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.lora_targets import TARGET_GROUPS, target_names
from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.model.adapter import add_adapter, trainable

ODD = "lm_head"
"""A linear layer in neither group."""


def spec(targets: str | tuple[str, ...]) -> TrainSpec:
    return TrainSpec.parse({"batch_size": 1, "rank": 4, "targets": targets}, "test")


def test_groups_are_apart_and_cover_every_model_that_ships() -> None:
    assert not TARGET_GROUPS["attention"] & TARGET_GROUPS["mlp"]
    both = TARGET_GROUPS["attention"] | TARGET_GROUPS["mlp"]
    for model in load_catalog().models.values():
        assert set(model.lora_targets) <= both
        assert {linear.name for linear in linears(model)} <= both


def test_a_layer_of_neither_group_belongs_to_all_alone() -> None:
    model = tiny_entry().model_copy(update={"lora_targets": ("q_proj", "up_proj", ODD)})
    assert target_names(model, spec("all")) == ("q_proj", "up_proj", ODD)
    assert target_names(model, spec("attention")) == ("q_proj",)
    assert target_names(model, spec("mlp")) == ("up_proj",)
    assert target_names(model, spec((ODD,))) == (ODD,)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("q_poj",), "'q_poj' is no layer of tests/tiny .*did you mean 'q_proj'"),
        (("kv_b_proj",), "'kv_b_proj' is no layer of tests/tiny"),
        ((), "names no layer of tests/tiny"),
    ],
)
def test_a_layer_that_the_model_lacks_is_refused(targets: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecInvalid, match=said) as raised:
        target_names(tiny_entry(), spec(targets))
    assert raised.value.exit_code == 64


def test_a_group_without_a_layer_is_refused() -> None:
    model = tiny_entry().model_copy(update={"lora_targets": ("q_proj",)})
    with pytest.raises(SpecInvalid, match="'mlp' names no layer of tests/tiny"):
        target_names(model, spec("mlp"))


@pytest.mark.parametrize("targets", ["all", "attention", "mlp", ("q_proj", "down_proj")])
def test_the_plan_counts_what_the_adapter_has(
    targets: str | tuple[str, ...], tiny_folder: Path
) -> None:
    model: ModelEntry = tiny_entry()
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    base.requires_grad_(False)
    parameters = trainable(add_adapter(base, spec(targets), model))
    found = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in parameters}
    assert found == set(target_names(model, spec(targets)))
    assert sum(p.numel() for p in parameters.values()) == adapter_parameters(model, spec(targets))
