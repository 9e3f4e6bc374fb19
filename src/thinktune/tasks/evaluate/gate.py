"""Whether the tuned model may be served: the recipe's requirements against the report's figures.

Called by `report.build`. A figure that was not measured meets no requirement, nor does a comparison
over too few questions.
"""

from collections.abc import Iterable, Iterator, Mapping

from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.recipe import Requirement
from thinktune.schema.report import (
    TUNED,
    Direction,
    Gate,
    MetricResult,
    PairedTest,
    RequirementResult,
)
from thinktune.tasks.evaluate.metrics.registry import Registry
from thinktune.tasks.evaluate.statistics import FEW_QUESTIONS


def check_requirements(
    wanted: Mapping[str, Requirement], metrics: Registry, benchmarks: Iterable[str] = ()
) -> None:
    """Raises SpecInvalid for a metric that does not exist, or has no test to compare by.
    `benchmarks`: what the accuracies of the recipe's benchmarks are called."""
    known = {metric.name: metric for metric in metrics}
    for name in benchmarks:
        known[name] = metrics["accuracy"]
    for name, requirement in wanted.items():
        place = f"evaluate.require.{name}"
        if name not in known:
            raise SpecInvalid(place, f"there is no metric '{name}'", near_misses(name, known))
        if requirement.not_worse_by is not None and not known[name].tested:
            fault = f"{name} is not compared with the base model"
            raise SpecInvalid(place, fault, "give at_least or at_most")


def gate(
    wanted: Mapping[str, Requirement],
    results: Mapping[str, MetricResult],
    directions: Mapping[str, Direction],
) -> Gate:
    """The requirements, each for every precision of the tuned model."""
    found = [
        compared
        for name, requirement in wanted.items()
        for compared in _compared(name, requirement, results.get(name), directions[name])
    ]
    promoted = all(each.met for each in found) if found else None
    return Gate(promoted=promoted, requirements=tuple(found))


def _compared(
    name: str, wanted: Requirement, result: MetricResult | None, direction: Direction
) -> Iterator[RequirementResult]:
    values = {TUNED: None} if result is None else result.values
    for arm, value in values.items():
        if arm != TUNED and not arm.startswith(f"{TUNED}-"):
            continue
        if wanted.at_least is not None:
            met = value is not None and value >= wanted.at_least
            yield _requirement(name, arm, f"at least {wanted.at_least:g}", value, met)
        if wanted.at_most is not None:
            met = value is not None and value <= wanted.at_most
            yield _requirement(name, arm, f"at most {wanted.at_most:g}", value, met)
        if wanted.not_worse_by is not None:
            test = _against_base(result, arm)
            worst = None
            if test is not None and test.pairs >= FEW_QUESTIONS:
                worst = test.ci95[0] if direction == "higher" else -test.ci95[1]
            met = worst is not None and worst >= -wanted.not_worse_by
            words = f"at most {wanted.not_worse_by:g} worse than base, with 95% confidence"
            yield _requirement(name, arm, words, worst, met)


def _against_base(result: MetricResult | None, arm: str) -> PairedTest | None:
    """The test of the tuned model at one precision against the base model."""
    if result is None:
        return None
    return result.test if arm == TUNED else result.precision_tests.get(arm)


def _requirement(
    name: str, arm: str, wanted: str, value: float | None, met: bool
) -> RequirementResult:
    return RequirementResult(metric=name, arm=arm, wanted=wanted, value=value, met=met)
