"""Writing files whole or not at all, and saying in words what a disk refused.

Used by both stores and by `commit`.
"""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from thinktune.schema.errors import DeviceUnusable, ServiceUnavailable
from thinktune.store.base import UNFINISHED

KEPT = (KeyboardInterrupt, SystemExit, ServiceUnavailable)
"""Errors after which an unfinished download is kept, because it may go on later."""

CHUNK_BYTES = 4 << 20
"""Bytes that are read and hashed at a time."""

_REMEDIES = {
    errno.ENOSPC: "free space there, or ask for a larger disk",
    errno.EDQUOT: "free space within the quota, or raise it",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "mount it writable, or choose another folder",
    errno.EACCES: "let this user write there, or choose another folder",
    errno.EPERM: "let this user write there, or choose another folder",
}


@contextmanager
def disk_faults(place: str | Path) -> Iterator[None]:
    """Turns what a disk refuses into DeviceUnusable; absence stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check that disk, or choose another folder")
        fault = os.strerror(error.errno) if error.errno else str(error)
        raise DeviceUnusable(str(place), fault.lower(), remedy) from error


@contextmanager
def unfinished(path: Path, mode: int = 0o666) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `path`, to be renamed or linked there; removed if it was not.

    Flushed to the disk when the block ends without an error. Makes the folders above.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{secrets.token_hex(6)}{UNFINISHED}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file, beside
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


@contextmanager
def resumable(path: Path, sha256: str, size: int) -> Iterator[tuple[BinaryIO, Path]]:
    """As `unfinished`, but found again by content: it begins with what a download of the same file
    that was stopped has left, and is left in turn when this one is stopped or cut off.

    Another process that is at the same file gets a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{sha256[:12]}{UNFINISHED}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        if not _is_ours_alone(file, beside):
            with unfinished(path) as other:
                yield other
            return
        if os.fstat(descriptor).st_size > size:
            file.truncate(0)
        try:
            yield file, beside
        except BaseException as error:
            if not isinstance(error, KEPT):
                beside.unlink(missing_ok=True)
            raise


def _is_ours_alone(file: BinaryIO, path: Path) -> bool:
    """Whether we have the lock on what is at that path: whoever had it before us may have moved the
    file to where it belongs."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """An unbuffered write may take only a part; this one takes all or raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def rename(file: BinaryIO, beside: Path, path: Path) -> None:
    """Puts a finished file in its place, so that neither a crash nor a reader sees a part."""
    os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename or a link in it last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def chunks(path: Path) -> Iterator[bytes]:
    """A file's bytes in pieces, for hashing and copying."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    for piece in chunks(path):
        digest.update(piece)
    return digest.hexdigest()
