"""Artifacts: files under `<prefix>/attempts/<attempt>/` and, last, `<prefix>/manifest.json`.

Tasks commit and fetch through this; nothing else writes a manifest. A killed commit leaves files
that no manifest names, which no reader sees; of racing commits one manifest remains.
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from thinktune.schema.errors import InputMissing, ServiceUnavailable
from thinktune.schema.manifest import AdapterSource, FileEntry, Manifest, MetricValue
from thinktune.store.artifact import (
    MANIFEST,
    PARALLEL_FILES,
    check_name,
    file_key,
    read_manifest,
)
from thinktune.store.base import Store
from thinktune.store.disk import disk_faults, file_sha256


def new_attempt() -> str:
    """A folder for one try, unique, sorting by time: `20261122T020903-3fa9c1`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def hash_folder(folder: Path) -> tuple[FileEntry, ...]:
    """What a manifest says of a folder's files, sorted by name.

    Raises InputMissing if it has none, or holds a link that leaves it or something not a file.
    """
    paths = sorted(_files_of(folder), key=lambda path: path.relative_to(folder).as_posix())
    if not paths:
        raise InputMissing(
            str(folder), "there is no file to commit", "write the output there first"
        )

    def entry(path: Path) -> FileEntry:
        name = path.relative_to(folder).as_posix()
        check_name(str(path), name)
        with disk_faults(path):
            return FileEntry(name=name, size=path.stat().st_size, sha256=file_sha256(path))

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        return tuple(pool.map(entry, paths))


def commit(
    store: Store,
    prefix: str,
    folder: Path,
    *,
    kind: str,
    run: str | None,
    attempt: str,
    inputs: Mapping[str, str],
    task_sha256: str | None,
    created: str,
    template_sha256: str | None = None,
    init_from: AdapterSource | None = None,
    revisions: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    metrics: Mapping[str, MetricValue] | None = None,
) -> Manifest:
    """Makes the folder's files an artifact, and returns the manifest that is there afterwards.

    That is someone else's if they committed the same task on the same inputs before: theirs then
    stands for ours, whose files are deleted. `attempt` comes from `new_attempt`, one per process.
    Raises InputMissing if what is there was made from something else.
    """
    ours = Manifest(
        kind=kind,
        run=run,
        attempt=attempt,
        files=hash_folder(folder),
        inputs=dict(inputs),
        task_sha256=task_sha256,
        template_sha256=template_sha256,
        init_from=init_from,
        revisions=dict(revisions or {}),
        versions=dict(versions or {}),
        metrics=dict(metrics or {}),
        created=created,
    )
    theirs = read_manifest(store, prefix)
    if theirs is None:
        _upload(store, prefix, ours, folder)
        text = json.dumps(ours.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        if store.put_if_absent(f"{prefix}/{MANIFEST}", text.encode()):
            return ours
        theirs = read_manifest(store, prefix)
    return _adopt(store, prefix, ours, theirs)


def _upload(store: Store, prefix: str, manifest: Manifest, folder: Path) -> None:
    def one(entry: FileEntry) -> None:
        key = file_key(store, prefix, manifest, entry.name)
        store.upload(key, folder / entry.name, entry.sha256)
        info = store.head(key)
        if info is None or info.size != entry.size:
            stored = f"{info.size} of {entry.size} bytes" if info else "nothing"
            fault = f"it reported a finished upload, but holds {stored}"
            raise ServiceUnavailable(store.location(key), fault, "run it again")

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        for _ in pool.map(one, manifest.files):
            pass


def _adopt(store: Store, prefix: str, ours: Manifest, theirs: Manifest | None) -> Manifest:
    place = store.location(f"{prefix}/{MANIFEST}")
    if theirs is None:
        fault = "another writer's manifest was there and is gone"
        raise ServiceUnavailable(place, fault, "run it again, while nobody deletes there")
    if theirs == ours:
        return theirs
    if theirs.attempt != ours.attempt:
        store.delete_prefix(f"{prefix}/attempts/{ours.attempt}")
    same_task = theirs.task_sha256 == ours.task_sha256
    if same_task and theirs.inputs == ours.inputs and theirs.kind == ours.kind:
        return theirs
    what = "inputs" if same_task else "task"
    fault = f"another artifact is there, made {theirs.created} from another {what}"
    raise InputMissing(place, fault, "give the run another id, or delete that artifact")


def _files_of(folder: Path) -> Iterable[Path]:
    root = folder.resolve()
    for here, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            path = Path(here, name)
            if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
                raise InputMissing(str(path), "is a link out of its folder", "copy the file there")
            if name in names:
                if not path.is_file():
                    raise InputMissing(str(path), "is not a regular file", "remove it")
                yield path


def _raise(error: OSError) -> None:
    raise InputMissing(str(error.filename), "cannot be read", "check that the folder is there")
