"""Precision, recall and F1 of labels, by hand."""

import pytest
from answers import judged, sample

from thinktune.tasks.evaluate.metrics.registry import Answers, Registry
from thinktune.text.labels import LabelList

METRICS = Registry.discover()
LABELS = LabelList("Violations:", ["a", "b", "c"], "none", {})


def answers(said: str, expected: str) -> Answers:
    return [judged(sample(f"Violations: {said}"), labels=LABELS, answer=f"Violations: {expected}")]


# True positives 3, false positives 2 (b, and x that is no label), false negatives 3.
QUESTIONS = [
    answers("a; b", "a"),
    answers("none", "none"),
    answers("c; x", "c; a"),
    [judged(sample("nothing to see"), labels=LABELS, answer="Violations: b; c")],
]


def figure(name: str) -> float | None:
    metric = METRICS[name]
    return metric.figure(QUESTIONS, metric.scores(QUESTIONS))


def test_micro_figures() -> None:
    assert figure("label_precision") == pytest.approx(3 / 5)
    assert figure("label_recall") == pytest.approx(3 / 6)
    assert figure("label_f1") == pytest.approx(2 * 3 / (2 * 3 + 2 + 3))
    assert figure("labels_unreadable") == pytest.approx(2 / 4)


def test_macro_is_the_mean_over_labels() -> None:
    details = METRICS["label_f1"].details
    assert details is not None
    # a: 1 right, 1 left; b: 1 wrong, 1 left; c: 1 right, 1 left; none: 1 right.
    assert details(QUESTIONS) == pytest.approx({"a": 2 / 3, "b": 0.0, "c": 2 / 3, "none": 1.0})
    assert figure("label_f1_macro") == pytest.approx((2 / 3 + 0 + 2 / 3 + 1) / 4)


def test_several_answers_to_a_question_count_as_one_document() -> None:
    metric = METRICS["label_f1"]
    two = [*answers("a", "a"), *answers("b", "a")]
    assert metric.contributions(two) == [0.5, 0.5, 0.5]
    assert metric.score([judged(sample("4"))]) is None
