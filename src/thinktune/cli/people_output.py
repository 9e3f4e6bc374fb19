"""What `thinktune evaluate sheet` and `agreement` show on a terminal. Nothing that stands in a
person's file reaches it that it would obey."""

import textwrap
from collections.abc import Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.data_output import line
from thinktune.schema.ratings import (
    HIGHEST,
    LOWEST,
    AgreementReport,
    JudgeAgreement,
    RatingsReport,
    SheetProblem,
)
from thinktune.schema.report import PairedTest

SHOWN_ROWS = 12
WIDTH = 100


def show_ratings(report: RatingsReport) -> None:
    """All of a report: the people, the arms, the tests, the agreement, what does not count."""
    console = Console(highlight=False)
    people = Table("", "rated", "not rated", "mean", box=None, pad_edge=False)
    for rater in report.raters:
        cells = (str(rater.rated), str(rater.unrated), _mean(rater.mean))
        people.add_row(Text(line(rater.file)), *cells)
    _right(people)
    console.print(people)
    console.print()
    values = [str(value) for value in range(LOWEST, HIGHEST + 1)]
    arms = Table("", "answers", "mean", "95%", *values, box=None, pad_edge=False)
    for arm, facts in report.arms.items():
        counts = map(str, facts.counts)
        arms.add_row(arm, str(facts.answers), _mean(facts.mean), _interval(facts.ci95), *counts)
    _right(arms)
    console.print(arms)
    console.print()
    for other, test in report.tests.items():
        _say(_test(report.compared or "", other, test))
    agreed = report.agreement
    if agreed.alpha is None:
        _say(f"agreement of the people: none. {agreed.meaning}")
    else:
        _say(
            f"agreement of the people: α {agreed.alpha:.2f} (95%: {_interval(agreed.ci95)}), over "
            f"{agreed.answers} answers that two or more rated. {agreed.meaning}"
        )
    _show_rest(report.notes, report.problems, report.rows)


def show_agreement(report: AgreementReport) -> None:
    """All of a report: figures and tables of each kind of verdict, and what does not count."""
    for file, count in report.labels.items():
        click.echo(f"{line(file)}: {count} labels")
    if report.correct is not None:
        _show_judge("whether answers are correct", report.correct)
    if report.rating is not None:
        _show_judge("ratings", report.rating)
    _show_rest(report.notes, report.problems, report.rows)


def _show_judge(title: str, found: JudgeAgreement) -> None:
    click.echo()
    name = "κ" if found.weights == "none" else "quadratic κ"
    kappa = "not defined" if found.kappa is None else f"{found.kappa:.2f}"
    interval = f" (95%: {_interval(found.ci95)})" if found.ci95 is not None else ""
    _say(
        f"{title}: {name} {kappa}{interval}, the same in {_percent(found.agreement)} of "
        f"{found.pairs} answers to {found.questions} questions"
    )
    if found.pairs:
        by_arm = (f"{arm} {_percent(share)}" for arm, share in found.by_arm.items())
        _say(f"the same, by arm: {', '.join(by_arm)}")
    if found.no_verdict:
        _say(f"left out, because the judge has no verdict on them: {found.no_verdict}")
    table = Table("people ↓  judge →", *found.labels, box=None, pad_edge=False)
    for label, row in zip(found.labels, found.table, strict=True):
        table.add_row(label, *map(str, row))
    _right(table)
    Console(highlight=False).print(table)


def _show_rest(
    notes: Sequence[str], problems: Mapping[str, int], rows: Sequence[SheetProblem]
) -> None:
    for note in notes:
        _say(f"note: {note}")
    if not problems:
        return
    click.echo("rows that do not count:")
    for problem, count in problems.items():
        click.echo(f"  {count:>6}  {problem}")
    for row in rows[:SHOWN_ROWS]:
        id_ = f" ({line(row.id)})" if row.id else ""
        click.echo(f"  {line(row.file)} row {row.row}{id_}: {row.problem}: {line(row.said)!r}")
    if len(rows) > SHOWN_ROWS:
        click.echo(f"  and {len(rows) - SHOWN_ROWS} more; --output json has all of them")


def _test(compared: str, other: str, test: PairedTest) -> str:
    p = "< 0.001" if test.holm_p < 0.001 else f"= {test.holm_p:.3f}"
    low, high = (f"{end:+.2f}" for end in test.ci95)
    return (
        f"{compared} against {other}: {test.difference:+.2f} (95%: {low} to {high}), "
        f"p {p} ({test.method}, {test.pairs} questions): {test.outcome}"
    )


def _say(text: str) -> None:
    """In lines that hang together on a terminal."""
    click.echo(textwrap.fill(line(text), WIDTH, subsequent_indent="  "))


def _right(table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _interval(ci95: tuple[float, float] | None) -> str:
    return "–" if ci95 is None else f"{ci95[0]:.2f} to {ci95[1]:.2f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"
