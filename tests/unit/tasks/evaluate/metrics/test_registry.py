"""The list of metrics, and what it takes to add one."""

from pathlib import Path
from types import ModuleType

import pytest

from thinktune.schema.recipe import EvaluateSpec
from thinktune.tasks.evaluate import metrics
from thinktune.tasks.evaluate.metrics import accuracy, format_rate
from thinktune.tasks.evaluate.metrics.registry import (
    Description,
    Metric,
    Registry,
    Setup,
    share,
)


def metric(**other: object) -> Metric:
    given = {
        "name": "length",
        "order": 1,
        "direction": "lower",
        "unit": "characters",
        "source": "the generated text",
        "description": Description("Length", "It is counted."),
        "score": lambda answers: 1.0,
    }
    return Metric(**(given | other))  # type: ignore[arg-type]


def test_every_module_is_found_and_says_all_that_people_read() -> None:
    found = list(Registry.discover())
    assert found[0].name == "format_rate"
    own = {path.stem for path in Path(metrics.__path__[0]).glob("*.py")} - {"__init__", "registry"}
    assert len(found) == len(own)
    for marker in ("Final Answer:", None):
        for each in found:
            described = each.describe(Setup(EvaluateSpec(), marker, "none", []))
            assert described.label and described.rule.endswith(".")
            assert each.direction in ("higher", "lower", "neither")
            assert each.source and each.unit
    assert len({m.order for m in found}) == len(found)


def test_metrics_come_in_their_order() -> None:
    registry = Registry([metric(name="b", order=2), metric(name="a", order=1)])
    assert [m.name for m in registry] == ["a", "b"]
    assert [m.name for m in Registry.of_modules([accuracy, format_rate])] == [
        "format_rate",
        "accuracy",
    ]


def test_what_is_no_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="two metrics are called 'length'"):
        Registry([metric(), metric()])
    with pytest.raises(ValueError, match="use lower-case letters"):
        metric(name="Length of it")
    with pytest.raises(ValueError, match="a test needs a direction"):
        metric(tested=True, direction="neither")
    with pytest.raises(ValueError, match="a test needs a mean or a pooled figure"):
        metric(tested=True, value=lambda questions: 1.0)
    with pytest.raises(ValueError, match="nothing defines no METRIC"):
        Registry.of_modules([ModuleType("nothing")])


def test_a_question_with_an_answer_without_verdict_has_no_score() -> None:
    assert share([True, False, False, False]) == 0.25
    assert share([True, None]) is None
