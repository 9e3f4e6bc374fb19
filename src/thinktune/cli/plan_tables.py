"""`thinktune plan --all-hardware`: a table; and what the tables of the plan have in common.

Called by `plan`, `plan_run` and `plan_actual`.
"""

import json
import textwrap
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.options import own_jobs, read
from thinktune.launch.runs import compare_hardware
from thinktune.plan.training.comparison import OnHardware
from thinktune.recipes.compose import recipe_names
from thinktune.schema.catalog import GIB

SCALED = "~: not measured, but scaled by published peak rates from runs on other or fewer GPUs."


def show_hardware(
    recipe: str | None, overrides: tuple[str, ...], console: Console, *, as_json: bool
) -> None:
    """Prints one recipe, or all of them, on every hardware entry that it fits."""
    names = [recipe] if recipe else recipe_names(own_jobs())
    rows = [row for name in names for row in compare_hardware(*read(name, overrides))]
    if as_json:
        click.echo(json.dumps([row.model_dump() for row in rows], indent=1))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("recipe", "hardware"):
        table.add_column(title, no_wrap=True)
    for title in ("GiB per GPU", "ZeRO", "tokens/s", "time", "GPU hours"):
        table.add_column(title, justify="right", no_wrap=True)
    before = None
    for row in rows:
        name, before = ("" if row.recipe == before else row.recipe), row.recipe
        table.add_row(name, row.hardware, *_figures(row))
    console.print(table, soft_wrap=True)
    console.print(Text(SCALED, style="dim"), soft_wrap=True)


def _figures(row: OnHardware) -> tuple[str, ...]:
    mark = "" if row.measured else "~"
    return (
        f"{row.gpu_total_bytes / GIB:.0f} of {row.gpu_capacity_bytes / GIB:.0f}",
        str(row.zero_stage),
        f"{mark}{row.tokens_per_s:,.0f}",
        "?" if row.hours is None else f"{mark}{hours(row.hours)}",
        "?" if row.gpu_hours is None else f"{mark}{row.gpu_hours:.2f}",
    )


def hours(value: float) -> str:
    """`0.05` → `3 min`, `2.34` → `2.3 h`."""
    return f"{value:.1f} h" if value >= 1 else f"{max(1, round(value * 60))} min"


def show_sentences(title: str, sentences: Sequence[str], console: Console) -> None:
    """Prints sentences below a title."""
    console.print(Text(title, style="bold"))
    for sentence in sentences:
        # Hanging, so that on a narrow terminal one sees where the next sentence starts.
        lines = textwrap.wrap(
            sentence,
            console.width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
        console.print(Text("\n".join(lines), style="dim"), soft_wrap=True)
