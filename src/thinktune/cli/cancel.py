"""`thinktune cancel` ends the Jobs of a run, and `thinktune delete` removes the run entirely."""

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
    """Stop a run after it has saved its progress.

    The current stage saves a checkpoint, then its Jobs are removed. Submitting the same recipe
    resumes the run.

    \b
    Examples:
      thinktune cancel RUN
    """
    cluster = read_cluster(cluster_file)
    kube = Kube(cluster.namespace, context)
    if not launch.cancel(run, kube, store_of(cluster), click.echo):
        click.echo(f"run {run} has no Jobs in namespace {cluster.namespace}")
    return int(ExitCode.DONE)


@click.command()
@run_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_option
@context_option
def delete(run: str, yes: bool, cluster_file: Path | None, context: str | None) -> int:
    """Delete a run: its Jobs, artifacts and checkpoints.

    Asks for confirmation, because what is deleted from the store cannot be restored.

    \b
    Examples:
      thinktune delete RUN
      thinktune delete RUN --yes
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    if not yes:
        click.confirm(f"delete all of run {run} from {store.url}?", abort=True)
    launch.delete(run, kube, store, click.echo)
    return int(ExitCode.DONE)
