"""report.md: the outcome as a table that a pull request shows."""

from thinktune.schema.report import BenchmarkResult, Report
from thinktune.tasks.evaluate.report.wording import (
    benchmark_notes,
    benchmark_rows,
    benchmark_sentence,
    p_value,
    percent,
    plain_or_none,
    signed,
    table,
)
from thinktune.text.visible import printable


def markdown(report: Report) -> str:
    """Headline, requirements, tests and figures in GitHub's Markdown."""
    lines = [f"## Evaluation of {_cell(report.run)}", "", _cell(report.headline), ""]
    if report.gate.requirements:
        verdict = "Promoted" if report.gate.promoted else "**Not promoted**"
        lines += [f"{verdict}:", ""]
        for each in report.gate.requirements:
            met = "met" if each.met else "**not met**"
            value = plain_or_none(each.value)
            lines.append(f"- `{each.metric}` of {each.arm}: {value}; wanted {each.wanted}; {met}")
        lines.append("")
    lines += _row(["", *report.arms, "tuned − base", "95%", "p", "outcome"])
    lines += _row(["---", *["---:"] * (len(report.arms) + 3), "---"])
    results = [result for result in report.metrics.values() if result.why_none is None]
    for row, result in zip(table(report), results, strict=True):
        test = result.test
        interval = " to ".join(signed(end, result.unit) for end in test.ci95) if test else ""
        p = p_value(test.p) if test else ""
        outcome = test.outcome if test else ""
        lines += _row([row.label, *row.values, row.difference, interval, p, outcome])
    cut = [percent(1 - arm.finished) for arm in report.arms.values()]
    lines += _row(["Answers cut off", *cut, "", "", "", ""])
    asked = f"{report.questions} held-out questions, {report.samples_per_question} answer(s) each"
    arms = "; ".join(f"{arm.label} ({arm.precision})" for arm in report.arms.values())
    lines += ["", f"{asked}. Arms: {arms}.", ""]
    for name, benchmark in report.benchmarks.items():
        lines += [*_benchmark(name, benchmark, list(report.arms)), ""]
    return "\n".join(lines)


def _benchmark(name: str, result: BenchmarkResult, arms: list[str]) -> list[str]:
    """The section of one benchmark."""
    lines = [f"### {_cell(name)}", "", f"{_cell(benchmark_sentence(result))}.", ""]
    lines += _row(["", *arms]) + _row(["---", *["---:"] * len(arms)])
    for label, values in benchmark_rows(result, arms):
        lines += _row([label, *values])
    return [*lines, "", " ".join(benchmark_notes(result))]


def _row(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(_cell(cell) for cell in cells) + " |"]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")
