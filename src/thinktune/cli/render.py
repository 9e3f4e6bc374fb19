"""`thinktune render`: values and manifests of a run, for `helm install` or a repository."""

from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    read,
    read_cluster,
    recipe_argument,
    run_name,
    set_option,
)
from thinktune.launch.charts import manifests, release_name, values_text
from thinktune.launch.tasks import make_run, stage_values
from thinktune.spec.task import STAGES


@click.command()
@recipe_argument
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
    recipe: str,
    name: str | None,
    folder: Path,
    values_only: bool,
    overrides: tuple[str, ...],
    cluster: Path | None,
) -> None:
    """Write chart values and manifests of all stages, byte for byte the same every time."""
    place = read_cluster(cluster)
    loaded, catalog = read(recipe, overrides)
    run = make_run(loaded, catalog, place.store, run_name(name))
    target = folder / run.id
    target.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        text = values_text(stage_values(run, stage, catalog.hardware[loaded.hardware], place))
        _write(target / f"{stage}.values.yaml", text)
        if not values_only:
            release = release_name(run.id, stage)
            _write(target / f"{stage}.yaml", manifests(release, place.namespace, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    click.echo(path)
