"""`thinktune recipes`: the recipes that can be run."""

import json
import re

import click
from rich.console import Console
from rich.table import Table

from thinktune.cli.options import output_option, own_jobs
from thinktune.recipes.compose import load_catalog, load_recipe, recipe_names


def first_sentence(text: str) -> str:
    """Up to the first full stop that a space follows."""
    return re.split(r"(?<=\.) ", text)[0]


@click.command()
@output_option
def recipes(output: str) -> None:
    """List the recipes with their models and hardware.

    \b
    Examples:
      thinktune recipes
      thinktune recipes --output json
    """
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
        table.add_row(r.name, r.model, r.hardware, first_sentence(r.description))
    Console(highlight=False).print(table)
