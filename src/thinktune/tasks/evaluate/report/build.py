"""From judged samples to the report. The stage calls `build_report`.

Which figures there are is known to the registry of metrics alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinktune.schema import manifest
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import (
    ArmFacts,
    BenchmarkResult,
    Gate,
    Histogram,
    MetricResult,
    Report,
    Rules,
    SamplingFacts,
    ShownAnswer,
    SideBySide,
    VerifierChoice,
)
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.gate import gate
from thinktune.tasks.evaluate.metrics.registry import Answers, Metric, Registry, Setup
from thinktune.tasks.evaluate.report.benchmarks import (
    Benchmark,
    as_metric,
    benchmark_figures,
    benchmark_metric,
    measured,
)
from thinktune.tasks.evaluate.report.comparing import (
    ByQuestion,
    by_question,
    paired_tests,
    precision_tests,
)
from thinktune.tasks.evaluate.report.wording import cut_off_sentences, usual_sentence
from thinktune.tasks.evaluate.samples import Judged, Question

BENCHMARK = "benchmark"
BINS = 24
"""Bars of the thinking-length histogram."""


@dataclass(frozen=True)
class ArmInfo:
    """One arm, before its answers are counted."""

    label: str
    engine: str
    engine_reason: str
    precision: str


def build_report(
    *,
    run: str,
    model: str,
    setup: Setup,
    arms: Mapping[str, ArmInfo],
    judged: Sequence[Judged],
    versions: Mapping[str, str],
    metrics: Registry,
    benchmarks: Mapping[str, Benchmark] | None = None,
) -> Report:
    """Puts together what report.json holds.

    `arms` are in the order in which people read them; `tuned` is one of them. Raises ValueError
    unless every question has samples of every arm, those of benchmarks too.
    """
    spec = setup.spec
    answers = by_question(judged, setup.questions, list(arms))
    applying = Registry(metric for metric in metrics if metric.applies(setup))
    of_benchmarks = {
        name: measured(benchmark, list(arms), setup, metrics["accuracy"])
        for name, benchmark in (benchmarks or {}).items()
    }
    results, of_benchmarks = _results(applying, answers, setup, of_benchmarks)
    facts = {name: _arm_facts(info, answers[name]) for name, info in arms.items()}
    return Report(
        headline=_headline(applying, results, facts, setup),
        run=run,
        model=model,
        questions=len(setup.questions),
        samples_per_question=spec.samples,
        sampling=SamplingFacts(
            temperature=spec.temperature,
            top_p=spec.top_p,
            max_new_tokens=spec.max_new_tokens,
            seed=spec.seed,
        ),
        marker=setup.marker,
        verifier=VerifierChoice(requested=spec.verifier, used=setup.verifier),
        arms=facts,
        gate=_gate(spec, results, of_benchmarks, metrics),
        metrics=results,
        benchmarks=of_benchmarks,
        thinking_lengths=_thinking_lengths(answers),
        rules=_rules(),
        side_by_side=_side_by_side(setup.questions, answers, spec),
        versions=dict(sorted(versions.items())),
    )


def manifest_metrics(report: Report) -> dict[str, manifest.MetricValue]:
    """The figures of a report that stand in the manifest of its artifact."""
    figures: dict[str, manifest.MetricValue] = {
        "questions": report.questions,
        "temperature": report.sampling.temperature,
        "top_p": report.sampling.top_p,
        "max_new_tokens": report.sampling.max_new_tokens,
    }
    if report.gate.promoted is not None:
        figures["promoted"] = report.gate.promoted
    if unmet := [each for each in report.gate.requirements if not each.met]:
        figures["not_promoted_because"] = "; ".join(
            f"{each.metric} of {each.arm} is not {each.wanted}" for each in unmet
        )
    for name, result in report.metrics.items():
        for arm, value in result.values.items():
            figures[f"{arm}_{name}"] = value
        if result.test is not None:
            figures[f"{name}_p"] = result.test.p
    return figures | benchmark_figures(report.benchmarks)


def _gate(
    spec: EvaluateSpec,
    results: Mapping[str, MetricResult],
    benchmarks: Mapping[str, BenchmarkResult],
    metrics: Registry,
) -> Gate:
    found = dict(results) | {
        benchmark_metric(name): as_metric(result, metrics["accuracy"])
        for name, result in benchmarks.items()
    }
    directions = {
        name: (found[name] if name in found else metrics[name]).direction for name in spec.require
    }
    return gate(spec.require, found, directions)


def _results(
    metrics: Registry,
    judged: Mapping[str, ByQuestion],
    setup: Setup,
    benchmarks: Mapping[str, BenchmarkResult],
) -> tuple[dict[str, MetricResult], dict[str, BenchmarkResult]]:
    """All figures, and those of the benchmarks, with Holm's adjustment over the tests of both."""
    results = {metric.name: _measured(metric, judged, setup) for metric in metrics}
    # Only now are all tests known that Holm's adjustment is over.
    tests = {
        (name, arm): (test, result.direction)
        for name, result in results.items()
        for arm, test in result.tests.items()
    } | {
        (f"{BENCHMARK} {name}", arm): (test, metrics["accuracy"].direction)
        for name, benchmark in benchmarks.items()
        for arm, test in benchmark.tests.items()
    }
    adjusted = statistics.adjusted(tests)
    found = {}
    for name, result in results.items():
        own = {arm: adjusted[name, arm] for arm in result.tests}
        result = result.model_copy(update={"tests": own})
        note = metrics[name].note
        found[name] = result.model_copy(update={"note": note(result) if note else None})
    of_benchmarks = {
        name: benchmark.model_copy(
            update={"tests": {arm: adjusted[f"{BENCHMARK} {name}", arm] for arm in benchmark.tests}}
        )
        for name, benchmark in benchmarks.items()
    }
    return found, of_benchmarks


def _measured(metric: Metric, judged: Mapping[str, ByQuestion], setup: Setup) -> MetricResult:
    """The metric's figures, and its tests before Holm's adjustment."""
    answers = {arm: list(of_arm.values()) for arm, of_arm in judged.items()}
    scores = {arm: metric.scores(of_arm) for arm, of_arm in answers.items()}
    scored = sum(
        any(score is not None for score in row) for row in zip(*scores.values(), strict=True)
    )
    described = metric.describe(setup)
    return MetricResult(
        label=described.label,
        direction=metric.direction,
        unit=metric.unit,
        source=metric.source,
        rule=described.rule,
        questions=scored,
        values={arm: metric.figure(answers[arm], scores[arm]) for arm in judged},
        tests=paired_tests(metric, answers, setup.spec) if metric.tested else {},
        precision_tests=precision_tests(metric, answers, setup.spec),
        details=_details(metric, answers),
        note=None,
        why_none=None if scored else described.why_none,
    )


def _details(
    metric: Metric, answers: Mapping[str, Sequence[Answers]]
) -> dict[str, dict[str, float | None]]:
    if metric.details is None:
        return {}
    by_arm = {arm: metric.details(of_arm) for arm, of_arm in answers.items()}
    parts = dict.fromkeys(part for found in by_arm.values() for part in found)
    return {part: {arm: found.get(part) for arm, found in by_arm.items()} for part in parts}


def _headline(
    metrics: Registry,
    results: Mapping[str, MetricResult],
    arms: Mapping[str, ArmFacts],
    setup: Setup,
) -> str:
    """The outcome: a sentence of each tested metric that has something to say, and of each arm
    whose answers were cut off too often for a fair comparison."""
    sentences = [
        metric.sentence(results[metric.name], setup)
        if metric.sentence
        else usual_sentence(results[metric.name])
        for metric in metrics
        if metric.tested and metric.in_headline
    ]
    sentences += cut_off_sentences(arms, setup.spec.max_new_tokens)
    return " ".join(sentence for sentence in sentences if sentence)


def _arm_facts(info: ArmInfo, judged: ByQuestion) -> ArmFacts:
    samples = [each.sample for answers in judged.values() for each in answers]
    return ArmFacts(
        label=info.label,
        engine=info.engine,
        engine_reason=info.engine_reason,
        precision=info.precision,
        samples=len(samples),
        finished=sum(sample.finished for sample in samples) / len(samples),
        tokens_median=float(np.median([sample.tokens for sample in samples])),
    )


def _thinking_lengths(judged: Mapping[str, ByQuestion]) -> Histogram:
    lengths = {
        arm: [
            each.thinking_tokens
            for answers in of_arm.values()
            for each in answers
            if each.parsed.opened
        ]
        for arm, of_arm in judged.items()
    }
    longest = max((length for found in lengths.values() for length in found), default=0)
    edges = np.linspace(0, max(longest, 1), BINS + 1)
    return Histogram(
        edges=tuple(round(float(edge), 1) for edge in edges),
        counts={a: tuple(np.histogram(found, edges)[0].tolist()) for a, found in lengths.items()},
    )


def _rules() -> Rules:
    return Rules(
        tests="All arms got the same questions, so the tests are paired. For a share with one "
        "answer to each question, the p-value is the exact McNemar test on the questions that only "
        "one of the two passes, two-sided; for other figures, the answers of the two are exchanged "
        "at random, question by question. Holm's adjustment over all tests decides what is called "
        "significant, at 5%.",
        interval="95% interval of the difference: paired bootstrap over questions, all answers to "
        f"a question together, {statistics.RESAMPLES:,} resamples, percentiles. Close to the "
        "border it can leave out 0 where the exact test does not reject; the test decides.",
        mde="Smallest difference that this many questions would show in 80% of repetitions, at "
        "the observed share of questions on which the two differ.",
        side_by_side="Drawn by a hash of the seed and the question's id, whatever the outcome.",
    )


def _side_by_side(
    questions: Sequence[Question], judged: Mapping[str, ByQuestion], spec: EvaluateSpec
) -> tuple[SideBySide, ...]:
    def draw(asked: Question) -> str:
        return hashlib.sha256(f"{spec.seed}:{asked.id}".encode()).hexdigest()

    return tuple(
        SideBySide(
            id=asked.id,
            question=asked.question,
            reference=asked.reference,
            reference_answer=asked.answer,
            answers={arm: shown(of_arm[asked.id][0]) for arm, of_arm in judged.items()},
        )
        for asked in sorted(questions, key=draw)[: spec.side_by_side]
    )


def shown(judged: Judged) -> ShownAnswer:
    """One answer for people to read."""
    return ShownAnswer(
        thinking=judged.parsed.thinking,
        thinking_tokens=judged.thinking_tokens,
        opened=judged.parsed.opened,
        closed=judged.parsed.closed,
        answer=judged.parsed.answer,
        final=judged.final,
        has_final_line=judged.has_final_line,
        extracted=judged.extracted,
        correct=judged.correct,
        tokens=judged.sample.tokens,
        finished=judged.sample.finished,
    )
