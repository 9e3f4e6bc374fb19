"""Figures over several answers to one question."""

import pytest
from answers import judged, sample

from thinktune.tasks.evaluate.metrics.registry import Answers, Registry

METRICS = Registry.discover()


def drawn(*said: str, reference: str = "4") -> Answers:
    return [
        judged(sample(text, reference, number=n), None, "number") for n, text in enumerate(said)
    ]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (("4", "5", "4", "6"), 1.0),
        (("5", "5", "4", "4"), 0.0),  # equally frequent: the first
        (("4", "4", "5", "5"), 1.0),
        (("none", "none", "none", "4"), 1.0),  # nothing to compare
        (("none", "none"), 0.0),
        (("5", "8/2", "4.0", "5", "4"), 1.0),  # by value
    ],
)
def test_majority(said: tuple[str, ...], right: float) -> None:
    assert METRICS["accuracy_majority"].score(drawn(*said)) == right


def test_accuracy_is_the_mean_and_pass_at_k_draws_half() -> None:
    answers = drawn("4", "5", "6", "7")
    assert METRICS["accuracy"].score(answers) == 0.25
    assert METRICS["accuracy_pass_at_k"].score(answers) == pytest.approx(0.5)
    unmeasured = [judged(sample("4"))]
    assert METRICS["accuracy_majority"].score(unmeasured) is None
    assert METRICS["accuracy_pass_at_k"].score(unmeasured) is None


def test_a_right_number_that_was_given_up() -> None:
    flips = METRICS["flips"]
    given_up = judged(sample("<think>It is 4. No, wait.</think>5", "4"), None, "number")
    kept = judged(sample("<think>It is 4.</think>4", "4"), None, "number")
    elsewhere = judged(sample("<think>It is 14.</think>5", "4"), None, "number")
    assert flips.scores([[given_up], [kept], [elsewhere]]) == [1.0, 0.0, 0.0]
