"""`thinktune recipes`: what can be run."""

import json
import re

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.options import output_option, own_jobs
from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names


@click.command()
@output_option
def recipes(output: str) -> None:
    """List the recipes that ship, with model and hardware."""
    folder = own_jobs()
    catalog = load_catalog(folder)
    names = recipe_names(folder)
    loaded = [load_recipe(name, catalog=catalog, folder=folder) for name in names]
    if output == "json":
        rows = [
            {"name": r.name, "model": r.model, "hardware": r.hardware, "description": r.description}
            for r in loaded
        ]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("recipe", "model", "hardware", "what for"):
        table.add_column(title, no_wrap=title != "what for")
    for r in loaded:
        table.add_row(r.name, r.model, r.hardware, re.split(r"(?<=[.:]) ", r.description)[0])
    Console(highlight=False).print(table)
