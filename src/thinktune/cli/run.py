"""`thinktune run --local`: all stages on this machine, one process each."""

import json
import os

import click

from thinktune.cli.options import (
    output_option,
    read,
    recipe_argument,
    set_option,
    store_option,
    store_url,
)
from thinktune.launch.local import run_local
from thinktune.launch.tasks import make_run
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.keys import stage_prefix
from thinktune.spec.manifest import Manifest
from thinktune.spec.task import STAGES, Stage
from thinktune.store import file_key, open_store


@click.command()
@recipe_argument
@click.option("--local", is_flag=True, help="Run on this machine, each stage a process.")
@click.option("--run", "name", metavar="NAME", help="Name of the run, instead of the derived id.")
@click.option(
    "--until",
    type=click.Choice(STAGES),
    default=STAGES[-1],
    show_default=True,
    help="Stop after this stage.",
)
@set_option
@store_option
@output_option
def run(
    recipe: str,
    local: bool,
    name: str | None,
    until: Stage,
    overrides: tuple[str, ...],
    store: str | None,
    output: str,
) -> None:
    """Prepare, train and evaluate a recipe.

    The same command again resumes what was stopped, and does nothing once all is done.
    """
    if not local:
        fault = "submitting to a cluster is not built yet"
        raise SpecInvalid("thinktune run", fault, "add --local to run on this machine")
    loaded, catalog = read(recipe, overrides)
    made = make_run(loaded, catalog, store_url(store), name)
    as_json = output == "json"
    click.echo(f"run {made.id} in {store_url(store)}", err=as_json)
    done = run_local(
        made,
        catalog.hardware[loaded.hardware],
        until=until,
        say=lambda text: click.echo(text, err=as_json),
        quiet_stdout=as_json,
    )
    places = {stage: _place(store_url(store), made.id, stage, m) for stage, m in done.items()}
    if as_json:
        stages = {
            stage: {"place": places[stage], **manifest.model_dump(mode="json")}
            for stage, manifest in done.items()
        }
        click.echo(json.dumps({"run": made.id, "stages": stages}, indent=1))
        return
    if "train" in places:
        click.echo(f"adapter: {places['train']}")
    if "evaluate" in places:
        click.echo(f"report:  {os.path.join(places['evaluate'], 'report.html')}")  # noqa: PTH118


def _place(url: str, run_id: str, stage: Stage, manifest: Manifest) -> str:
    """Where the artifact's files are: a path on this machine, or the store's address."""
    store = open_store(url)
    prefix = stage_prefix(run_id, stage)
    first = manifest.files[0].name
    key = file_key(store, prefix, manifest, first).removesuffix(f"/{first}")
    path = store.local_path(key)
    return str(path) if path is not None else store.place(key)
