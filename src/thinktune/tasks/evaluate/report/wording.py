"""Words and numbers for people: what the page and the terminal say of a report.

`build` puts the headline together from sentences, `page` shows the table and formats with the
functions here, and the stage prints `terminal_summary` at its end. Shares and their differences are
fractions of 1 in a report; people read them in percent.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    ShownAnswer,
)
from thinktune.tasks.evaluate import statistics
from thinktune.text.visible import printable

TERMINAL_WIDTH = 100
TERMINAL_SAMPLES = 3
ANSWER_CHARACTERS = 150
"""How much of an answer the terminal shows, from its end."""
CUT_OFF_SHARE = 0.05
"""More answers than this cut off are said in the headline."""
MINUS = "\N{MINUS SIGN}"


def percent(share: float | None) -> str:
    """0.0429 as `4.3%`."""
    return "–" if share is None else f"{100 * share:.1f}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed."""
    if difference is None:
        return "–"
    rounded = round(100 * difference, 1)
    return (f"{rounded:+.1f}" if rounded else "0.0").replace("-", MINUS) + " pp"


def p_value(p: float | None) -> str:
    """Three decimals, as papers print it."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(value: float | None) -> str:
    """A count or a median: thousands separated, one decimal where it says something."""
    if value is None:
        return "–"
    return f"{value:,.1f}" if abs(value) < 100 and value % 1 else f"{value:,.0f}"


def significant(test: PairedTest) -> bool:
    """Whether a test of the report rejects at 5%, adjusted for the number of tests."""
    return test.holm_p < statistics.ALPHA


def figure(value: float | None, unit: str) -> str:
    """A value in its unit."""
    if unit == PERPLEXITY and value is not None:
        return f"{value:,.3f}"
    return percent(value) if unit == SHARE else plain(value)


def usual_sentence(result: MetricResult) -> str:
    """What the headline says of a tested metric that has no sentence of its own."""
    test = result.test
    if test is None:
        return f"{result.label} was not measured: {result.why_none or 'no answer has a score'}."
    # Over the questions that the test is about: each arm may have a score of others besides.
    base, tuned = figure(test.other, result.unit), figure(test.tuned, result.unit)
    p = f"{test.method} p {_equals(test.p)}"
    if significant(test):
        moved = "rises" if test.difference > 0 else "falls"
        return f"{result.label} {moved} from {base} to {tuned}, more than chance explains ({p})."
    if base == tuned:
        return f"{result.label} is {tuned} for both models."
    few = ""
    if test.outcome == "too few questions":
        few = f", and {test.pairs} questions are too few to tell"
    difference = "a difference that chance can explain"
    return f"{result.label} is {tuned} against {base}, {difference} ({p}){few}."


def cut_off_sentences(arms: Mapping[str, ArmFacts], limit: int) -> list[str]:
    """Of arms whose answers the limit cut off too often for their figures to be their own."""
    return [
        f"The limit of {limit:,} tokens cut off {percent(1 - arm.finished)} of the answers of "
        f"{arm.label}, which may be why they lack what is asked."
        for arm in arms.values()
        if 1 - arm.finished > CUT_OFF_SHARE
    ]


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print."""

    label: str
    values: tuple[str, ...]
    """One for each arm."""
    difference: str
    """Tuned minus base."""
    p: str = ""
    """Of the test against the base; empty where no test was made."""
    test: PairedTest | None = None
    tests: Mapping[str, PairedTest] | None = None
    """Against every other arm, by its name."""


def table(report: Report) -> list[Row]:
    """What the page and the terminal show of all arms."""
    return [_row(result) for result in report.metrics.values() if result.why_none is None]


def _row(result: MetricResult) -> Row:
    base, tuned = result.values[BASE], result.values[TUNED]
    difference = None if base is None or tuned is None else tuned - base
    if result.test is not None:
        difference = result.test.difference
    values = tuple(figure(value, result.unit) for value in result.values.values())
    p = p_value(result.test.p) if result.test else ""
    return Row(result.label, values, signed(difference, result.unit), p, result.test, result.tests)


def signed(difference: float | None, unit: str) -> str:
    """A difference in its unit, with its sign."""
    if unit == SHARE:
        return points(difference)
    sign = "+" if difference is not None and difference > 0 else ""
    return (sign + figure(difference, unit)).replace("-", MINUS)


def terminal_summary(report: Report) -> str:
    """The outcome as plain text."""
    head = Row("", tuple(report.arms), "difference", "p")
    width = max(11, 2 + max(map(len, report.arms)))
    lines = [*textwrap.wrap(report.headline, TERMINAL_WIDTH)[:6], ""]
    for row in (head, *table(report)):
        values = "".join(f"{value:>{width}}" for value in row.values)
        lines.append(f"{row.label[:34]:<34}{values}{row.difference:>13}{row.p:>9}".rstrip())
    lines.append("difference and p: tuned against base, before Holm's adjustment")
    lines += _gate_lines(report)
    for name, benchmark in report.benchmarks.items():
        lines.append(f"{name}: {benchmark_sentence(benchmark)}")
    for shown in report.side_by_side[:TERMINAL_SAMPLES]:
        lines += ["", *_short("Q", shown.question, 1)]
        if shown.reference:
            lines += _short("reference", shown.reference, 1)
        for arm in (BASE, TUNED):
            lines += _short(arm, _said(shown.answers[arm]), 2)
    return "\n".join(lines)


def benchmark_sentence(result: BenchmarkResult) -> str:
    """The outcome of one benchmark."""
    base, tuned = result.accuracy[BASE], result.accuracy[TUNED]
    test = result.tests.get(BASE)
    if test is None:
        return "not measured"
    return (
        f"{percent(base)} of {plain(result.questions)} right for base, {percent(tuned)} for tuned "
        f"({points(test.difference)}, p {_equals(test.p)}: {test.outcome})"
    )


def benchmark_rows(
    result: BenchmarkResult, arms: Sequence[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """The table of one benchmark: a label, and a cell for each arm."""
    tests = [result.tests.get(arm) for arm in arms]
    rows = [
        ("Accuracy", [percent(result.accuracy[arm]) for arm in arms]),
        ("tuned minus this", [points(test.difference) if test else "" for test in tests]),
        ("p, Holm-adjusted", [p_value(test.holm_p) if test else "" for test in tests]),
        ("Nothing to compare found", [percent(result.unreadable.get(arm)) for arm in arms]),
        ("Answers cut off", [percent(result.cut_off.get(arm)) for arm in arms]),
        ("Tokens per answer, median", [plain(result.tokens_median.get(arm)) for arm in arms]),
    ]
    return [(label, tuple(cells)) for label, cells in rows]


def benchmark_notes(result: BenchmarkResult) -> list[str]:
    """What else there is to say of a benchmark."""
    notes = [f"{plain(result.questions)} questions, {result.source}.", result.rule]
    if result.training_rows_alike is not None:
        notes.append(
            f"{plain(result.training_rows_alike)} training rows are like one of the questions."
        )
    if result.verifier == "choice":
        notes.append(
            "Answers are generated, so the figures do not compare with published ones that come of "
            "the log-likelihood of each option."
        )
    return notes


def _gate_lines(report: Report) -> list[str]:
    unmet = [each for each in report.gate.requirements if not each.met]
    if not report.gate.requirements:
        return []
    if not unmet:
        return ["promoted: every requirement is met"]
    return [
        f"not promoted: {each.metric} of {each.arm} is {plain_or_none(each.value)}, "
        f"and not {each.wanted}"
        for each in unmet
    ]


def plain_or_none(value: float | None) -> str:
    """A figure of a requirement, as it was compared."""
    return "not measured" if value is None else f"{value:.3g}"


def _said(shown: ShownAnswer) -> str:
    verdict = {True: "[right] ", False: "[wrong] ", None: ""}[shown.correct]
    if not shown.closed:
        return f"{verdict}(the thinking never ends; {plain(shown.tokens)} tokens)"
    answer = " ".join(shown.answer.split()) or "(nothing)"
    if len(answer) <= ANSWER_CHARACTERS:
        return verdict + answer
    end = answer[-ANSWER_CHARACTERS:]  # where it says what it comes to
    return f"{verdict}… {end.partition(' ')[2] or end}"


def _short(label: str, text: str, lines: int) -> list[str]:
    first = f"  {label:<10}"
    return textwrap.wrap(
        printable(text),  # a model may write escape sequences
        TERMINAL_WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        max_lines=lines,
        placeholder=" …",
    )
