"""The section of a model card on the evaluation: who answered, what was measured, the gate.

Called by `card`. All of it is read from the report; of its questions and answers nothing is.
"""

from thinktune.schema.report import (
    BASE,
    PERPLEXITY,
    SHARE,
    TUNED,
    ArmFacts,
    BenchmarkResult,
    MetricResult,
    PairedTest,
    Report,
)
from thinktune.tasks.publish.source import Source


def evaluation(source: Source) -> str:
    """The section; it says so where there is no evaluation."""
    report = source.report
    if report is None:
        return "## Evaluation\n\nThis adapter has not been evaluated."
    parts = ["## Evaluation", _asked(report), _arms(report), _metrics(report)]
    if report.benchmarks:
        parts.append(_benchmarks(report))
    parts += [_gate(report), f"{report.rules.tests}"]
    return "\n\n".join(parts)


def _asked(report: Report) -> str:
    sampling = report.sampling
    times = report.samples_per_question
    drawn = "greedily" if sampling.temperature == 0 else (
        f"at temperature {sampling.temperature:g} and top_p {sampling.top_p:g}"
    )  # fmt: skip
    repeated = f", {times} answers to each" if times > 1 else ""
    return (
        f"{report.questions:,} held-out questions{repeated}, answered {drawn} in at most "
        f"{sampling.max_new_tokens:,} tokens. Answers were checked by the verifier "
        f"`{report.verifier.used}`."
    )


def _arms(report: Report) -> str:
    rows = [
        # Behind " at " stands the host of an endpoint, which stays private.
        [arm, facts.label, facts.precision, facts.engine.partition(" at ")[0], _cut_off(facts)]
        for arm, facts in report.arms.items()
    ]
    return _table(["arm", "who answers", "precision", "engine", "cut off"], rows)


def _cut_off(facts: ArmFacts) -> str:
    return _figure(1 - facts.finished, SHARE)


def _metrics(report: Report) -> str:
    arms = list(report.arms)
    rows = []
    for result in report.metrics.values():
        figures = [_figure(result.values.get(arm), result.unit) for arm in arms]
        rows.append([result.label, *figures, *_tested(result)])
    head = ["metric", *arms, f"{TUNED} − {BASE} (95% interval)", "p (Holm)", "outcome"]
    return _table(head, [row for row in rows if set(row[1 : len(arms) + 1]) != {"–"}])


def _tested(result: MetricResult) -> list[str]:
    test = result.test
    if test is None:
        return ["", "", ""]
    return [_difference(test, result.unit), f"{test.holm_p:.3g}", test.outcome]


def _difference(test: PairedTest, unit: str) -> str:
    low, high = test.ci95
    if unit == SHARE:
        points = 100 * test.difference
        return f"{points:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{test.difference:+.3g} ({low:+.3g} to {high:+.3g})"


def _benchmarks(report: Report) -> str:
    arms = list(report.arms)
    rows = [_benchmark(name, result, arms) for name, result in report.benchmarks.items()]
    head = ["benchmark", "questions", *arms, "p (Holm)", "training rows alike"]
    return _table(head, rows)


def _benchmark(name: str, result: BenchmarkResult, arms: list[str]) -> list[str]:
    test = result.tests.get(BASE)
    alike = result.training_rows_alike
    return [
        name,
        f"{result.questions:,}",
        *(_figure(result.accuracy.get(arm), SHARE) for arm in arms),
        "" if test is None else f"{test.holm_p:.3g}",
        "kept apart" if alike is None else f"{alike:,}",
    ]


def _gate(report: Report) -> str:
    if report.gate.promoted is None:
        return "The recipe requires nothing of these figures."
    rows = [
        [each.metric, each.arm, each.wanted, "met" if each.met else "**not met**"]
        for each in report.gate.requirements
    ]
    verdict = "passed" if report.gate.promoted else "**not passed**"
    return f"Requirements of the recipe: {verdict}.\n\n" + _table(
        ["metric", "arm", "required", ""], rows
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == SHARE:
        return f"{100 * value:.1f}%"
    return f"{value:.3f}" if unit == PERPLEXITY else f"{value:,.1f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |"
        for line in lines
    )
