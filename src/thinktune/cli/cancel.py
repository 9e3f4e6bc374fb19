"""`thinktune cancel` ends a run's Jobs, `thinktune delete` removes it altogether."""

from pathlib import Path

import click

from thinktune.cli.options import (
    cluster_option,
    context_option,
    read_cluster,
    run_argument,
    store_of,
)
from thinktune.launch import cancel as launch
from thinktune.launch.cluster.kube import Kube
from thinktune.schema.exit_codes import ExitCode


@click.command()
@run_argument
@cluster_option
@context_option
def cancel(run: str, cluster_file: Path | None, context: str | None) -> int:
    """End a run's Jobs; what is at work commits first, and the same submit goes on later."""
    cluster = read_cluster(cluster_file)
    kube = Kube(cluster.namespace, context)
    if not launch.cancel(run, kube, store_of(cluster), click.echo):
        click.echo(f"run {run} has no Jobs in namespace {cluster.namespace}")
    return int(ExitCode.DONE)


@click.command()
@run_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_option
@context_option
def delete(run: str, yes: bool, cluster_file: Path | None, context: str | None) -> int:
    """Remove a run: its Jobs, and its artifacts and checkpoints in the store."""
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    if not yes:
        click.confirm(f"remove all of run {run} from {store.url}?", abort=True)
    launch.delete(run, kube, store, click.echo)
    return int(ExitCode.DONE)
