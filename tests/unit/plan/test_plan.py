"""Plans: of every model on every node, and what a refusal says."""

from itertools import product

import pytest
from planning import CATALOG, a_recipe, plan_of

from thinktune.schema.catalog import GIB
from thinktune.schema.recipe import Recipe


def changed(recipe: Recipe, change: str) -> Recipe:
    """The recipe with an alternative's overrides."""
    data = recipe.model_dump(mode="json")
    for override in change.split():
        key, _, value = override.partition("=")
        level = data
        *path, last = key.split(".")
        for part in path:
            level = level[part]
        level[last] = int(value) if value.isdigit() else value
    return Recipe.parse(data, change)


def test_every_model_on_every_node() -> None:
    for model, hardware, base in product(CATALOG.models, CATALOG.hardware, ("nf4", "16bit")):
        recipe = a_recipe(model, hardware, train={"base": base})
        plan = plan_of(recipe)
        assert plan.gpu_total_bytes == sum(plan.gpu_memory_bytes.values())
        assert plan.fits == (not plan.alternatives), (model, hardware, base)
        assert plan.fits == (plan.tokens_per_s is not None)
        assert plan.execution.num_processes == plan.topology.world_size
        if plan.fits:
            assert plan.gpu_total_bytes <= plan.gpu_capacity_bytes
        else:
            assert model in plan.reason and hardware in plan.reason


@pytest.mark.parametrize(
    ("model", "hardware", "more"),
    [
        ("deepseek-r1", "t4x1", {}),
        ("deepseek-r1", "b200x8", {"train": {"base": "16bit"}}),
        ("deepseek-coder-v2", "h100x1", {}),
        ("r1-distill-llama-70b", "a100-40x1", {"train": {"rank": 512}}),
        ("r1-distill-qwen-14b", "t4x1", {}),
        ("r1-distill-qwen-32b", "cpu", {}),
        ("r1-distill-qwen-7b", "l4x1", {"data": {"max_tokens": 65536}}),
        ("r1-distill-qwen-7b", "t4x1", {"train": {"dtype": "bfloat16"}}),
        ("deepseek-coder-1.3b", "t4x1", {"data": {"max_tokens": 32768}}),
        ("r1-distill-llama-70b", "t4x1", {"train": {"dtype": "bfloat16"}}),
        ("deepseek-r1", "t4x1", {"data": {"max_tokens": 200000}}),
    ],
)
def test_a_refusal_names_what_fits(
    model: str, hardware: str, more: dict[str, dict[str, object]]
) -> None:
    recipe = a_recipe(model, hardware, **more)
    plan = plan_of(recipe)
    assert not plan.fits
    assert plan.alternatives
    for alternative in plan.alternatives:
        other = plan_of(changed(recipe, alternative.change))
        assert other.fits, alternative.change
        assert other.gpu_total_bytes == alternative.gpu_total_bytes
        assert other.tokens_per_s == alternative.tokens_per_s


def test_r1_on_one_t4() -> None:
    plan = plan_of(a_recipe("deepseek-r1", "t4x1"))
    assert "GiB" in plan.reason
    assert "hardware=h200x4" in [alternative.change for alternative in plan.alternatives]


def test_32b_fits_a_40_gb_a100() -> None:
    plan = plan_of(a_recipe("r1-distill-qwen-32b", "a100-40x1"))
    assert plan.fits
    weights = ("base_weights", "quantization_state", "embeddings_head_and_norms")
    assert 18e9 < sum(plan.gpu_memory_bytes[cause] for cause in weights) < 20e9


def test_zero_3_only_where_nothing_else_fits() -> None:
    stages = {
        hardware: plan_of(a_recipe("r1-distill-llama-70b", hardware)).topology.zero_stage
        for hardware in ("h100x4", "a100-40x4")
    }
    assert stages["h100x4"] < 3
    assert stages["a100-40x4"] == 3


def test_recompute_as_little_as_memory_asks_for() -> None:
    executions = [
        plan_of(a_recipe("r1-distill-llama-8b", name, data={"max_tokens": 8192})).execution
        for name in ("l4x1", "a100-40x1", "h100x1", "h200x1")
    ]
    again = [2 * e.recompute_layers + e.recompute_mlps for e in executions]
    assert again[0] > 0
    assert again[1:] == [0, 0, 0]
    assert executions[0].recompute_mlps > 0  # gate and up go first


def test_what_memory_is_left_over_holds_unpacked_weights() -> None:
    plan = plan_of(a_recipe("r1-distill-qwen-1.5b", "h200x1"))
    assert plan.execution.unpacked_layers in (0, 28)
    assert plan.gpu_total_bytes < 0.95 * plan.gpu_capacity_bytes


def test_more_gpus_are_faster() -> None:
    train = {"batch_size": 64}
    speeds = [
        plan_of(a_recipe("r1-distill-llama-8b", f"h100x{n}", train=train)).tokens_per_s or 0
        for n in (1, 2, 4, 8)
    ]
    assert speeds == sorted(set(speeds))


def test_a_node_without_gpus_uses_its_own_memory() -> None:
    plan = plan_of(a_recipe("smollm2-135m", "cpu", data={"max_tokens": 256}))
    assert plan.fits
    assert plan.gpu_capacity_bytes == 6 * GIB
    assert plan.topology.world_size == 1
    assert plan.gpu_memory_bytes["cuda_context"] == 0
    # What a run of 1,024 tokens a step was seen to take.
    assert 3e9 < plan.host_memory_bytes < 5e9


def test_hours_are_steps_times_their_seconds() -> None:
    recipe = a_recipe("r1-distill-llama-8b", "h100x4", train={"max_steps": 100})
    plan = plan_of(recipe)
    assert plan.step_s and plan.hours and plan.gpu_hours
    assert plan.hours == pytest.approx(100 * plan.step_s / 3600)
    assert plan.gpu_hours == pytest.approx(4 * plan.hours)


def test_hours_are_unknown_without_rows() -> None:
    plan = plan_of(a_recipe("r1-distill-llama-8b", "h100x1"))
    assert plan.hours is None
    assert any("not known" in assumption for assumption in plan.assumptions)


def test_sizes_of_the_pod() -> None:
    plan = plan_of(a_recipe("r1-distill-llama-70b", "h100x8", train={"optimizer": "adamw"}))
    adapter = 207_093_760
    assert plan.checkpoint_bytes == pytest.approx(12 * adapter, rel=0.01)
    assert plan.disk_bytes > 141e9
    assert plan.shm_bytes > GIB
    assert plan.grace_s % 10 == 0
    assert plan.step_s and plan.grace_s > plan.step_s


def test_the_same_recipe_has_the_same_plan() -> None:
    recipe = a_recipe("r1-distill-qwen-14b", "l4x4")
    assert plan_of(recipe).digest() == plan_of(recipe).digest()
