"""The figures of benchmarks: what `build` puts into a report beside the held-out questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thinktune.schema.benchmark import BenchmarkSpec
from thinktune.schema.manifest import MetricValue
from thinktune.schema.report import BASE, BenchmarkResult, MetricResult, Verifier
from thinktune.tasks.evaluate.metrics.registry import Answers, Metric, Setup
from thinktune.tasks.evaluate.report.comparing import (
    ByQuestion,
    by_question,
    paired_tests,
    precision_tests,
)
from thinktune.tasks.evaluate.samples import Judged, Question
from thinktune.text.verifiers import CHECK_RULES

HELD_OUT_RULE = "Accuracy over these held-out questions, as above."


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The judged answers of all arms to a benchmark."""

    spec: BenchmarkSpec
    source: str
    """Where its questions are from, with the revision."""
    verifier: Verifier
    questions: Sequence[Question]
    judged: Sequence[Judged]
    training_rows_alike: int | None
    """Training rows that are like one of its questions; None where nobody looked."""


def measured(
    benchmark: Benchmark, arms: Sequence[str], setup: Setup, accuracy: Metric
) -> BenchmarkResult:
    """The figures, with tests before Holm's adjustment. Raises ValueError unless every question has
    samples of every arm."""
    if not benchmark.questions:
        return _nothing(benchmark, arms)
    answers = by_question(benchmark.judged, benchmark.questions, arms)
    own = replace(setup, verifier=benchmark.verifier, questions=benchmark.questions)
    lists: dict[str, list[Answers]] = {arm: list(of.values()) for arm, of in answers.items()}
    scores = {arm: accuracy.scores(each) for arm, each in lists.items()}
    return BenchmarkResult(
        source=benchmark.source,
        questions=len(benchmark.questions),
        verifier=benchmark.verifier,
        accuracy={arm: accuracy.figure(lists[arm], scores[arm]) for arm in arms},
        tests=paired_tests(accuracy, lists, own.spec),
        precision_tests=precision_tests(accuracy, lists, own.spec),
        cut_off={arm: _share(answers[arm], lambda each: not each.sample.finished) for arm in arms},
        unreadable={arm: _share(answers[arm], _unreadable) for arm in arms},
        tokens_median={arm: _median(answers[arm]) for arm in arms},
        training_rows_alike=benchmark.training_rows_alike,
        rule=HELD_OUT_RULE if benchmark.spec.groups else CHECK_RULES[benchmark.verifier],
    )


def benchmark_metric(name: str) -> str:
    """What a benchmark's accuracy is called among the metrics: in the manifest, and in
    `evaluate.require`."""
    return f"{name.replace('-', '_')}_accuracy"


def as_metric(result: BenchmarkResult, accuracy: Metric) -> MetricResult:
    """The accuracy as the gate compares it."""
    return MetricResult(
        label=accuracy.name,
        direction=accuracy.direction,
        unit=accuracy.unit,
        source=result.source,
        rule=result.rule,
        questions=result.questions,
        values=result.accuracy,
        tests=result.tests,
        precision_tests=result.precision_tests,
        note=None,
        why_none=None,
    )


def benchmark_figures(results: Mapping[str, BenchmarkResult]) -> dict[str, MetricValue]:
    """The figures that stand in the manifest of a report's artifact."""
    figures: dict[str, MetricValue] = {}
    for name, result in results.items():
        key = benchmark_metric(name)
        figures |= {f"{arm}_{key}": value for arm, value in result.accuracy.items()}
        figures[f"{name.replace('-', '_')}_questions"] = result.questions
        if (test := result.tests.get(BASE)) is not None:
            figures[f"{key}_p"] = test.p
    return figures


def _nothing(benchmark: Benchmark, arms: Sequence[str]) -> BenchmarkResult:
    """Of a benchmark of groups that no question has which was asked."""
    return BenchmarkResult(
        source=benchmark.source,
        questions=0,
        verifier=benchmark.verifier,
        accuracy=dict.fromkeys(arms),
        tests={},
        cut_off={},
        unreadable={},
        tokens_median={},
        training_rows_alike=None,
        rule="No question that was asked is among them.",
    )


def _unreadable(each: Judged) -> bool:
    return each.correct is not None and each.extracted is None


def _share(answers: ByQuestion, passes: Callable[[Judged], bool]) -> float:
    verdicts = [passes(each) for of_question in answers.values() for each in of_question]
    return sum(verdicts) / len(verdicts)


def _median(answers: ByQuestion) -> float:
    lengths = [each.sample.tokens for of_question in answers.values() for each in of_question]
    return float(np.median(lengths))
