"""`thinktune doctor`: what a cluster lacks to run a recipe, and the remedy."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    complete_recipes,
    context_option,
    output_option,
    read,
    read_cluster,
    set_option,
)
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.doctor import examine
from thinktune.launch.preflight import Request
from thinktune.launch.runs import make_run
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.stages import STAGES

SIGNS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


@click.command()
@click.argument("recipe", metavar="RECIPE", default="demo", shell_complete=complete_recipes)
@set_option
@cluster_option
@context_option
@output_option
def doctor(
    recipe: str,
    overrides: tuple[str, ...],
    cluster_file: Path | None,
    context: str | None,
    output: str,
) -> int:
    """Check whether a cluster can run a recipe.

    Checks the context, permissions, secrets, nodes, images and the store. A small pod runs for a
    moment to pull the images and to write to the store. Exits with 69 if anything is missing.

    \b
    Examples:
      thinktune doctor
      thinktune doctor qwen-32b --cluster cluster.yaml
    """
    cluster = read_cluster(cluster_file)
    loaded, catalog = read(recipe, overrides)
    if loaded.data.path is not None and not Path(loaded.data.path).is_file():
        # This checks the cluster, not the data, so any file can take its cluster.
        here = loaded.data.model_copy(update={"path": __file__})
        loaded = loaded.model_copy(update={"data": here})
    # Nor does it check the adapter that the recipe starts from.
    train = loaded.train.model_copy(update={"init_from": None})
    loaded = loaded.model_copy(update={"train": train})
    request = Request(make_run(loaded, catalog, cluster.store), loaded, catalog, cluster, STAGES)
    found = []
    for check in examine(cluster, lambda: Kube(cluster.namespace, context), request):
        found.append(check)
        if output == "text":
            sign, color = SIGNS[check.ok]
            click.echo(f"{click.style(sign, fg=color)} {check.name}: {check.said}")
            if check.remedy and not check.ok:
                click.echo(f"    {check.remedy}")
    if output == "json":
        click.echo(json.dumps([asdict(check) for check in found], indent=1))
    wrong = any(check.ok is False for check in found)
    return int(ExitCode.SERVICE_UNAVAILABLE if wrong else ExitCode.DONE)
