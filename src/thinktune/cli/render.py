"""`thinktune render`: values and manifests of a run, for `helm install` or a repository."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    complete_recipes,
    read,
    read_cluster,
    run_name,
    set_option,
)
from thinktune.launch.charts import manifests, release_name, values_text
from thinktune.launch.tasks import Run, make_run, stage_values
from thinktune.spec.cluster import Cluster
from thinktune.spec.errors import SpecInvalid
from thinktune.spec.keys import source_key
from thinktune.spec.task import STAGES, PrepTask, Stage


@click.command()
@click.argument(
    "recipes", metavar="RECIPE…", nargs=-1, required=True, shell_complete=complete_recipes
)
@click.option("--run", "name", metavar="NAME", help="Name of the run, instead of the derived id.")
@click.option(
    "-o",
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rendered"),
    show_default=True,
    help="Folder to write into, one below it per run.",
)
@click.option("--values-only", is_flag=True, help="No manifests, which need helm.")
@set_option
@cluster_option
def render(
    recipes: tuple[str, ...],
    name: str | None,
    folder: Path,
    values_only: bool,
    overrides: tuple[str, ...],
    cluster: Path | None,
) -> None:
    """Write chart values and manifests of all stages, byte for byte the same every time."""
    place = read_cluster(cluster)
    if name is not None and len(recipes) > 1:
        raise SpecInvalid("--run", f"one name for {len(recipes)} recipes", "render one at a time")
    for recipe in recipes:
        _render(recipe, overrides, place, name, folder, values_only=values_only)


def _render(
    recipe: str,
    overrides: tuple[str, ...],
    place: Cluster,
    name: str | None,
    folder: Path,
    *,
    values_only: bool,
) -> None:
    loaded, catalog = read(recipe, overrides)
    run = make_run(loaded, catalog, place.store, run_name(name))
    target = folder / run.id
    target.mkdir(parents=True, exist_ok=True)
    hardware = catalog.hardware[loaded.hardware]
    values = {stage: values_text(stage_values(run, stage, hardware, place)) for stage in STAGES}

    def render_stage(stage: Stage) -> str:
        return manifests(release_name(run.id, stage), place.namespace, values[stage])

    with ThreadPoolExecutor() as pool:
        rendered = [] if values_only else list(pool.map(render_stage, STAGES))
    for stage, text in values.items():
        _write(target / f"{stage}.values.yaml", text)
    for stage, text in zip(STAGES, rendered, strict=False):
        _write(target / f"{stage}.yaml", text)
    _say_source(run, place)


def _say_source(run: Run, place: Cluster) -> None:
    """Where prep will look for the user's own file, which `submit` would bring there."""
    task = run.tasks["prep"]
    assert isinstance(task, PrepTask)
    if task.data.path is not None and task.source_sha256 is not None:
        key = source_key(task.source_sha256, Path(task.data.path).name)
        click.echo(f"prep reads {place.store}/{key}: copy {task.data.path} there", err=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    click.echo(path)
