"""Words and numbers for people: what the page and the terminal say of a report.

`report` calls `headline`, `page` shows the table and formats with the functions here, and the
stage prints `terminal_summary` at its end. Rates, accuracies and differences are fractions of 1
in a report; people read them in percent.
"""

import textwrap
from dataclasses import dataclass
from typing import Any

from thinktune.tasks.evaluate import statistics
from thinktune.tasks.evaluate.samples import VARIANTS

Report = dict[str, Any]
"""What report.json holds, or a part of it; `report` describes its shape."""

TERMINAL_WIDTH = 100
TERMINAL_SAMPLES = 3
SHARES = {
    "Thinking never ends": "truncated",
    "Empty think part": "empty",
    "No think part": "absent",
    "Loops": "loops",
}
COUNTS = {
    "Thinking tokens, median": "tokens_median",
    "Thinking tokens, 95th percentile": "tokens_p95",
    "Reflection markers per 1k tokens": "reflections_per_1k",
}
"""Rows of the table and the figures of `thinking` that they show."""


def percent(share: float | None) -> str:
    """0.0429 as `4.3 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed."""
    if difference is None:
        return "–"
    rounded = round(100 * difference, 1)
    return (f"{rounded:+.1f}" if rounded else "0.0").replace("-", "\N{MINUS SIGN}") + " pp"


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


def significant(test: Report) -> bool:
    """Whether a test of report.json rejects at 5 %, adjusted for the number of metrics."""
    return bool(test["holm_p"] < statistics.ALPHA)


def headline(report: Report) -> str:
    """The outcome in two or three sentences."""
    base, tuned = report["variants"]["base"], report["variants"]["tuned"]
    presence, accuracy = report["tests"]["presence"], report["tests"]["accuracy"]
    said = []
    if presence:
        doubt = "" if significant(presence) else ", a difference that chance can explain"
        said.append(
            f"The tuned model writes its “{report['marker']}” line in "
            f"{percent(tuned['presence'])} of its answers, the base model in "
            f"{percent(base['presence'])}{doubt}."
        )
    if accuracy:
        said.append(_accuracy_sentence(accuracy, base["accuracy"], tuned["accuracy"]))
    else:
        said.append(
            f"Accuracy was not measured: {report['verifier']['why_none'] or 'no verdicts'}."
        )
    return " ".join(said)


def _accuracy_sentence(test: Report, base: float, tuned: float) -> str:
    difference, p = test["difference"], f"exact McNemar p {_equals(test['p_exact'])}"
    if significant(test):
        moved = "rises" if difference > 0 else "falls"
        return (
            f"Accuracy {moved} from {percent(base)} to {percent(tuned)}, more than chance "
            f"explains ({p})."
        )
    few = "" if test["mde"] else f", and {test['pairs']} questions are too few to tell"
    return (
        f"Accuracy is {percent(tuned)} against {percent(base)}, a difference that chance can "
        f"explain ({p}){few}."
    )


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
    metric: str | None = None
    """Key in `tests`, where a test was made."""


def table(report: Report) -> list[Row]:
    """What the page and the terminal show of base against tuned."""
    base, tuned = report["variants"]["base"], report["variants"]["tuned"]
    rows = []
    for name, label in (("presence", f"“{report['marker']}” present"), ("accuracy", "Accuracy")):
        if test := report["tests"][name]:
            cells = percent(base[name]), percent(tuned[name]), points(test["difference"])
            rows.append(Row(label, *cells, p_value(test["p_exact"]), name))
    for label, key in SHARES.items():
        b, t = base["thinking"][key], tuned["thinking"][key]
        rows.append(Row(label, percent(b), percent(t), points(t - b)))
    for label, key in COUNTS.items():
        b, t = base["thinking"][key], tuned["thinking"][key]
        change = "–" if b is None or t is None else ("+" if t > b else "") + plain(t - b)
        rows.append(Row(label, plain(b), plain(t), change.replace("-", "\N{MINUS SIGN}")))
    return rows


def terminal_summary(report: Report) -> str:
    """The outcome in at most 40 lines of plain text."""
    rows = [Row("", "base", "tuned", "difference", "exact p"), *table(report)]
    lines = [*textwrap.wrap(report["headline"], TERMINAL_WIDTH)[:5], ""]
    lines += [
        f"{r.label:<36}{r.base:>11}{r.tuned:>11}{r.difference:>13}{r.p:>11}".rstrip() for r in rows
    ]
    lines.append("p: exact McNemar test, paired by question, before Holm's adjustment")
    for shown in report["side_by_side"][:TERMINAL_SAMPLES]:
        lines += ["", *_short("Q", shown["question"], 1)]
        if shown["reference"]:
            lines += _short("reference", shown["reference"], 1)
        for variant in VARIANTS:
            lines += _short(variant, _said(shown[variant]), 2)
    return "\n".join(lines)


def _said(shown: Report) -> str:
    verdict = {True: "[right] ", False: "[wrong] ", None: ""}[shown["correct"]]
    if not shown["closed"]:
        return f"{verdict}(the thinking never ends; {plain(shown['tokens'])} tokens)"
    answer = " ".join(shown["answer"].split()) or "(nothing)"
    if len(answer) <= 150:
        return verdict + answer
    end = answer[-150:]  # where it says what it comes to
    return f"{verdict}… {end.partition(' ')[2] or end}"


def _short(label: str, text: str, lines: int) -> list[str]:
    # Model text may hold escape sequences; a terminal must not obey them.
    printable = "".join(c if c.isprintable() else " " for c in text)
    first = f"  {label:<10}"
    return textwrap.wrap(
        printable,
        TERMINAL_WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        max_lines=lines,
        placeholder=" …",
    )
