"""What may be served: every precision, enough questions, figures that were measured."""

import pytest

from thinktune.schema.recipe import EvaluateSpec, LabelSpec, Requirement
from thinktune.schema.report import Gate, MetricResult, PairedTest
from thinktune.tasks.evaluate.gate import gate
from thinktune.tasks.evaluate.statistics import mcnemar_test

WANTED = {"accuracy": Requirement(not_worse_by=0.02)}


def compared(pairs: int, *, right: int) -> PairedTest:
    """The base has all right, the tuned model so many."""
    return mcnemar_test([1.0] * pairs, [1.0] * right + [0.0] * (pairs - right), seed=0)


def decided(own: PairedTest, other: PairedTest | None = None) -> Gate:
    arms = {"base": 1.0, "tuned": 1.0} | ({} if other is None else {"tuned-16bit": 0.1})
    result = MetricResult(
        label="Accuracy",
        direction="higher",
        unit="share",
        source="",
        rule="",
        questions=own.pairs,
        values=arms,
        tests={"base": own},
        precision_tests={} if other is None else {"tuned-16bit": other},
        note=None,
        why_none=None,
    )
    return gate(WANTED, {"accuracy": result}, {"accuracy": "higher"})


def test_each_precision_is_compared_with_the_base() -> None:
    good, bad = compared(100, right=100), compared(100, right=10)
    assert decided(good, good).promoted is True
    both = decided(good, bad)
    assert both.promoted is False
    met = {each.arm: each.met for each in both.requirements}
    assert met == {"tuned": True, "tuned-16bit": False}


def test_too_few_questions_show_nothing_though_all_are_alike() -> None:
    assert decided(compared(30, right=30)).promoted is True
    few = decided(compared(29, right=29))
    assert few.promoted is False
    assert few.requirements[0].value is None


def test_what_was_not_measured_meets_nothing() -> None:
    assert gate(WANTED, {}, {"accuracy": "higher"}).promoted is False
    assert gate({}, {}, {}).promoted is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"values": ["C", "C#"]}, "is there twice"),
        ({"values": ["a", "!"]}, "is nothing or"),
        ({"values": ["a"], "aliases": {"b": "c"}}, "is of 'c', which is no label"),
    ],
)
def test_labels_that_cannot_be_told_apart(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSpec.model_validate(settings)


def test_a_precision_named_twice() -> None:
    with pytest.raises(ValueError, match="names one twice"):
        EvaluateSpec.model_validate({"precisions": ["16bit", "16bit"]})
