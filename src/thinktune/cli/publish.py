"""`thinktune export` and `thinktune publish`: a finished run as files that other programs load."""

import json
from pathlib import Path

import click

from thinktune.cli.options import output_option, run_argument, store_option, store_url
from thinktune.launch.local import HUB_CLIENT, MERGING, NOTHING_MORE, ask_module
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.publish import HUB_SCHEME, S3_SCHEME, PublishReport, PublishRequest
from thinktune.store import open_store

MODULE = "thinktune.tasks.publish"

merged_option = click.option(
    "--merged", is_flag=True,
    help="Merge the adapter into the base model, in fp32. The files are then the whole model.",
)  # fmt: skip
unpromoted_option = click.option(
    "--unpromoted", is_flag=True,
    help="Take a run that its evaluation did not promote, or that has none. The model card says "
    "so at its top.",
)  # fmt: skip


@click.command()
@run_argument
@click.option(
    "--out", "folder", required=True, metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write, which is not there yet or holds the same export.",
)  # fmt: skip
@merged_option
@unpromoted_option
@store_option
@output_option
def export(
    run: str, folder: Path, merged: bool, unpromoted: bool, store: str | None, output: str
) -> int:
    """Write a run as a folder that transformers, PEFT and vLLM load.

    The folder holds the adapter, or with --merged the whole model, and beside it the tokenizer, the
    chat template with the text of training, the settings of generation, checksums and a model card
    with code to paste. Base model, adapter and prompts are checked first, as before serving.

    \b
    Examples:
      thinktune export RUN --out my-adapter
      thinktune export RUN --out my-model --merged
    """
    request = PublishRequest(
        run=run,
        store=open_store(store_url(store)).url,
        destination=str(folder.absolute()),
        merged=merged,
        unpromoted=unpromoted,
    )
    return _publish(request, output)


@click.command()
@run_argument
@click.option(
    "--to", "destination", required=True, metavar="DESTINATION",
    help="hf://owner/name, s3://bucket/prefix, or a folder.",
)  # fmt: skip
@merged_option
@click.option(
    "--private", is_flag=True,
    help="Make the repository private. One that is there and public is refused.",
)  # fmt: skip
@unpromoted_option
@click.option(
    "--dry-run", is_flag=True,
    help="Make the files and compare them with the destination, but write nothing there.",
)  # fmt: skip
@store_option
@output_option
def publish(
    run: str,
    destination: str,
    merged: bool,
    private: bool,
    unpromoted: bool,
    dry_run: bool,
    store: str | None,
    output: str,
) -> int:
    """Push a run to the Hugging Face hub, to a bucket or into a folder.

    The files are those of `thinktune export`. The same command again uploads only what is missing.
    A destination that holds something else is refused. The hub's token is read from HF_TOKEN and
    its address from HF_ENDPOINT; S3 is reached as the store is.

    \b
    Examples:
      thinktune publish RUN --to hf://org/name --private
      thinktune publish RUN --to hf://org/name --merged --dry-run
      thinktune publish RUN --to s3://bucket/models/name
    """
    if private and not destination.startswith(HUB_SCHEME):
        fault = "only repositories of the hub are private or public"
        raise SpecInvalid("--private", fault, "leave it out, or publish to hf://owner/name")
    request = PublishRequest(
        run=run,
        store=open_store(store_url(store)).url,
        destination=_address(destination),
        merged=merged,
        private=private,
        unpromoted=unpromoted,
        dry_run=dry_run,
    )
    return _publish(request, output)


def _address(given: str) -> str:
    """The destination as another process finds it. Raises SpecInvalid."""
    if given.startswith((HUB_SCHEME, S3_SCHEME)):
        return given
    if "://" in given:
        remedy = "write hf://owner/name, s3://bucket/prefix, or the path of a folder"
        raise SpecInvalid(f"--to {given}", "it is no address that is known", remedy)
    return str(Path(given).absolute())


def _publish(request: PublishRequest, output: str) -> int:
    on_hub = request.destination.startswith(HUB_SCHEME)
    needs = MERGING if request.merged else HUB_CLIENT if on_hub else NOTHING_MORE
    # A merge reads all from the store; only an upload asks the hub.
    answered = ask_module(MODULE, request, needs._replace(offline=not on_hub))
    report = PublishReport.model_validate_json(answered)
    if output == "json":
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        _show(report)
    return int(ExitCode.DONE)


def _show(report: PublishReport) -> None:
    for entry in report.files:
        state = "" if entry.name in report.sent else "  (there already)"
        click.echo(f"{entry.size:>15,} bytes  {entry.name}{state}")
    size = f"{len(report.files)} files, {report.total_bytes / 1e6:,.1f} MB"
    said = {
        "written": f"{size} at {report.destination}; the run is {report.judged}",
        "unchanged": f"{report.destination} holds the same {size} already",
        "dry run": f"{size} would be at {report.destination}; nothing was written",
    }
    click.echo(said[report.outcome])
