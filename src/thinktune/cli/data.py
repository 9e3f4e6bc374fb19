"""`thinktune data`: looks at a dataset before a run, and at what a run has learned from."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from thinktune.cli.data_output import clean, line, show_report, show_row
from thinktune.cli.options import (
    complete_recipes,
    output_option,
    own_jobs,
    read,
    recipe_argument,
    run_argument,
    set_option,
    store_option,
    store_url,
)
from thinktune.launch.local import ask_module
from thinktune.launch.runs import make_run
from thinktune.recipes.compose import OWN_FILE, Catalog, load_catalog, load_recipe
from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.data_check import (
    CheckReport,
    CheckRequest,
    SheetFacts,
    SheetRequest,
    ShownRow,
    ShowRequest,
)
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import PrepTask


@click.group()
def data() -> None:
    """Look at a dataset before a run, or at what a run has learned from."""


@data.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--recipe", metavar="RECIPE", shell_complete=complete_recipes,
    help="Recipe whose data settings and model are used.  [default: none, all is recognized]",
)  # fmt: skip
@click.option(
    "--model", metavar="MODEL", help="Model whose text is shown.  [default: the recipe's]"
)
@set_option
@store_option
@output_option
def check(
    file: str,
    recipe: str | None,
    model: str | None,
    overrides: tuple[str, ...],
    store: str | None,
    output: str,
) -> int:
    """Show what would be learned from FILE, without a run.

    Tells how the rows are read, what is learned and what is dropped and why, how long the examples
    are, and what to write into a recipe. FILE can be a folder, a pattern in quotes or
    s3://bucket/prefix/. Ends with exit code 65 if prep would refuse the file.

    \b
    Examples:
      thinktune data check mine.jsonl
      thinktune data check audit.csv --recipe qwen-32b
      thinktune data check mine.jsonl --set data.columns.answer=reply --output json
    """
    request = request_of(file, recipe, model, overrides, store_url(store))
    report = CheckReport.model_validate_json(ask_module("thinktune.tasks.prep.check", request))
    if output == "json":
        click.echo(report.model_dump_json(indent=1))
    else:
        show_report(report, request, recipe, overrides)
    return int(ExitCode.DATA_INVALID if report.refused else ExitCode.DONE)


@data.command()
@run_argument
@click.option(
    "--row", "rows", type=click.IntRange(min=1), multiple=True, metavar="N",
    help="Number of a training row, from 1. Can be repeated.  [default: 1]",
)  # fmt: skip
@store_option
@output_option
def show(run: str, rows: tuple[int, ...], store: str | None, output: str) -> int:
    """Show rows that a run learned from, as the model got them.

    \b
    Examples:
      thinktune data show demo-05e818b6
      thinktune data show demo-05e818b6 --row 7 --row 8
    """
    catalog = load_catalog(own_jobs())
    models = {name: entry.repo for name, entry in catalog.models.items()}
    request = ShowRequest(run=run, store=store_url(store), rows=rows or (1,), models=models)
    answer = ask_module("thinktune.tasks.prep.show", request)
    if output == "json":
        click.echo(answer.rstrip())
        return int(ExitCode.DONE)
    console = Console(highlight=False)
    for number, row in zip(request.rows, json.loads(answer), strict=True):
        show_row(console, f"row {number}", ShownRow.model_validate(row))
    return int(ExitCode.DONE)


@data.command()
@recipe_argument
@click.option(
    "--dry-run", is_flag=True, help="Send nothing; show prompts, tokens and cost. It is required."
)
@set_option
@store_option
@output_option
def generate(
    recipe: str, dry_run: bool, overrides: tuple[str, ...], store: str | None, output: str
) -> int:
    """Show what the column that a language model writes would send and cost.

    Three prompts, the number of requests and of those whose reply is stored already, the tokens of
    the prompts, and the cost if each reply is as long as it may be. Prep itself does the asking, as
    part of `thinktune run`.

    \b
    Examples:
      thinktune data generate final-answer-written --dry-run
      thinktune data generate final-answer-written --dry-run --set data.generate.llm.mode=live
    """
    if not dry_run:
        fault = "asking the model is a part of prep"
        raise SpecInvalid("thinktune data generate", fault, "add --dry-run, or use `thinktune run`")
    loaded, catalog = read(recipe, overrides)
    task = make_run(loaded, catalog, store_url(store), until="prep").tasks["prep"]
    facts = json.loads(ask_module("thinktune.tasks.prep.dry_run", task))
    if output == "json":
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return int(ExitCode.DONE)
    console = Console(highlight=False)
    for number, prompt in enumerate(facts["prompts"], start=1):
        console.print(Text(f"prompt {number}", "bold"))
        console.print(Text(clean(prompt)))
        console.print()
    console.print(f"{facts['requests']:,} requests, {facts['cached']:,} of them answered already")
    console.print(
        f"{facts['input_tokens']:,} tokens of prompts (counted by {facts['counted_by']}), at most"
        f" {facts['output_tokens']:,} of replies"
    )
    if facts["most_cost"] is not None:
        console.print(
            f"prompts cost {facts['input_cost']:,.2f}, with replies at most"
            f" {facts['most_cost']:,.2f}"
        )
    if facts["over_budget"]:
        console.print(Text("that is more than the budget allows", "bold red"))
    return int(ExitCode.DONE)


@data.command()
@recipe_argument
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="File to write: a sheet (.xlsx or .csv), or with --read JSON lines (.jsonl).",
)  # fmt: skip
@click.option(
    "--read", "sheet_file", type=click.Path(dir_okay=False, path_type=Path), metavar="SHEET",
    help="Sheet to read back after experts have corrected it.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(min=1), default=200, show_default=True, metavar="N",
    help="Most rows of a sheet.",
)  # fmt: skip
@set_option
@store_option
def sheet(
    recipe: str,
    out: Path,
    sheet_file: Path | None,
    rows: int,
    overrides: tuple[str, ...],
    store: str | None,
) -> int:
    """Write examples to a spreadsheet for experts to correct, and read it back.

    The sheet has the question, reasoning and answer of each example, empty columns for corrections,
    and one to say no to a row. A column that a language model writes is asked for as prep would,
    and paid for; replies that are stored cost nothing. What is read back is a file for a recipe.

    \b
    Examples:
      thinktune data sheet final-answer-written -o audit.xlsx --rows 100
      thinktune data sheet final-answer-written --read audit.xlsx -o corrected.jsonl
    """
    if sheet_file is not None and out.suffix != ".jsonl":
        raise SpecInvalid("--out", f"'{out}' is no file of JSON lines", "name it .jsonl")
    loaded, catalog = read(recipe, overrides)
    task = make_run(loaded, catalog, store_url(store), until="prep").tasks["prep"]
    assert isinstance(task, PrepTask)
    back = str(sheet_file) if sheet_file is not None else None
    request = SheetRequest(task=task, out=str(out), read=back, rows=rows)
    facts = SheetFacts.model_validate_json(ask_module("thinktune.tasks.prep.sheet", request))
    if back is not None:
        click.echo(
            f"{out}: {facts.rows:,} rows, {facts.corrected:,} of them corrected;"
            f" {facts.not_kept:,} were not to be kept"
        )
        return int(ExitCode.DONE)
    click.echo(f"{out}: {facts.rows:,} rows")
    if facts.too_long:
        click.echo(f"{facts.too_long:,} rows are too long for a cell of Excel; write .csv for them")
    for reason, count in facts.dropped.items():
        click.echo(f"dropped, {line(reason)}: {count:,}")
    return int(ExitCode.DONE)


def request_of(
    file: str, recipe: str | None, model: str | None, overrides: tuple[str, ...], store: str
) -> CheckRequest:
    """What is asked about a file. Raises SpecInvalid for what no recipe or catalog knows."""
    own = (f"data.dataset={OWN_FILE}", f"data.path={json.dumps(file)}")
    loaded, catalog = read(recipe or "demo", (*own, *overrides))
    spec = loaded.data
    if recipe is None:
        # The demo lends its model; what it says of its own data says nothing about this file.
        spec = _without_recipe(file, overrides, catalog)
    name = model or loaded.model
    if name not in catalog.models:
        fault = f"model '{name}' is not in the catalog"
        raise SpecInvalid("--model", fault, near_misses(name, catalog.models))
    said = recipe is not None
    return CheckRequest(
        data=spec,
        dataset=DatasetEntry(license="own", format=spec.format or "columns", description="own"),
        model_name=name,
        model=catalog.models[name],
        store=store,
        said_reasoning=said or any(o.startswith("data.require_reasoning") for o in overrides),
        said_length=said or any(o.startswith("data.max_tokens") for o in overrides),
    )


def _without_recipe(file: str, overrides: tuple[str, ...], catalog: Catalog) -> DataSpec:
    plain = DataSpec(dataset=OWN_FILE, path=file).model_dump(mode="json")
    settings = tuple(f"data.{name}={json.dumps(value)}" for name, value in plain.items())
    return load_recipe("demo", (*settings, *overrides), catalog=catalog, folder=own_jobs()).data
