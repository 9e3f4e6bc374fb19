"""The rows of a task's dataset: files of the user's, a hub snapshot, or a generator.

Called by `stage` and `check`.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.errors import DataInvalid
from thinktune.schema.keys import cache_prefix, source_key
from thinktune.schema.stages import PrepTask
from thinktune.store import ObjectInfo, Store, commit, fetch, open_store, read_manifest
from thinktune.store.data_files import WILDCARDS, data_digest, data_files, is_remote
from thinktune.tasks.prep import hub
from thinktune.tasks.prep.inventory_sums import inventory_sums
from thinktune.tasks.prep.readers.reading import READERS, kind_of, read_records
from thinktune.tasks.prep.readers.records import Record, Row
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import utc_now


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    place: str
    """For errors: the file, the repository or the generator."""
    revision: str
    """What the manifest says it was."""
    records: Iterator[Record]
    text_bytes: int = 0
    """Size of files whose rows are not counted; 0 where nobody knows it."""
    counted: int = 0
    """Rows of files that say how many they have."""

    def about(self, head: Sequence[Row]) -> int:
        """About how many rows there are, by the size of the first ones; 0 where that is unknown."""
        written = sum(len(json.dumps(row, default=str, ensure_ascii=False)) for row in head)
        return self.counted + (self.text_bytes * len(head) // written if written else 0)


@contextmanager
def open_source(task: PrepTask, context: Context) -> Iterator[Source]:
    """Opens the dataset; what was downloaded is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="thinktune-data-") as folder:
        if task.data.path is None:
            yield open_dataset(task.dataset, context, Path(folder))
        elif is_remote(task.data.path):
            yield from_bucket(task.data.path, Path(folder))
        else:
            yield _own_files(task, context, Path(folder))


def open_dataset(entry: DatasetEntry, context: Context, folder: Path) -> Source:
    """A dataset of the catalog; downloads go to `folder`."""
    if entry.generator is not None:
        name = f"generator {entry.generator}"
        records = (
            Record(f"{name}: row {number}", dict(row))
            for number, row in enumerate(inventory_sums(), start=1)
        )
        return Source(name, entry.generator, records)
    return _from_hub(entry, context, folder)


def records_of(files: Sequence[Path]) -> Iterator[Record]:
    """Rows of several files, one file after the other. Their places name each file below the folder
    that holds all: where that lies is nobody else's business, and no part of the result."""
    folder = files[0].parent if len(files) == 1 else Path(os.path.commonpath(files))
    for file in files:
        yield from _named_as(str(file.relative_to(folder)), file)


def _named_as(name: str, file: Path) -> Iterator[Record]:
    """Rows of a file, with another name for it in their places."""
    known = str(file)
    for record in read_records(file):
        yield replace(record, place=record.place.replace(known, name, 1))


def _own_files(task: PrepTask, context: Context, folder: Path) -> Source:
    path = task.data.path or ""
    files = _where(task, context, folder)
    try:
        digest = data_digest(files)
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
        raise DataInvalid(str(files[0]), fault, "check data.path") from None
    if task.source_sha256 not in (None, digest):
        fault = "the file is not the one that was submitted"
        raise DataInvalid(path, fault, "run again, so that the run is one of this file")
    files = readable(files, path)
    return Source(path, f"sha256:{digest}", records_of(files), *_sizes(files))


def _sizes(files: Iterable[Path]) -> tuple[int, int]:
    """Bytes of text that is not packed, and rows of Parquet files."""
    size = rows = 0
    for file in files:
        if file.suffix.lower() == ".parquet":
            with contextlib.suppress(pa.ArrowInvalid, OSError):  # its reader will say what is wrong
                rows += pq.read_metadata(file).num_rows
        elif file.suffix.lower() in READERS:
            size += file.stat().st_size
    return size, rows


def _where(task: PrepTask, context: Context, folder: Path) -> list[Path]:
    """The files where they were submitted from, or, in a pod, out of the store."""
    path = Path(task.data.path or "")
    if task.source_sha256 is not None and not path.exists():
        key = source_key(task.source_sha256, path.name)
        if context.store.head(key) is not None:
            context.store.download(key, folder / path.name)
            return [folder / path.name]
    return data_files(task.data.path or "")


def readable(files: list[Path], place: str) -> list[Path]:
    """Of several files those whose kind is known: a folder holds a README too. One file alone is
    meant, whatever it is. Raises DataInvalid."""
    if len(files) == 1:
        return files
    kept = [file for file in files if kind_of(file) in READERS]
    if not kept:
        fault = f"none of {len(files)} files is of a known kind"
        raise DataInvalid(place, fault, f"use {', '.join(READERS)}")
    return kept


def from_bucket(url: str, folder: Path) -> Source:
    """Files of a bucket, each fetched when its turn comes and gone after it. Raises DataInvalid."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    store = open_store(f"s3://{bucket}")
    whole = store.head(prefix) if prefix and not prefix.endswith("/") else None
    found = [whole] if whole is not None else _named(store, prefix)
    if not found:
        fault = f"no file of a known kind ({', '.join(READERS)}) is there"
        raise DataInvalid(url, fault, "check data.path")
    named = "".join(f"{each.key} {each.size}\n" for each in found)
    revision = f"objects:{hashlib.sha256(named.encode()).hexdigest()}"
    return Source(url, revision, _fetched(store, [each.key for each in found], bucket, folder))


def _named(store: Store, pattern: str) -> list[ObjectInfo]:
    """Objects of known kinds below a prefix, or those that a pattern names."""
    folder = pattern.rstrip("/")
    if WILDCARDS & set(pattern):
        folder = pattern[: min(map(pattern.find, WILDCARDS & set(pattern)))].rpartition("/")[0]
    listed = [each for each in store.list(folder) if kind_of(Path(each.key)) in READERS]
    if folder == pattern.rstrip("/"):
        return listed
    return [each for each in listed if fnmatchcase(each.key, pattern)]


def _fetched(store: Store, keys: list[str], bucket: str, folder: Path) -> Iterator[Record]:
    for key in keys:
        file = folder / Path(key).name
        store.download(key, file)
        yield from _named_as(f"s3://{bucket}/{key}", file)
        file.unlink()


def _from_hub(entry: DatasetEntry, context: Context, folder: Path) -> Source:
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
    return Source(repo, f"{repo}@{revision}", records_of(paths))
