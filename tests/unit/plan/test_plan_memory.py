"""The memory model against common sense; test_plan_cells.py has what was measured."""

import pytest
from planning import CATALOG, a_recipe

from thinktune.plan.training import memory
from thinktune.schema.task import Execution


def bytes_by_cause(
    model: str,
    tokens: int,
    layers: int,
    rank: int = 16,
    hardware: str = "h100x1",
    stage: int = 0,
    mlps: int = 0,
) -> dict[str, int]:
    recipe = a_recipe(
        model,
        hardware,
        data={"max_tokens": 1024},
        train={"rank": rank, "optimizer": "adamw"},
    )
    work = memory.workload(recipe, CATALOG.models[model], CATALOG.hardware[hardware])
    execution = Execution.parse(
        {
            "micro_batch_tokens": tokens,
            "recompute_layers": layers,
            "recompute_mlps": mlps,
            "zero_stage": stage,
        },
        "test",
    )
    return memory.gpu_memory(work, execution)


@pytest.mark.parametrize(
    ("model", "packed_gb", "rest_gb"),
    [("r1-distill-qwen-32b", 16.1, 3.1), ("r1-distill-llama-70b", 35.3, 4.2)],
)
def test_base_weights(model: str, packed_gb: float, rest_gb: float) -> None:
    causes = bytes_by_cause(model, 1024, 0)
    packed = causes["base_weights"] + causes["quantization_state"]
    assert packed / 1e9 == pytest.approx(packed_gb, rel=0.01)
    assert causes["embeddings_head_and_norms"] / 1e9 == pytest.approx(rest_gb, rel=0.01)


def test_small_job_on_a_t4() -> None:
    total = sum(bytes_by_cause("deepseek-coder-1.3b", 2048, 0, hardware="t4x1").values())
    assert 7e9 < total < 9e9


def test_zero_3_divides_layers_with_their_scales_and_nothing_else() -> None:
    alone = bytes_by_cause("r1-distill-llama-70b", 1024, 80, hardware="h200x8")
    shared = bytes_by_cause("r1-distill-llama-70b", 1024, 80, hardware="h200x8", stage=3)
    for cause in ("base_weights", "quantization_state"):
        assert shared[cause] == pytest.approx(alone[cause] / 8, rel=1e-6)
    assert shared["embeddings_head_and_norms"] == alone["embeddings_head_and_norms"]
    layer = (alone["base_weights"] + alone["quantization_state"]) / 80
    assert shared["communication_buckets"] == pytest.approx(2 * layer, rel=1e-3)


@pytest.mark.parametrize("layers", [0, 1, 16, 32])
def test_more_tokens_take_more(layers: int) -> None:
    totals = [
        sum(bytes_by_cause("r1-distill-llama-8b", tokens, layers).values())
        for tokens in (1024, 2048, 4096, 8192, 16384, 32768)
    ]
    assert totals == sorted(set(totals))


def test_higher_rank_takes_more() -> None:
    totals = [
        sum(bytes_by_cause("r1-distill-llama-8b", 4096, 0, rank=rank).values())
        for rank in (1, 8, 16, 64, 1024)
    ]
    assert totals == sorted(set(totals))


def test_more_recompute_takes_less() -> None:
    totals = [
        sum(bytes_by_cause("r1-distill-llama-8b", 8192, layers).values()) for layers in range(1, 33)
    ]
    assert totals == sorted(totals, reverse=True)


def test_recomputed_mlps_take_less_and_whole_layers_still_less() -> None:
    mlps = [
        sum(bytes_by_cause("r1-distill-llama-8b", 8192, 0, mlps=n).values()) for n in range(1, 33)
    ]
    layers = [
        sum(bytes_by_cause("r1-distill-llama-8b", 8192, n, mlps=32 - n).values())
        for n in range(1, 33)
    ]
    assert mlps == sorted(mlps, reverse=True)
    assert layers == sorted(layers, reverse=True)
    assert layers[1] < mlps[-1]  # the first one needs room for what it computes again


@pytest.mark.parametrize("stages", [(0, 1), (1, 2)])
def test_higher_zero_stage_takes_less(stages: tuple[int, int]) -> None:
    low, high = (
        bytes_by_cause("r1-distill-llama-8b", 4096, 0, hardware="h100x8", stage=stage)
        for stage in stages
    )
    assert high["adapter_and_optimizer"] < low["adapter_and_optimizer"]


def test_a_long_example_goes_alone_and_counts() -> None:
    recipe = a_recipe("r1-distill-qwen-1.5b", "h100x1", data={"max_tokens": 8192})
    model, hardware = CATALOG.models[recipe.model], CATALOG.hardware["h100x1"]
    work = memory.workload(recipe, model, hardware)
    small, equal = (memory.gpu_memory(work, Execution(micro_batch_tokens=n)) for n in (1024, 8192))
    assert small == equal


def test_the_best_adapter_is_a_further_part_of_each_checkpoint() -> None:
    def work(**train: object) -> memory.Workload:
        settings = {"evaluate_every_steps": 5, "checkpoint_every_steps": 5, **train}
        data = {"split": {"validation_rows": 8}}
        recipe = a_recipe("deepseek-coder-1.3b", "t4x1", data=data, train=settings)
        return memory.workload(
            recipe, CATALOG.models["deepseek-coder-1.3b"], CATALOG.hardware["t4x1"]
        )

    last, best = memory.checkpoint(work()), memory.checkpoint(work(select="best"))
    assert (best - last) == 4 * work().adapter
    kept = memory.disk(work(keep_checkpoints=10))
    assert memory.disk(work(keep_checkpoints="all", max_steps=50)) == kept
    assert memory.disk(work(keep_checkpoints="all", max_steps=None)) == memory.disk(work())
