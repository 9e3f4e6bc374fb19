"""What `thinktune data` shows on a terminal. Nothing in a row reaches it that it would obey."""

import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.recipes.compose import OWN_FILE
from thinktune.schema.data_check import (
    CheckReport,
    CheckRequest,
    ShownRow,
)
from thinktune.text.visible import printable

PART_CHARACTERS = 1_200
"""Of each part of a row that is shown on a terminal."""
CONTROL, REASONING = "magenta", "green"


def show_report(
    report: CheckReport, request: CheckRequest, recipe: str | None, overrides: tuple[str, ...]
) -> None:
    """All of a report: how rows are read, what is dropped, lengths, examples, settings."""
    console = Console(highlight=False)
    console.print(Text(line(f"{report.file}: {report.layout}"), "bold"))
    reasoning = f", {report.with_reasoning:,} of them with reasoning" if report.learned else ""
    dropped = sum(drop.count for drop in report.dropped)
    lost = f"; {dropped:,} {'row is' if dropped == 1 else 'rows are'} dropped" if dropped else ""
    console.print(f"{report.rows:,} rows: {report.learned:,} examples{reasoning}{lost}")
    _show_dropped(console, report)
    for note, count in report.notes.items():
        console.print(Text(line(f"  {note}: {count:,}")))
    _show_tokens(console, report, request)
    for number, row in enumerate(report.samples, start=1):
        show_row(console, f"example {number}", row)
    console.print()
    if report.refused:
        console.print(Text(line(f"prep would refuse this: {report.refused}"), "bold red"))
    else:
        _show_settings(console, report, recipe, overrides)


def _show_dropped(console: Console, report: CheckReport) -> None:
    if not report.dropped:
        return
    table = Table("dropped because", "rows", "first", "what to do", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for drop in report.dropped:
        first = Path(drop.examples[0]).name if drop.examples else ""
        cells = (drop.reason, f"{drop.count:,}", first, drop.remedy)
        table.add_row(*(Text(line(cell)) for cell in cells))
    console.print(table)


def _show_tokens(console: Console, report: CheckReport, request: CheckRequest) -> None:
    tokens = report.tokens
    if tokens is None:
        return
    by = (
        f"estimated, {tokens.tokenizer}" if tokens.estimated else f"tokenizer of {tokens.tokenizer}"
    )
    more = report.learned > tokens.measured_rows
    console.print(
        f"{'about ' if more or tokens.estimated else ''}{tokens.total:,} tokens ({by}"
        + (f", of the first {tokens.measured_rows:,} examples" if more else "")
        + f"): median {tokens.median:,.0f}, 95% up to {tokens.p95:,.0f}, longest {tokens.max:,}"
    )
    rule = "cut" if request.data.too_long == "truncate" else "dropped"
    cuts = [
        f"{count:,} ({count / tokens.measured_rows:.0%})" for count in tokens.longer_than.values()
    ]
    console.print(f"{rule} with data.max_tokens at 2,048, 4,096 or 8,192: {', '.join(cuts)}")


def show_row(console: Console, title: str, row: ShownRow) -> None:
    """One example, control text and reasoning in colors."""
    console.print()
    console.print(Text(line(f"{title}, {row.id} ({row.tokens:,} tokens)"), "bold"))
    text = Text()
    for piece, control in row.prompt:
        text.append(clean(piece), CONTROL if control else "")
    console.print(text)
    console.print(Text("── learned from here on", "dim"))
    text = Text()
    text.append(clean(row.reasoning), REASONING)
    text.append(clean(row.answer))
    text.append(clean(row.end), CONTROL)
    console.print(text)


def _show_settings(
    console: Console, report: CheckReport, recipe: str | None, overrides: tuple[str, ...]
) -> None:
    settings = {
        "data.dataset": OWN_FILE,
        # A file's own text is quoted as JSON, which YAML reads; no terminal obeys that.
        "data.path": json.dumps(report.file),
        **dict(each.split("=", 1) for each in overrides if "=" in each),
        **report.settings,
    }
    if recipe is None:  # what recipes for other data say of their answers
        settings = {"data.answer": "'{answer}'", "data.final_answer": "null", **settings}
    console.print(Text("for a recipe:", "bold"))
    console.print("  data:")
    for name, value in settings.items():
        if name.startswith("data.") and name.count(".") == 1:
            console.print(Text(f"    {name.removeprefix('data.')}: {value}"), soft_wrap=True)
    columns = {k: v for k, v in settings.items() if k.startswith("data.columns.")}
    if columns:
        inside = ", ".join(f"{name.rpartition('.')[2]}: {value}" for name, value in columns.items())
        console.print(Text(f"    columns: {{{inside}}}"), soft_wrap=True)
    sets = (f"--set {shlex.quote(f'{name}={value}')}" for name, value in settings.items())
    console.print(Text("or on the command line:", "bold"))
    console.print(Text(f"  thinktune run {recipe or 'RECIPE'} {' '.join(sets)}"), soft_wrap=True)


def line(text: str) -> str:
    """On one line, without what a terminal would obey."""
    return printable(" ".join(text.split()))


def clean(text: str) -> str:
    """A row's text in its lines, cut to what a terminal can take in."""
    if len(text) > PART_CHARACTERS:
        left = len(text) - PART_CHARACTERS
        half = PART_CHARACTERS // 2
        text = f"{text[:half]} … {left:,} characters … {text[-half:]}"
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))
