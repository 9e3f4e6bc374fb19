"""Words and numbers for people: what the page and the terminal say of a report.

`build` calls `headline`, `page` shows the table and formats with the functions here, and the
stage prints `terminal_summary` at its end. Shares and their differences are fractions of 1 in a
report; people read them in percent.
"""

import textwrap
from dataclasses import dataclass

from thinktune.schema.report import SHARE, VARIANTS, MetricResult, PairedTest, Report, ShownAnswer
from thinktune.tasks.evaluate import statistics
from thinktune.text.visible import printable

TERMINAL_WIDTH = 100
TERMINAL_SAMPLES = 3
ANSWER_CHARACTERS = 150
"""How much of an answer the terminal shows, from its end."""
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


def usual_sentence(result: MetricResult) -> str:
    """What the headline says of a tested metric that has no sentence of its own."""
    base = percent(result.values["base"])
    tuned = percent(result.values["tuned"])
    test = result.test
    if test is None:
        return f"{result.label} was not measured: {result.why_none or 'no answer has a score'}."
    p = f"exact McNemar p {_equals(test.p_exact)}"
    if significant(test):
        moved = "rises" if test.difference > 0 else "falls"
        return f"{result.label} {moved} from {base} to {tuned}, more than chance explains ({p})."
    few = "" if test.mde else f", and {test.pairs} questions are too few to tell"
    difference = "a difference that chance can explain"
    return f"{result.label} is {tuned} against {base}, {difference} ({p}){few}."


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


@dataclass(frozen=True)
class Row:
    """One line of the table, ready to print."""

    label: str
    base: str
    tuned: str
    difference: str
    p: str = ""
    """Exact McNemar p; empty where no test was made."""
    test: PairedTest | None = None


def table(report: Report) -> list[Row]:
    """What the page and the terminal show of base against tuned."""
    return [_row(result) for result in report.metrics.values() if result.why_none is None]


def _row(result: MetricResult) -> Row:
    base = result.values["base"]
    tuned = result.values["tuned"]
    difference = None if base is None or tuned is None else tuned - base
    if result.unit == SHARE:
        if result.test is not None:
            difference = result.test.difference
        cells = percent(base), percent(tuned), points(difference)
    else:
        sign = "+" if difference is not None and difference > 0 else ""
        cells = plain(base), plain(tuned), (sign + plain(difference)).replace("-", MINUS)
    p = p_value(result.test.p_exact) if result.test else ""
    return Row(result.label, *cells, p, result.test)


def terminal_summary(report: Report) -> str:
    """The outcome in at most 40 lines of plain text."""
    rows = [Row("", "base", "tuned", "difference", "exact p"), *table(report)]
    lines = [*textwrap.wrap(report.headline, TERMINAL_WIDTH)[:5], ""]
    lines += [
        f"{row.label:<36}{row.base:>11}{row.tuned:>11}{row.difference:>13}{row.p:>11}".rstrip()
        for row in rows
    ]
    lines.append("p: exact McNemar test, paired by question, before Holm's adjustment")
    for shown in report.side_by_side[:TERMINAL_SAMPLES]:
        lines += ["", *_short("Q", shown.question, 1)]
        if shown.reference:
            lines += _short("reference", shown.reference, 1)
        for variant in VARIANTS:
            lines += _short(variant, _said(shown.answers[variant]), 2)
    return "\n".join(lines)


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
