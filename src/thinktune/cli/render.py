"""`thinktune render`: chart values and manifests of a run, for `helm install` or for GitOps."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    complete_recipes,
    name_option,
    read,
    read_cluster,
    set_option,
    store_of,
)
from thinktune.launch.cluster.charts import manifests, release_name, values_text
from thinktune.launch.preflight import check_deadline, check_names
from thinktune.launch.runs import Run, adapter_of, make_run, stage_values
from thinktune.schema.cluster import Cluster
from thinktune.schema.errors import DataInvalid, SpecInvalid
from thinktune.schema.stages import STAGES, Stage


@click.command()
@click.argument(
    "recipes", metavar="RECIPE…", nargs=-1, required=True, shell_complete=complete_recipes
)
@name_option
@click.option(
    "-o",
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rendered"),
    show_default=True,
    help="Folder to write to. Each run gets a folder in it.",
)
@click.option(
    "--values-only", is_flag=True, help="Write only chart values, which does not require helm."
)
@set_option
@cluster_option
def render(
    recipes: tuple[str, ...],
    name: str | None,
    folder: Path,
    values_only: bool,
    overrides: tuple[str, ...],
    cluster_file: Path | None,
) -> None:
    """Write the chart values and manifests of a recipe's stages.

    The same input gives the same bytes.

    \b
    Examples:
      thinktune render qwen-32b -o rendered
      thinktune render demo --values-only
    """
    cluster = read_cluster(cluster_file)
    if name is not None and len(recipes) > 1:
        raise SpecInvalid(
            "--run", f"one id for {len(recipes)} recipes", "render one recipe at a time"
        )
    runs, faults = [], []
    for recipe in recipes:
        try:
            runs.append(_run(recipe, overrides, cluster, name))
        except DataInvalid as fault:  # one recipe's own file; the others have nothing to do with it
            faults.append(fault)
    with ThreadPoolExecutor() as pool:  # helm takes most of the time
        every = [
            (run, stage, pool.submit(_rendered, run, stage, cluster, values_only=values_only))
            for run in runs
            for stage in STAGES
        ]
        for run, stage, files in every:
            for ending, text in files.result().items():
                _write(folder / run.id / f"{stage}{ending}", text)
    for run in runs:
        if run.own_file is not None:
            key = f"{cluster.store}/{run.own_file.key}"
            click.echo(f"prep reads {key}: copy {run.own_file.path} there", err=True)
    for each in faults[:-1]:
        click.echo(f"error: {each}", err=True)
    if faults:
        raise faults[-1]


def _run(recipe: str, overrides: tuple[str, ...], cluster: Cluster, name: str | None) -> Run:
    loaded, catalog = read(recipe, overrides)
    # The store is needed by a recipe that starts from another run's adapter, and by no other.
    starts = loaded.train.init_from is not None
    adapter = adapter_of(loaded, catalog, store_of(cluster)) if starts else None
    run = make_run(loaded, catalog, cluster.store, name, adapter=adapter)
    check_names(cluster, catalog)
    check_deadline(run, cluster, STAGES)
    return run


def _rendered(run: Run, stage: Stage, cluster: Cluster, *, values_only: bool) -> dict[str, str]:
    """Suffix of each file's name, and its text."""
    values = values_text(stage_values(run, stage, cluster))
    found = {".values.yaml": values}
    if not values_only:
        found[".yaml"] = manifests(release_name(run.id, stage), cluster.namespace, values)
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(path)
