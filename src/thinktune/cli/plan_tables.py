"""`thinktune plan --all-hardware` and `--actual`: tables.

Called by `plan`.
"""

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.options import own_jobs, read
from thinktune.launch.runs import compare_hardware
from thinktune.plan.training.comparison import OnHardware, PlanVsActual, plan_vs_actual
from thinktune.recipes.compose import recipe_names
from thinktune.schema.catalog import GIB
from thinktune.schema.errors import InputMissing
from thinktune.schema.keys import stage_prefix
from thinktune.store import open_store, read_manifest

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


def show_actual(run: str, store: str, console: Console, *, as_json: bool) -> None:
    """Prints the plan of a run beside what it took. Raises InputMissing if it has not trained."""
    opened = open_store(store)
    prefix = stage_prefix(run, "train")
    manifest = read_manifest(opened, prefix)
    if manifest is None:
        remedy = "compare a run whose training is finished; check its id, and --store"
        raise InputMissing(opened.location(prefix), "this run has no finished training", remedy)
    pairs = plan_vs_actual(manifest.metrics)
    if as_json:
        found = [pair.model_dump() | {"relative_error": pair.relative_error} for pair in pairs]
        click.echo(json.dumps(found, indent=1))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(run, no_wrap=True)
    for title in ("plan", "actual", "plan against actual"):
        table.add_column(title, justify="right", no_wrap=True)
    for pair in pairs:
        error = "" if pair.relative_error is None else f"{pair.relative_error:+.1%}"
        table.add_row(pair.what, _value(pair, pair.planned), _value(pair, pair.actual), error)
    console.print(table, soft_wrap=True)
    ranks = manifest.metrics.get("ranks", 1)
    device = f"{ranks} × {manifest.metrics.get('device')}"
    console.print(Text(device, style="dim"), soft_wrap=True)


def _value(pair: PlanVsActual, value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value / GIB:.2f} GiB" if pair.what.endswith("bytes") else f"{value:,.0f}"


def hours(value: float) -> str:
    """`0.05` → `3 min`, `2.34` → `2.3 h`."""
    return f"{value:.1f} h" if value >= 1 else f"{max(1, round(value * 60))} min"
