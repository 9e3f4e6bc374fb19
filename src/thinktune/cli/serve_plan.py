"""`thinktune plan --serve`: what a server takes, how many requests it holds, what would fit.

Called by `plan`.
"""

import functools
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinktune.cli.options import own_jobs, read
from thinktune.plan.serving.plan import ServingPlan, make_serving_plan, smallest_hardware
from thinktune.plan.serving.request import (
    ServeRequest,
    ServeWish,
    request_for_model,
    request_for_recipe,
)
from thinktune.recipes.compose import Catalog, load_catalog, recipe_names
from thinktune.schema.catalog import GIB
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.exit_codes import ExitCode

WIDTH = 80
PLACE = "thinktune plan --serve"

OPTIONS = (
    click.option(
        "--serve", is_flag=True, help="Plan a server of the recipe's model, or of a model."
    ),
    click.option(
        "--precision",
        type=click.Choice(["16bit", "fp8", "awq", "nf4"]),
        help="With --serve: precision of the weights.  [default: the recipe's, or as released]",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=1),
        metavar="TOKENS",
        help="With --serve: longest prompt with its answer.  [default: 32768, or the model's]",
    ),
    click.option(
        "--nodes",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --serve: number of nodes that one server takes.  [default: 1]",
    ),
    click.option(
        "--adapters",
        type=click.IntRange(min=0),
        metavar="N",
        help="With --serve: adapters on the GPU at once.  [default: 1 of a recipe, 0 of a model]",
    ),
    click.option(
        "--rank",
        type=click.IntRange(min=1),
        metavar="R",
        help="With --serve: highest rank of these.  [default: the recipe's, or 16]",
    ),
    click.option(
        "--kv-dtype",
        type=click.Choice(["auto", "fp8"]),
        help="With --serve: type of the KV cache.  [default: auto, as the model computes]",
    ),
)


@dataclass(frozen=True)
class Serve:
    """Whether a server is to be planned, and what is asked of it."""

    asked: bool
    wish: ServeWish


def serve_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives a command the options of a server, as one parameter `serve`. Raises SpecInvalid for one
    of them without --serve."""

    @functools.wraps(command)
    def collected(
        serve: bool,
        precision: Any,
        window: int | None,
        nodes: int | None,
        adapters: int | None,
        rank: int | None,
        kv_dtype: Any,
        **others: Any,
    ) -> int:
        wish = ServeWish(precision, window, nodes, adapters, rank, kv_dtype)
        if not serve and wish != ServeWish():
            fault = "an option of a server is given, and no server is planned"
            raise SpecInvalid("thinktune plan", fault, "add --serve")
        return command(serve=Serve(serve, wish), **others)

    for option in reversed(OPTIONS):
        collected = option(collected)
    return collected


def show_serving(
    name: str | None,
    hardware: str | None,
    overrides: tuple[str, ...],
    wish: ServeWish,
    console: Console,
    *,
    as_json: bool,
) -> int:
    """Prints the plan of a server, and gives the exit code. Raises SpecInvalid."""
    request, catalog = _request(name, hardware, overrides, wish)
    planned = make_serving_plan(request, catalog.models[request.model], catalog.hardware)
    if as_json:
        click.echo(planned.model_dump_json(indent=1))
    else:
        _show(planned, request, console)
    return int(ExitCode.DONE if planned.fits else ExitCode.SPEC_INVALID)


def _request(
    name: str | None, hardware: str | None, overrides: tuple[str, ...], wish: ServeWish
) -> tuple[ServeRequest, Catalog]:
    folder = own_jobs()
    catalog, recipes = load_catalog(folder), recipe_names(folder)
    if name is None:
        remedy = "name a recipe that `thinktune recipes` lists, or a model of the catalog"
        raise SpecInvalid(PLACE, "no recipe or model is given", remedy)
    if hardware is not None and hardware not in catalog.hardware:
        fault = f"hardware '{hardware}' is not in the catalog"
        raise SpecInvalid(PLACE, fault, near_misses(hardware, catalog.hardware))
    if name in catalog.models and name not in recipes:
        if overrides:
            fault = f"--set changes a recipe, and '{name}' is a model"
            raise SpecInvalid(PLACE, fault, "leave --set out, or name a recipe")
        model = catalog.models[name]
        request = request_for_model(name, model, hardware or "", wish)
        if hardware is None:
            chosen = smallest_hardware(request, model, catalog.hardware)
            request = replace(request, hardware=chosen)
        return request, catalog
    if name not in recipes and not name.endswith((".yaml", ".yml")):
        remedy = near_misses(name, [*recipes, *catalog.models], shown=4)
        raise SpecInvalid(PLACE, f"'{name}' is no recipe and no model of the catalog", remedy)
    recipe, catalog = read(name, overrides)
    model = catalog.models[recipe.model]
    return request_for_recipe(recipe, model, hardware or recipe.hardware, wish), catalog


def _show(planned: ServingPlan, request: ServeRequest, console: Console) -> None:
    title = f"{planned.model} in {request.precision} on {request.nodes} × {planned.hardware}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    style = "green" if planned.fits else "red"
    _wrapped(planned.reason, console, style=style, first="", then="  ")
    if planned.gpu_memory_bytes:
        console.print(_memory(planned), soft_wrap=True)
    for fact, value in _facts(planned):
        console.print(f"  {fact:<20}{value}", soft_wrap=True)
    if planned.alternatives:
        console.print(Text("What would fit:", style="bold"))
        for other in planned.alternatives:
            gpus = f"{other.gpus} GPU{'s' if other.gpus > 1 else ''}"
            console.print(f"  {other.change}", soft_wrap=True)
            holds = f"{other.kv_tokens:,} tokens of KV cache a copy"
            console.print(Text(f"      {gpus}, {holds}", style="dim"), soft_wrap=True)
    if planned.arguments:
        console.print(Text("vLLM is told", style="bold"))
        for line in _argument_lines(planned):
            _wrapped(line, console)
    console.print(Text("Assumptions", style="bold"))
    for sentence in planned.assumptions:
        _wrapped(sentence, console, style="dim")


def _wrapped(
    text: str, console: Console, *, style: str = "", first: str = "  ", then: str = "    "
) -> None:
    """Prints a paragraph, hanging, in as many columns as there are, and at most `WIDTH`."""
    lines = textwrap.wrap(
        text,
        min(WIDTH, console.width),
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
        break_long_words=False,
    )
    console.print(Text("\n".join(lines), style=style), soft_wrap=True)


def _memory(planned: ServingPlan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    outside, capacity = planned.gpu_outside_bytes, planned.gpu_capacity_bytes
    causes = {**planned.gpu_memory_bytes, "outside_vllms_share": outside}
    for cause, size in [*causes.items(), ("capacity", capacity)]:
        if size:
            table.add_row(f"  {cause}", f"{size / GIB:.2f} GiB", f"{size / capacity:.1%}")
    return table


def _facts(planned: ServingPlan) -> list[tuple[str, str]]:
    host, disk = planned.host_memory_bytes / GIB, planned.disk_bytes / GIB
    read = planned.checkpoint_bytes / GIB
    facts = [
        ("KV cache", f"{planned.kv_bytes_per_token:,} bytes per token and GPU"),
        ("host memory, disk", f"{host:.0f} GiB, {disk:.0f} GiB"),
        ("weights to read", f"{read:.1f} GiB in {planned.load_s:,} s"),
        ("startup probe", f"{planned.startup_probe_s:,} s"),
    ]
    execution = planned.execution
    if execution is None:
        return facts if planned.gpu_memory_bytes else []
    spread = (
        f"{execution.tensor_parallel} tensor × {execution.pipeline_parallel} pipeline"
        f" × {execution.data_parallel} data parallel"
    )
    windows = f"{planned.full_windows:,.1f} of {execution.max_model_len:,} tokens"
    return [("GPUs", spread), ("full windows", windows), *facts]


def _argument_lines(planned: ServingPlan) -> Sequence[str]:
    """The options one a line, each with its values, and the variables before them."""
    lines = [f"{name}={value}" for name, value in planned.environment.items()]
    for word in planned.arguments:
        if word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines
