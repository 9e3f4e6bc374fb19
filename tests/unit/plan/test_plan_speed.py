"""The speed model, against the probes it is fitted to, and the number of steps."""

import pytest
from planning import CATALOG, a_recipe

from thinktune.plan import memory, speed
from thinktune.spec.task import Execution


@pytest.mark.parametrize(
    ("model", "tokens", "layers", "mlps", "batch_size", "fp8", "tokens_per_s"),
    [
        ("r1-distill-qwen-1.5b", 16384, 0, 0, 64, False, 59_184),
        ("r1-distill-qwen-1.5b", 16384, 0, 0, 64, True, 62_381),
        ("r1-distill-qwen-1.5b", 8192, 8, 20, 64, False, 47_777),
        ("r1-distill-llama-8b", 16384, 0, 0, 32, False, 16_292),
        ("r1-distill-llama-8b", 16384, 0, 0, 32, True, 21_056),
        ("r1-distill-llama-8b", 8192, 12, 20, 32, False, 12_545),
        ("r1-distill-qwen-32b", 8192, 0, 36, 24, False, 3_644),
        ("r1-distill-qwen-32b", 8192, 0, 36, 24, True, 4_961),
        ("r1-distill-qwen-32b", 8192, 42, 22, 24, False, 3_229),
    ],
)
def test_measured_runs(
    model: str,
    tokens: int,
    layers: int,
    mlps: int,
    batch_size: int,
    fp8: bool,
    tokens_per_s: float,
) -> None:
    """Of benchmarks/gpu.py on an H100."""
    recipe = a_recipe(model, "h100x1", train={"batch_size": batch_size, "fp8": fp8})
    hardware = CATALOG.hardware["h100x1"]
    work = memory.workload(recipe, CATALOG.models[model], hardware)
    execution = Execution(micro_batch_tokens=tokens, recompute_layers=layers, recompute_mlps=mlps)
    found = speed.step_speed(work, hardware, execution, batch_size, 1000)
    assert found.tokens_per_s == pytest.approx(tokens_per_s, rel=0.06)


def test_zero_3_costs_half() -> None:
    recipe = a_recipe("r1-distill-llama-8b", "h200x2", train={"batch_size": 16})
    hardware = CATALOG.hardware["h200x2"]
    work = memory.workload(recipe, CATALOG.models[recipe.model], hardware)
    two, three = (
        speed.step_speed(
            work,
            hardware,
            Execution.parse(
                {"micro_batch_tokens": 8192, "recompute_layers": 32, "zero_stage": stage}, "test"
            ),
            16,
            1024,
        )
        for stage in (2, 3)
    )
    assert three.tokens_per_s / two.tokens_per_s == pytest.approx(3698 / 7509, rel=0.05)


def test_a_rank_without_an_example_speeds_nothing_up() -> None:
    four = a_recipe("r1-distill-llama-8b", "h100x4", train={"batch_size": 4})
    speeds = []
    for name in ("h100x4", "h100x8"):
        hardware = CATALOG.hardware[name]
        work = memory.workload(four, CATALOG.models[four.model], hardware)
        speeds.append(speed.step_speed(work, hardware, Execution(), 4, 1000).tokens_per_s)
    assert speeds[0] == speeds[1]


def test_steps_from_rows() -> None:
    medical = CATALOG.datasets["medical-o1-en"]
    recipe = a_recipe(
        "smollm2-135m",
        "cpu",
        data={"dataset": "medical-o1-en", "split": {"test_rows": 504}},
        train={"batch_size": 100, "epochs": 2},
    )
    assert speed.optimizer_steps(recipe, medical) == 2 * 192
    assert speed.optimizer_steps(recipe, None) is None


@pytest.mark.parametrize(
    ("data", "train", "steps"),
    [
        ({"sample_rows": 500}, {}, 32),
        ({"sample_rows": 500}, {"max_steps": 10}, 10),
        ({"sample_rows": 500}, {"max_steps": 100}, 32),
        ({}, {"max_steps": 100}, 100),
        ({"filters": [{"column": "a", "not_empty": True}]}, {}, None),
    ],
)
def test_steps(data: dict[str, object], train: dict[str, object], steps: int | None) -> None:
    recipe = a_recipe("smollm2-135m", "cpu", data=data, train=train)
    found = speed.optimizer_steps(recipe, CATALOG.datasets["medical-o1-en"] if data else None)
    assert found == steps
