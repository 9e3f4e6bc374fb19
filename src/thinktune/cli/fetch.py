"""`thinktune fetch`: downloads the artifact of a stage and verifies it."""

import json
import os
from pathlib import Path

import click

from thinktune.cli.options import (
    CLUSTER_FILE,
    CLUSTER_VARIABLE,
    cluster_option,
    output_option,
    read_cluster,
    run_argument,
    store_of,
    store_option,
    store_url,
)
from thinktune.schema.errors import InputMissing
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.keys import stage_prefix
from thinktune.schema.stages import STAGES, Stage
from thinktune.store import Store, open_store, read_manifest
from thinktune.store import fetch as fetch_artifact


@click.command()
@run_argument
@click.option(
    "--stage", type=click.Choice(STAGES), default="train", show_default=True,
    help="Stage to download.",
)  # fmt: skip
@click.option(
    "-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the files to.  [default: ./RUN/STAGE]",
)  # fmt: skip
@store_option
@cluster_option
@output_option
def fetch(
    run: str,
    stage: Stage,
    folder: Path | None,
    store: str | None,
    cluster_file: Path | None,
    output: str,
) -> int:
    """Download the artifact of a stage and verify its checksums.

    Downloads several files at once. The same command keeps complete files, continues partial ones
    and downloads the rest.

    \b
    Examples:
      thinktune fetch RUN
      thinktune fetch RUN --stage evaluate -o report
    """
    opened = _store(store, cluster_file)
    prefix = stage_prefix(run, stage)
    manifest = read_manifest(opened, prefix)
    if manifest is None:
        fault = f"{stage} of run {run} has no committed artifact"
        raise InputMissing(
            opened.location(prefix), fault, f"`thinktune why {run}` explains the run's state"
        )
    target = folder or Path(run) / stage
    size = f"{len(manifest.files)} files, {sum(e.size for e in manifest.files) / 1e6:,.1f} MB"
    click.echo(f"{size} from {opened.location(prefix)}", err=True)
    quiet = output == "json"
    fetch_artifact(
        opened, prefix, manifest, target,
        arrived=lambda entry: None if quiet else click.echo(target / entry.name),
    )  # fmt: skip
    if quiet:
        facts = {"folder": str(target), "manifest": manifest.model_dump(mode="json")}
        click.echo(json.dumps(facts, indent=1))
    click.echo(f"{size}, checksums verified", err=True)
    return int(ExitCode.DONE)


def _store(given: str | None, cluster_file: Path | None) -> Store:
    """The store that --store names, else that of the cluster file."""
    named = cluster_file is not None or CLUSTER_VARIABLE in os.environ
    if given is None and (named or Path(CLUSTER_FILE).is_file()):
        return store_of(read_cluster(cluster_file))
    return open_store(store_url(given))
