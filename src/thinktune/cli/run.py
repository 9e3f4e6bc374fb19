"""`thinktune run`: all stages on this machine, one process each."""

import json
import os

import click

from thinktune.cli.options import (
    name_option,
    output_option,
    read,
    recipe_argument,
    set_option,
    store_option,
    store_url,
)
from thinktune.launch.local import run_local
from thinktune.launch.runs import adapter_of, make_run
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.keys import cache_prefix, stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.schema.stages import STAGE_INFO, STAGES, Stage
from thinktune.store import Store, file_key, open_store, read_manifest

RESULTS: dict[Stage, tuple[str, str]] = {
    "train": ("adapter", ""),
    "evaluate": ("report", "report.html"),
}
"""What the artifact of a stage is called for people, and the file that they open."""


@click.command()
@recipe_argument
@click.option(
    "--local",
    is_flag=True,
    help="Run on this machine. This is the default, so the flag can be left out.",
)
@name_option
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
    """Prepare, train and evaluate a recipe on this machine.

    The same command resumes a run that was stopped. Once all stages are finished, it only checks
    their manifests.

    \b
    Examples:
      thinktune run demo
      thinktune run demo --until prep
      thinktune run demo --set train.rank=32 --store s3://bucket/prefix
    """
    del local  # the only way; the flag is accepted for those who write it
    loaded, catalog = read(recipe, overrides)
    if loaded.nodes > 1:
        fault = f"the recipe is for {loaded.nodes} nodes, and `thinktune run` uses one machine"
        remedy = "add --set nodes=1, or use `thinktune submit`"
        raise SpecInvalid("thinktune run", fault, remedy)
    opened = open_store(store_url(store))
    adapter = adapter_of(loaded, catalog, opened)
    made = make_run(loaded, catalog, opened.url, name, until=until, adapter=adapter)
    as_json = output == "json"
    click.echo(f"run {made.id} in {opened.url}", err=as_json)
    done = run_local(
        made,
        catalog.hardware[loaded.hardware],
        until=until,
        say=lambda text: click.echo(text, err=as_json),
        quiet_stdout=as_json,
    )
    locations = {s: _folder(opened, stage_prefix(made.id, s), m) for s, m in done.items()}
    base = _base(opened, made.tasks["prep"].model.repo, done["prep"])
    if as_json:
        stages = {
            stage: {"location": locations[stage], **manifest.model_dump(mode="json")}
            for stage, manifest in done.items()
        }
        click.echo(json.dumps({"run": made.id, "base": base, "stages": stages}, indent=1))
        return
    click.echo(f"base:    {base}")
    for stage, location in locations.items():
        label, file = RESULTS.get(stage, (stage, ""))
        if STAGE_INFO[stage].inputs:  # what prep makes is for the other stages
            click.echo(f"{label + ':':<9}{os.path.join(location, file).rstrip('/')}")  # noqa: PTH118


def _base(store: Store, repo: str, prep: Manifest) -> str:
    """Location of the base model that the adapter was trained on."""
    prefix = cache_prefix("models", repo, prep.revisions["model"])
    manifest = read_manifest(store, prefix)
    return _folder(store, prefix, manifest) if manifest else f"{repo} {prep.revisions['model']}"


def _folder(store: Store, prefix: str, manifest: Manifest) -> str:
    """Location of an artifact's files: a path on this machine, or an address in the store."""
    first = manifest.files[0].name
    key = file_key(store, prefix, manifest, first).removesuffix(f"/{first}")
    path = store.local_path(key)
    return str(path) if path is not None else store.location(key)
