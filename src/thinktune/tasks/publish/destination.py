"""Where an export goes, by its address: a folder, a bucket or a repository of the hub.

Called by `__main__`. A destination holds the whole export or is refused: what is there and is the
same is kept, and what is missing is written.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from thinktune.schema.errors import DeviceUnusable, SpecInvalid
from thinktune.schema.manifest import FileEntry
from thinktune.store import ChecksumMismatch, Store, hash_folder
from thinktune.tasks.publish.files import SUMS_FILE

REPO = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
BUCKET_REMEDY = "name another prefix, or delete what is there"


def hub_repo(destination: str) -> str:
    """`owner/name` of `hf://owner/name`. Raises SpecInvalid."""
    repo = destination.partition("://")[2].strip("/")
    if not REPO.match(repo) or ".." in repo or "--" in repo:
        fault = f"'{repo}' is no name of a repository"
        raise SpecInvalid(destination, fault, "write hf://owner/name")
    return repo


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A folder on the disk of `target`, from which one can be renamed to it. Raises SpecInvalid
    for a file, DeviceUnusable where nothing can be written."""
    if target.exists() and not target.is_dir():
        raise SpecInvalid(str(target), "it is a file", "name a folder that is not there yet")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        fault = f"nothing can be written there ({error.strerror})"
        raise DeviceUnusable(str(target.parent), fault, "name another folder") from None
    with made as folder:
        yield Path(folder)


def place(made: Path, target: Path, files: tuple[FileEntry, ...]) -> list[str]:
    """Puts the folder where `target` is to be; gives the names that were written, none where the
    same export is there already. Raises SpecInvalid where something else is."""
    if target.exists() and any(target.iterdir()):
        found = {entry.name: entry.sha256 for entry in hash_folder(target)}
        check_same(str(target), files, found, "name a new folder, or remove that one")
        if len(found) == len(files):
            return []
        fault = "part of the same export is there"
        raise SpecInvalid(str(target), fault, "remove that folder and run the command again")
    try:
        if target.exists():
            target.rmdir()
        made.rename(target)
    except OSError as error:
        fault = f"the files could not be put there ({error.strerror})"
        raise DeviceUnusable(
            str(target), fault, "run the command again, or name another folder"
        ) from None
    return [entry.name for entry in files]


def missing(
    where: str, files: tuple[FileEntry, ...], found: Mapping[str, str], remedy: str
) -> list[str]:
    """Names of the files that are not there. Raises as `check_same`."""
    check_same(where, files, found, remedy)
    return [entry.name for entry in files if entry.name not in found]


def check_same(
    where: str, files: tuple[FileEntry, ...], found: Mapping[str, str], remedy: str
) -> None:
    """Raises SpecInvalid where a file is no file of the export, or another one. `found`: digests
    by name."""
    wanted = {entry.name: entry.sha256 for entry in files}
    for name, sha256 in sorted(found.items()):
        if name not in wanted:
            raise SpecInvalid(where, f"it holds something else: {name}", remedy)
        if wanted[name] != sha256:
            raise SpecInvalid(where, f"it holds another {name}", remedy)


def missing_in_bucket(store: Store, files: tuple[FileEntry, ...]) -> list[str]:
    """What of the export is not there; what is there is read. Raises SpecInvalid where something
    else is, or no prefix is named."""
    if store.url.count("/") < 3:
        fault = "it names a whole bucket"
        raise SpecInvalid(store.url, fault, "name a prefix of its own: s3://bucket/prefix")
    sizes = {entry.name: entry.size for entry in files}
    found = {}
    for info in store.list(""):
        same_size = sizes.get(info.key) == info.size
        found[info.key] = store.sha256(info.key) if same_size else "another size"
    return missing(store.url, files, found, BUCKET_REMEDY)


def upload(store: Store, made: Path, files: tuple[FileEntry, ...], names: list[str]) -> None:
    """Uploads those files, the checksums last, and reads them back. Raises ServiceUnavailable or
    ChecksumMismatch."""
    entries = {entry.name: entry for entry in files}
    for name in sorted(names, key=lambda name: (name == SUMS_FILE, name)):
        store.upload(name, made / name, entries[name].sha256)
        _check_stored(store, entries[name])


def _check_stored(store: Store, entry: FileEntry) -> None:
    if store.sha256(entry.name) != entry.sha256:
        fault = "the bucket holds other bytes than were sent"
        remedy = "delete that object and run the command again"
        raise ChecksumMismatch(store.location(entry.name), fault, remedy)
