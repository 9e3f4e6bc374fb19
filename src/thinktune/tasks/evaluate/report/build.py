"""From judged samples to the report. The stage calls `build_report`.

Which figures there are is known to the registry of metrics alone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from thinktune.schema import manifest
from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import (
    VARIANTS,
    Histogram,
    MetricResult,
    PairedTest,
    Report,
    Rules,
    SamplingFacts,
    ShownAnswer,
    SideBySide,
    Variant,
    VariantFacts,
    Verifier,
    VerifierChoice,
)
from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.metrics.registry import Metric, Registry, Setup
from thinktune.tasks.evaluate.report.wording import usual_sentence
from thinktune.tasks.evaluate.samples import Judged, Question, Sample
from thinktune.tasks.evaluate.verdicts import judge
from thinktune.text.verifiers import choose_verifier

BINS = 24
"""Bars of the thinking-length histogram."""

ByQuestion = dict[str, list[Judged]]
"""A model's judged samples by the question's id, in the order of the questions."""


def build_report(
    *,
    run: str,
    model: str,
    engine: str,
    spec: EvaluateSpec,
    marker: str | None,
    questions: Sequence[Question],
    samples: Sequence[Sample],
    count_tokens: Callable[[str], int],
    versions: Mapping[str, str],
    metrics: Registry,
) -> Report:
    """Judges all samples and puts together what report.json holds.

    Raises ValueError unless every question has samples of both models.
    """
    setup = Setup(spec, marker, _choose_verifier(spec, questions), questions)
    judged = _by_question(
        [judge(sample, marker, setup.verifier, count_tokens) for sample in samples], questions
    )
    results = _results(metrics, judged, setup)
    return Report(
        headline=_headline(metrics, results, setup),
        run=run,
        model=model,
        engine=engine,
        questions=len(questions),
        samples_per_question=spec.samples,
        sampling=SamplingFacts(
            temperature=spec.temperature,
            top_p=spec.top_p,
            max_new_tokens=spec.max_new_tokens,
            seed=spec.seed,
        ),
        marker=marker,
        verifier=VerifierChoice(requested=spec.verifier, used=setup.verifier),
        variants={variant: _variant_facts(judged[variant]) for variant in VARIANTS},
        metrics=results,
        thinking_lengths=_thinking_lengths(judged),
        rules=_rules(spec),
        side_by_side=_side_by_side(questions, judged, spec),
        versions=dict(sorted(versions.items())),
    )


def manifest_metrics(report: Report) -> dict[str, manifest.MetricValue]:
    """The figures of a report that stand in the manifest of its artifact."""
    figures: dict[str, manifest.MetricValue] = {"questions": report.questions}
    for name, result in report.metrics.items():
        for variant in VARIANTS:
            figures[f"{variant}_{name}"] = result.values[variant]
        if result.test is not None:
            figures[f"{name}_mcnemar_p"] = result.test.p_exact
    return figures


def _choose_verifier(spec: EvaluateSpec, questions: Sequence[Question]) -> Verifier:
    if spec.verifier == "auto":
        return choose_verifier([asked.reference for asked in questions])
    return spec.verifier


def _by_question(
    judged: Sequence[Judged], questions: Sequence[Question]
) -> dict[Variant, ByQuestion]:
    found: dict[Variant, ByQuestion] = {variant: defaultdict(list) for variant in VARIANTS}
    for each in sorted(judged, key=lambda judged: judged.sample.sample):
        found[each.sample.variant][each.sample.question_id].append(each)
    ids = [asked.id for asked in questions]
    for variant in VARIANTS:
        if not ids or set(found[variant]) != set(ids):
            raise ValueError(
                f"{len(found[variant])} {variant} of {len(ids)} questions have samples"
            )
    return {variant: {id_: found[variant][id_] for id_ in ids} for variant in VARIANTS}


def _results(
    metrics: Registry, judged: Mapping[Variant, ByQuestion], setup: Setup
) -> dict[str, MetricResult]:
    results = {metric.name: _measured(metric, judged, setup) for metric in metrics}
    # Only now are all tests known that Holm's adjustment is over.
    tested = [name for name, result in results.items() if result.test is not None]
    tests = [test for result in results.values() if (test := result.test) is not None]
    for name, test in zip(tested, statistics.holm_adjusted(tests), strict=True):
        results[name] = results[name].model_copy(update={"test": test})
    return {
        name: result.model_copy(update={"note": _note(metrics[name], result)})
        for name, result in results.items()
    }


def _measured(metric: Metric, judged: Mapping[Variant, ByQuestion], setup: Setup) -> MetricResult:
    """The metric's figures, and its test before Holm's adjustment."""
    answers = {variant: list(judged[variant].values()) for variant in VARIANTS}
    scores = {variant: metric.scores(answers[variant]) for variant in VARIANTS}
    scored = sum(
        any(score is not None for score in pair) for pair in zip(*scores.values(), strict=True)
    )
    described = metric.describe(setup)
    return MetricResult(
        label=described.label,
        direction=metric.direction,
        unit=metric.unit,
        source=metric.source,
        rule=described.rule,
        questions=scored,
        values={v: metric.figure(answers[v], scores[v]) for v in VARIANTS},
        test=_test(scores["base"], scores["tuned"], setup.spec.seed) if metric.tested else None,
        note=None,
        why_none=None if scored else described.why_none,
    )


def _test(
    base: Sequence[float | None], tuned: Sequence[float | None], seed: int
) -> PairedTest | None:
    pairs = [
        (of_base, of_tuned)
        for of_base, of_tuned in zip(base, tuned, strict=True)
        if of_base is not None and of_tuned is not None
    ]
    if not pairs:
        return None
    return statistics.paired_test(
        [of_base for of_base, _ in pairs], [of_tuned for _, of_tuned in pairs], seed=seed
    )


def _note(metric: Metric, result: MetricResult) -> str | None:
    return metric.note(result) if metric.note else None


def _headline(metrics: Registry, results: Mapping[str, MetricResult], setup: Setup) -> str:
    """The outcome: a sentence of each tested metric that has something to say."""
    sentences = [
        metric.sentence(results[metric.name], setup)
        if metric.sentence
        else usual_sentence(results[metric.name])
        for metric in metrics
        if metric.tested
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _variant_facts(judged: ByQuestion) -> VariantFacts:
    samples = [each.sample for answers in judged.values() for each in answers]
    return VariantFacts(
        samples=len(samples),
        finished=sum(sample.finished for sample in samples) / len(samples),
        tokens_median=float(np.median([sample.tokens for sample in samples])),
    )


def _thinking_lengths(judged: Mapping[Variant, ByQuestion]) -> Histogram:
    lengths = {
        variant: [
            each.thinking_tokens
            for answers in judged[variant].values()
            for each in answers
            if each.parsed.opened
        ]
        for variant in VARIANTS
    }
    longest = max((length for found in lengths.values() for length in found), default=0)
    edges = np.linspace(0, max(longest, 1), BINS + 1)
    return Histogram(
        edges=tuple(round(float(edge), 1) for edge in edges),
        counts={v: tuple(np.histogram(found, edges)[0].tolist()) for v, found in lengths.items()},
    )


def _rules(spec: EvaluateSpec) -> Rules:
    majority = (
        f" With {spec.samples} answers per question, a question passes where more than half of "
        "them do (a tie fails); means and intervals use all of them."
        if spec.samples > 1
        else ""
    )
    return Rules(
        tests="Both models got the same questions, so the tests are paired. The p-value is the "
        "exact McNemar test on the questions that only one of the two passes, two-sided; Holm's "
        "adjustment over the metrics decides what is called significant, at 5%." + majority,
        interval=f"95% interval of the difference: paired bootstrap over questions, "
        f"{statistics.RESAMPLES:,} resamples, percentiles. Close to the border it can leave out 0 "
        "where the exact test does not reject; the test decides.",
        mde="Smallest difference that this many questions would show in 80% of repetitions, at "
        "the observed share of questions on which the two differ.",
        side_by_side="Drawn by a hash of the seed and the question's id, whatever the outcome.",
    )


def _side_by_side(
    questions: Sequence[Question], judged: Mapping[Variant, ByQuestion], spec: EvaluateSpec
) -> tuple[SideBySide, ...]:
    def draw(asked: Question) -> str:
        return hashlib.sha256(f"{spec.seed}:{asked.id}".encode()).hexdigest()

    return tuple(
        SideBySide(
            id=asked.id,
            question=asked.question,
            reference=asked.reference,
            reference_answer=asked.answer,
            answers={variant: _shown(judged[variant][asked.id][0]) for variant in VARIANTS},
        )
        for asked in sorted(questions, key=draw)[: spec.side_by_side]
    )


def _shown(judged: Judged) -> ShownAnswer:
    return ShownAnswer(
        thinking=judged.parsed.thinking,
        thinking_tokens=judged.thinking_tokens,
        opened=judged.parsed.opened,
        closed=judged.parsed.closed,
        answer=judged.parsed.answer,
        final=judged.final,
        has_final_line=judged.has_final_line,
        correct=judged.correct,
        tokens=judged.sample.tokens,
        finished=judged.sample.finished,
    )
