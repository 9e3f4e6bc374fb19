"""The learning rate of each step: a rise, then the schedule."""

import pytest

from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.train.learning_rate import learning_rate


def rates(schedule: str, warmup: float = 0.1, steps: int = 20) -> list[float]:
    train = TrainSpec.parse(
        {"batch_size": 1, "lr": 1e-3, "schedule": schedule, "warmup": warmup}, "x"
    )
    return [learning_rate(train, step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_it_rises_and_then_follows_the_schedule(schedule: str) -> None:
    found = rates(schedule)
    assert found[:2] == [5e-4, 1e-3]
    assert max(found) == 1e-3
    assert found[2:] == sorted(found[2:], reverse=True)
    assert all(rate > 0 for rate in found)


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert rates("cosine", warmup=0)[10] == pytest.approx(5e-4)
    assert rates("linear", warmup=0)[15] == pytest.approx(2.5e-4)
    assert set(rates("constant", warmup=0)) == {1e-3}
