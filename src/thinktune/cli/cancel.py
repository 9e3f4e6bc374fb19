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
from thinktune.cli.servers import named_server
from thinktune.launch import cancel as launch
from thinktune.launch.cluster.kube import Kube
from thinktune.launch.serving.remove import remove
from thinktune.schema.exit_codes import ExitCode


@click.command()
@run_argument
@cluster_option
@context_option
def cancel(run: str, cluster_file: Path | None, context: str | None) -> int:
    """Stop a run after it has saved its progress, or end a server.

    The current stage saves a checkpoint, then its Jobs are removed. Submitting the same recipe
    resumes the run.

    \b
    Examples:
      thinktune cancel RUN
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    server = named_server(run, kube, store)
    if server is not None:
        remove(server, kube, store, click.echo)
        return int(ExitCode.DONE)
    if not launch.cancel(run, kube, store, click.echo):
        click.echo(f"run {run} has no Jobs in namespace {cluster.namespace}")
    return int(ExitCode.DONE)


@click.command()
@run_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_option
@context_option
def delete(run: str, yes: bool, cluster_file: Path | None, context: str | None) -> int:
    """Delete a run: its Jobs, artifacts and checkpoints; or end a server.

    Asks for confirmation, because what is deleted from the store cannot be restored.

    \b
    Examples:
      thinktune delete RUN
      thinktune delete RUN --yes
    """
    cluster = read_cluster(cluster_file)
    kube, store = Kube(cluster.namespace, context), store_of(cluster)
    server = named_server(run, kube, store)
    if server is not None:  # nothing of it is kept that could not be made again
        remove(server, kube, store, click.echo)
        return int(ExitCode.DONE)
    if not yes:
        click.confirm(f"delete all of run {run} from {store.url}?", abort=True)
    launch.delete(run, kube, store, click.echo)
    return int(ExitCode.DONE)
