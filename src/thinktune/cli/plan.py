"""`thinktune plan`: memory by cause, time, and what would fit if the recipe does not."""

import textwrap

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.options import (
    complete_recipes,
    output_option,
    read,
    set_option,
    store_option,
    store_url,
)
from thinktune.cli.plan_tables import hours, show_actual, show_hardware
from thinktune.cli.serve_plan import Serve, serve_options, show_serving
from thinktune.launch.runs import plan_recipe
from thinktune.plan.training.plan import Plan
from thinktune.schema.catalog import GIB
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.recipe import Recipe

BAR_CELLS = 40


@click.command()
@click.argument("recipe", metavar="[RECIPE]", required=False, shell_complete=complete_recipes)
@click.option(
    "--hardware",
    metavar="NAME",
    help="Plan for this hardware entry of the catalog instead of the recipe's.",
)
@click.option(
    "--all-hardware",
    is_flag=True,
    help="Print a table of all hardware entries that fit, with rate and hours.",
)
@click.option("--actual", metavar="RUN", help="Compare what a finished run took with its plan.")
@serve_options
@set_option
@store_option
@output_option
def plan(
    recipe: str | None,
    hardware: str | None,
    all_hardware: bool,
    actual: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    output: str,
    serve: Serve,
) -> int:
    """Show the memory and time that a recipe needs, before anything runs.

    If the recipe does not fit its hardware, the command shows what would fit and exits with 64.
    With --all-hardware, RECIPE can be left out to show all recipes. With --serve, it can also be a
    model of the catalog.

    \b
    Examples:
      thinktune plan qwen-32b
      thinktune plan qwen-32b --hardware t4x1 --output json
      thinktune plan qwen-32b --all-hardware
      thinktune plan --actual RUN
      thinktune plan deepseek-r1 --serve --hardware h200x8 --window 65536
    """
    console = Console(highlight=False)
    if serve.asked:
        if actual is not None or all_hardware:
            fault = "--serve goes with neither --actual nor --all-hardware"
            raise SpecInvalid("thinktune plan", fault, "leave one of them out")
        as_json = output == "json"
        return show_serving(recipe, hardware, overrides, serve.wish, console, as_json=as_json)
    if actual is not None:
        show_actual(actual, store_url(store), console, as_json=output == "json")
        return int(ExitCode.DONE)
    if all_hardware:
        show_hardware(recipe, overrides, console, as_json=output == "json")
        return int(ExitCode.DONE)
    if recipe is None:
        remedy = "choose one that `thinktune recipes` lists, or add --all-hardware for all of them"
        raise SpecInvalid("thinktune plan", "no recipe is given", remedy)
    if hardware is not None:
        overrides = (*overrides, f"hardware={hardware}")
    loaded, catalog = read(recipe, overrides)
    planned = plan_recipe(loaded, catalog)
    if output == "json":
        click.echo(planned.model_dump_json(indent=1))
    else:
        show(planned, loaded, console)
    return int(ExitCode.DONE if planned.fits else ExitCode.SPEC_INVALID)


def show(planned: Plan, recipe: Recipe, console: Console) -> None:
    """Prints the plan for people: one bar for each cause of memory, then time and sizes."""
    title = f"{recipe.name}: {recipe.model} on {recipe.nodes} × {recipe.hardware}"
    console.print(Text(title, style="bold"))
    console.print(Text(planned.reason, style="green" if planned.fits else "red"))
    console.print(_memory(planned))
    for name, value in _facts(planned):
        console.print(f"  {name:<22}{value}", soft_wrap=True)
    if planned.alternatives:
        console.print(Text("What would fit:", style="bold"))
        for other in planned.alternatives:
            used, has = other.gpu_total_bytes / GIB, other.gpu_capacity_bytes / GIB
            took = "" if other.hours is None else f", {hours(other.hours)}"
            change = " ".join(f"--set {part}" for part in other.change.split())
            console.print(f"  {change:<44}{used:.1f} of {has:.1f} GiB{took}", soft_wrap=True)
    console.print(Text("Assumptions", style="bold"))
    for sentence in planned.assumptions:
        # Hanging, so that on a narrow terminal one sees where the next sentence starts.
        lines = textwrap.wrap(
            sentence,
            console.width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
        console.print(Text("\n".join(lines), style="dim"), soft_wrap=True)


def _memory(planned: Plan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    capacity = planned.gpu_capacity_bytes
    for cause, size in planned.gpu_memory_bytes.items():
        if size:
            table.add_row(f"  {cause}", f"{size / GIB:.2f} GiB", _bar(size, capacity))
    total = planned.gpu_total_bytes
    table.add_row("  total", f"{total / GIB:.2f} GiB", _bar(total, capacity))
    table.add_row("  capacity", f"{capacity / GIB:.2f} GiB", "")
    return table


def _bar(size: int, capacity: int) -> Text:
    cells = round(BAR_CELLS * size / capacity) if capacity else 0
    return Text("█" * min(cells, BAR_CELLS) or "▏", style="red" if size > capacity else "cyan")


def _facts(planned: Plan) -> list[tuple[str, str]]:
    execution, topology = planned.execution, planned.topology
    facts = [
        ("topology", f"{topology.world_size} ranks, ZeRO {topology.zero_stage}"),
        ("micro-batch", f"{execution.micro_batch_tokens:,} tokens"),
        ("recomputed", f"{execution.recompute_layers} layers, {execution.recompute_mlps} MLPs"),
        ("host memory, disk", f"{_gib(planned.host_memory_bytes)}, {_gib(planned.disk_bytes)}"),
        ("/dev/shm, grace", f"{_gib(planned.shm_bytes)}, {planned.grace_s} s"),
    ]
    if planned.tokens_per_s is not None:
        facts.append(("rate", f"{planned.tokens_per_s:,.0f} tokens/s"))
    if planned.hours is not None and planned.gpu_hours is not None:
        steps = f"{planned.optimizer_steps:,} steps"
        facts.append(("time", f"{hours(planned.hours)} for {steps}"))
    return facts


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
