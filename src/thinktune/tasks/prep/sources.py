"""The rows of a task's dataset: a file of the user's, a hub snapshot, or a generator.

Called by `stage`.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import cache_prefix, source_key
from thinktune.schema.stages import PrepTask
from thinktune.store import commit, fetch, file_sha256, read_manifest
from thinktune.tasks.prep import hub
from thinktune.tasks.prep.inventory_sums import inventory_sums
from thinktune.tasks.prep.readers import Row, read_rows
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    place: str
    """For errors: the file, the repository or the generator."""
    revision: str
    """What the manifest says it was."""
    rows: Iterator[Row]


@contextmanager
def open_source(task: PrepTask, context: Context) -> Iterator[Source]:
    """Opens the dataset; what was downloaded is gone when the block ends."""
    entry = task.dataset
    if task.data.path is not None:
        with tempfile.TemporaryDirectory(prefix="thinktune-data-") as folder:
            path = _own_file(task, context, Path(folder))
            digest = _digest(path)
            if task.source_sha256 not in (None, digest):
                fault = "the file is not the one that was submitted"
                raise DataInvalid(
                    str(path), fault, "run again, so that the run is one of this file"
                )
            yield Source(task.data.path, f"sha256:{digest}", read_rows(path))
    elif entry.generator is not None:
        rows: Iterator[Row] = (dict(row) for row in inventory_sums())
        yield Source(f"generator {entry.generator}", entry.generator, rows)
    else:
        with tempfile.TemporaryDirectory(prefix="thinktune-data-") as folder:
            yield _from_hub(task, context, Path(folder))


def _own_file(task: PrepTask, context: Context, folder: Path) -> Path:
    """Where it was submitted from, or, in a pod, out of the store."""
    path = Path(task.data.path or "")
    if path.exists() or task.source_sha256 is None:
        return path
    key = source_key(task.source_sha256, path.name)
    if context.store.head(key) is None:
        return path  # which then says that it is not there
    context.store.download(key, folder / path.name)
    return folder / path.name


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise DataInvalid(str(path), fault, "check data.path") from None


def _from_hub(task: PrepTask, context: Context, folder: Path) -> Source:
    entry = task.dataset
    repo = entry.repo
    if repo is None:
        raise DataInvalid("catalog", "a dataset without repo, file or generator", "correct it")
    revision = entry.revision or hub.resolve_revision(repo, "dataset")
    # The files of one repository's configurations are cached apart: a name for each set.
    files = hashlib.sha256("\n".join(entry.files).encode()).hexdigest()[:8]
    prefix = cache_prefix("datasets", repo, f"{revision}-{files}")
    manifest = read_manifest(context.store, prefix)
    if manifest is None:
        context.reporter.say(f"dataset {repo} at {revision[:16]} into the store's cache")
        with tempfile.TemporaryDirectory(prefix="thinktune-hub-") as temporary:
            hub.download(repo, "dataset", revision, entry.files, Path(temporary))
            manifest = commit(
                context.store,
                prefix,
                Path(temporary),
                kind="dataset",
                run=None,
                attempt=context.attempt,
                inputs={},
                task_sha256=None,
                revisions={"dataset": f"{repo}@{revision}"},
                created=utc_now(),
            )
    fetch(context.store, prefix, manifest, folder)
    paths = sorted(folder / entry.name for entry in manifest.files)
    rows = (row for path in paths for row in read_rows(path))
    return Source(repo, f"{repo}@{revision}", rows)
