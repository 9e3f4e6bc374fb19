"""Reading artifacts: their manifests, whether they are whole, their files on this machine.

Tasks read the stages before them through this, and so does the launcher for `status` and `why`.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from thinktune.schema.errors import InputMissing, SpecInvalid, near_misses
from thinktune.schema.manifest import FileEntry, Manifest
from thinktune.store.base import UNFINISHED, ObjectMissing, Store, check_bytes, key_fault
from thinktune.store.disk import disk_faults, file_sha256

PARALLEL_FILES = 4
"""Files in flight; within a large one the S3 store works on parts in parallel as well."""

LINKED_BYTES = 16 << 20
"""From this size a file of a local store is linked, not copied. Below are the configurations,
which people edit in place, and an edit through a link would change the store."""

MANIFEST = "manifest.json"
FORMAT = 1

REMAKE = "delete that artifact and run the stage that makes it again"


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """The artifact there, None if none is committed. Raises InputMissing if it cannot be read."""
    key = f"{prefix}/{MANIFEST}"
    try:
        data = store.get(key)
    except ObjectMissing:
        return None
    place = store.location(key)
    try:
        plain = json.loads(data)
    except ValueError:
        raise InputMissing(place, "it is not JSON", REMAKE) from None
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        fault = f"its format is {found!r}, this thinktune reads {FORMAT}"
        raise InputMissing(place, fault, "use the thinktune that wrote it, or make it again")
    try:
        manifest = Manifest.parse(plain, place)
    except SpecInvalid as error:
        raise InputMissing(error.place, error.fault, REMAKE) from None
    for entry in manifest.files:
        file_key(store, prefix, manifest, entry.name)
    return manifest


def manifest_digest(manifest: Manifest) -> str:
    """What the manifests of later stages pin it by: SHA-256 in hex."""
    return manifest.digest()


def files_digest(manifest: Manifest) -> str:
    """What the files of an artifact come to, whenever and by whom it was committed: SHA-256 in
    hex."""
    lines = [f"{entry.sha256} {entry.name}\n" for entry in manifest.files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_key(store: Store, prefix: str, manifest: Manifest, name: str) -> str:
    """Where a file of an artifact is. Raises InputMissing for a name that leaves the artifact."""
    place = store.location(f"{prefix}/{MANIFEST}")
    check_name(place, name)
    if "/" in manifest.attempt:
        raise InputMissing(place, f"attempt {manifest.attempt!r} is not one folder", REMAKE)
    check_name(place, manifest.attempt)
    return f"{prefix}/attempts/{manifest.attempt}/{name}"


def verify(store: Store, prefix: str, manifest: Manifest, *, checksums: bool) -> None:
    """Raises InputMissing naming the first file that is missing, short or, if `checksums` (which
    reads every byte), different."""

    def check(entry: FileEntry) -> None:
        key = file_key(store, prefix, manifest, entry.name)
        info = store.head(key)
        if info is None:
            raise _missing(store, key)
        check_bytes(store.location(key), entry, info.size)
        if checksums:
            try:
                check_bytes(store.location(key), entry, info.size, store.sha256(key))
            except ObjectMissing:
                raise _missing(store, key) from None

    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        # In order, so that the file named is the first one, whichever check ended first.
        for _ in pool.map(check, manifest.files):
            pass


def fetch(
    store: Store,
    prefix: str,
    manifest: Manifest,
    dest: Path,
    names: Collection[str] | None = None,
    arrived: Callable[[FileEntry], None] | None = None,
) -> Path:
    """Brings an artifact's files (all, or those named) to `dest` and returns it; `arrived` is told
    of each.

    Every file is checked against the manifest; one that is already there and right is kept, and
    one that was begun is gone on with, so a second call goes on where a killed one stopped. From a
    store on this machine large files are hard links: replace them if you must, do not write into
    them.
    Raises InputMissing for a name that is not in the manifest, and as `verify` does.
    """
    entries = _chosen(store, prefix, manifest, names)

    def bring(entry: FileEntry) -> FileEntry:
        key = file_key(store, prefix, manifest, entry.name)
        path = dest / entry.name
        with disk_faults(path):
            if _is_right(path, entry):
                return entry
        try:
            source = store.local_path(key)
            if source is None or not _linked(store.location(key), source, path, entry):
                store.download(key, path, entry)
        except (ObjectMissing, FileNotFoundError):
            raise _missing(store, key) from None
        return entry

    with disk_faults(dest):
        dest.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(PARALLEL_FILES)
    waited_for = True
    try:
        for done in as_completed([pool.submit(bring, entry) for entry in entries]):
            entry = done.result()
            if arrived is not None:
                arrived(entry)
    except KeyboardInterrupt:
        waited_for = False  # who asks for an end does not want the rest of a file
        raise
    finally:
        pool.shutdown(wait=waited_for, cancel_futures=True)
    return dest


def check_name(place: str, name: str) -> None:
    """Raises InputMissing for a file name that is no safe key."""
    fault = key_fault(name)
    if fault:
        raise InputMissing(place, f"the name {name!r} {fault}", REMAKE)


def _chosen(
    store: Store, prefix: str, manifest: Manifest, names: Collection[str] | None
) -> list[FileEntry]:
    by_name = {entry.name: entry for entry in manifest.files}
    if names is None:
        return list(by_name.values())
    for name in names:
        if name not in by_name:
            place = store.location(f"{prefix}/{MANIFEST}")
            raise InputMissing(place, f"it has no file {name!r}", near_misses(name, by_name))
    return [by_name[name] for name in dict.fromkeys(names)]


def _is_right(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
        return False
    return file_sha256(path) == entry.sha256


def _missing(store: Store, key: str) -> InputMissing:
    return InputMissing(store.location(key), "its manifest names it, but it is not there", REMAKE)


def _linked(place: str, source: Path, path: Path, entry: FileEntry) -> bool:
    """Whether a hard link did; False where a copy is better or the disk allows nothing else."""
    if entry.size < LINKED_BYTES:
        return False
    with disk_faults(source):
        check_bytes(place, entry, source.stat().st_size, file_sha256(source))
    beside = path.parent / f".{path.name}.{secrets.token_hex(6)}{UNFINISHED}"
    with disk_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, beside)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, no hard links there, or not this user's file
            return False
        beside.rename(path)
    return True
