"""What the speed model must say whatever was measured, and the number of steps."""

import pytest
from planning import CATALOG, a_recipe

from thinktune.plan.training import memory, speed
from thinktune.schema.task import Execution


def test_a_rank_without_an_example_speeds_nothing_up() -> None:
    four = a_recipe("r1-distill-llama-8b", "h100x4", train={"batch_size": 4})
    speeds = []
    for name in ("h100x4", "h100x8"):
        hardware = CATALOG.hardware[name]
        work = memory.workload(four, CATALOG.models[four.model], hardware)
        speeds.append(speed.step_speed(work, hardware, Execution(), 4, 1000).tokens_per_s)
    assert speeds[0] == pytest.approx(speeds[1], rel=0.01)  # a longer ring, a little more to send


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
