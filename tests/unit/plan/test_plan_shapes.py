"""Counts derived from shapes, against published ones."""

import pytest
from planning import CATALOG

from thinktune.plan import shapes
from thinktune.schema.recipe import TrainSpec

TRAIN = TrainSpec(batch_size=1, rank=16)


@pytest.mark.parametrize(
    ("model", "millions"),
    [
        ("r1-distill-llama-70b", 207.1),
        ("r1-distill-llama-8b", 41.94),
        ("r1-distill-qwen-32b", 134.2),
    ],
)
def test_adapter_of_rank_16(model: str, millions: float) -> None:
    count = shapes.adapter_parameters(CATALOG.models[model], TRAIN)
    assert count / 1e6 == pytest.approx(millions, rel=1e-3)


def test_adapter_grows_with_rank_and_targets() -> None:
    model = CATALOG.models["r1-distill-qwen-7b"]
    all_targets = shapes.adapter_parameters(model, TRAIN)
    attention = TRAIN.model_copy(update={"targets": "attention"})
    mlp = TRAIN.model_copy(update={"targets": "mlp"})
    parts = [shapes.adapter_parameters(model, part) for part in (attention, mlp)]
    assert sum(parts) == all_targets
    doubled = shapes.adapter_parameters(model, TRAIN.model_copy(update={"rank": 32}))
    assert doubled == 2 * all_targets


def test_named_targets_are_those_alone() -> None:
    model = CATALOG.models["r1-distill-qwen-7b"]
    train = TRAIN.model_copy(update={"targets": ("o_proj",)})
    assert shapes.adapter_parameters(model, train) == 16 * 2 * model.hidden * model.layers


def test_most_of_r1_is_in_routed_experts() -> None:
    model = CATALOG.models["deepseek-r1"]
    routed = sum(linear.weights for linear in shapes.linears(model) if linear.routed)
    assert routed == pytest.approx(654e9, rel=1e-3)
    assert shapes.active_parameters(model) == pytest.approx(37e9, rel=0.02)


def test_routed_experts_take_no_adapter() -> None:
    model = CATALOG.models["deepseek-r1"]
    mlp = shapes.adapter_parameters(model, TRAIN.model_copy(update={"targets": "mlp"}))
    shared = 16 * 3 * (model.hidden + 2048) * 58
    dense = 16 * 3 * (model.hidden + model.intermediate) * 3
    assert mlp == shared + dense


def test_latent_attention_without_compressed_queries() -> None:
    names = {n.name for n in shapes.linears(CATALOG.models["deepseek-coder-v2-lite"])}
    assert "q_proj" in names and "q_a_proj" not in names
