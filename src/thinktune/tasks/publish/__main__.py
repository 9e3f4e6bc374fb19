"""`python -m thinktune.tasks.publish`: a request on stdin, the report on stdout.

Called by the command line (`launch.local.ask_module`), in a process of its own: a merge loads
torch.
"""

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.manifest import FileEntry
from thinktune.schema.publish import HUB_SCHEME, S3_SCHEME, PublishReport, PublishRequest
from thinktune.store import open_store
from thinktune.tasks.publish.destination import (
    beside,
    hub_repo,
    missing_in_bucket,
    place,
    upload,
)
from thinktune.tasks.publish.files import write_files
from thinktune.tasks.publish.source import Source, read_source
from thinktune.tasks.runtime.answer_channel import answer_channel
from thinktune.tasks.runtime.entry import guarded, quiet_libraries

Sent = tuple[tuple[FileEntry, ...], list[str]]
"""All files of the export, and the names of those that were sent."""


def publish(request: PublishRequest) -> PublishReport:
    """Makes the files and brings them to their destination. Raises any ThinktuneError."""
    where = request.destination
    on_hub = where.startswith(HUB_SCHEME)
    in_folder = not on_hub and not where.startswith(S3_SCHEME)
    name = hub_repo(where) if on_hub else "."
    in_place = in_folder and not request.dry_run
    with tempfile.TemporaryDirectory(prefix="thinktune-publish-") as temporary:
        folder = Path(temporary)
        store = open_store(request.store)
        source = read_source(store, request.run, folder, unpromoted=request.unpromoted)
        # What becomes a folder is made on its disk, so that a rename puts it there.
        with beside(Path(where)) if in_place else nullcontext(folder) as scratch:
            files, sent = _bring(request, source, scratch, name)
    outcome = "dry run" if request.dry_run else "written" if sent else "unchanged"
    return PublishReport(
        destination=where,
        judged=source.judged,
        files=files,
        sent=tuple(sent),
        outcome=outcome,
        total_bytes=sum(entry.size for entry in files),
    )


def _bring(request: PublishRequest, source: Source, folder: Path, name: str) -> Sent:
    where, made = request.destination, folder / "export"
    if where.startswith(HUB_SCHEME):
        # Imported here: nobody else needs the hub's client.
        from thinktune.tasks.publish.hub import Repository

        repository = Repository(name)  # before a merge of an hour: without a token it ends here
        files = _write(request, source, folder, name)
        names = repository.missing(made, files, private=request.private)
        if names and not request.dry_run:
            repository.upload(made, files, names, private=request.private)
        return files, names
    if where.startswith(S3_SCHEME):
        bucket = open_store(where)
        files = _write(request, source, folder, name)
        names = missing_in_bucket(bucket, files)
        if not request.dry_run:
            upload(bucket, made, files, names)
        return files, names
    files = _write(request, source, folder, name)
    if request.dry_run:
        return files, [entry.name for entry in files]
    return files, place(made, Path(where), files)


def _write(
    request: PublishRequest, source: Source, folder: Path, name: str
) -> tuple[FileEntry, ...]:
    made = folder / "export"
    return write_files(source, made, folder, merged=request.merged, name=name, say=_say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line shows it


def main() -> None:
    """Answers one request on stdin."""
    request = PublishRequest.model_validate_json(sys.stdin.read())
    quiet_libraries()
    with answer_channel() as answer:
        answer.write(publish(request).model_dump_json() + "\n")


if __name__ == "__main__":
    try:
        sys.exit(guarded(main))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
