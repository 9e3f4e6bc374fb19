"""A folder as a store: `file:///path`. Opened by `open_store`, for one machine or a shared disk.

The same protocol as S3: an object appears by a rename, the first manifest by a hard link.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinktune.schema.errors import DeviceUnusable, SpecInvalid
from thinktune.schema.manifest import FileEntry
from thinktune.store.base import (
    UNFINISHED,
    ChecksumMismatch,
    ObjectInfo,
    ObjectMissing,
    Store,
    check_bytes,
    check_key,
    check_prefix,
)
from thinktune.store.disk import (
    chunks,
    disk_faults,
    file_sha256,
    rename,
    sync_folder,
    unfinished,
    write_all,
)

OBJECT_MODE = 0o444
"""Objects are replaced, never written to: what `fetch` hard-links stays as it was committed."""


class FileStore(Store):
    """Objects are files below `root`, which is made when something is first put."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def put(self, key: str, data: bytes) -> None:
        with self._writing(key) as path, unfinished(path, OBJECT_MODE) as (file, beside):
            write_all(file, data)
            rename(file, beside, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._writing(key) as path:
            if path.exists():
                return False
            with unfinished(path, OBJECT_MODE) as (file, beside):
                write_all(file, data)
                os.fsync(file.fileno())
                return self._link(beside, path)

    def upload(self, key: str, path: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        with self._writing(key) as target, unfinished(target, OBJECT_MODE) as (file, beside):
            for piece in chunks(path):
                digest.update(piece)
                write_all(file, piece)
            if digest.hexdigest() != sha256:
                raise ChecksumMismatch(
                    str(path), "it changed while it was stored", "store it once it is finished"
                )
            rename(file, beside, target)

    def download(self, key: str, path: Path, entry: FileEntry | None = None) -> None:
        digest, size = hashlib.sha256(), 0
        with self._reading(key) as source, disk_faults(path), unfinished(path) as (file, beside):
            for piece in chunks(source):
                digest.update(piece)
                size += len(piece)
                write_all(file, piece)
            if entry:
                check_bytes(self.location(key), entry, size, digest.hexdigest())
            rename(file, beside, path)

    def sha256(self, key: str) -> str:
        with self._reading(key) as path:
            return file_sha256(path)

    def head(self, key: str) -> ObjectInfo | None:
        try:
            with self._reading(key) as path:
                return ObjectInfo(key, path.stat().st_size)
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found = [
            ObjectInfo(path.relative_to(self.root).as_posix(), path.stat().st_size)
            for path in self._files(prefix)
            if not path.name.endswith(UNFINISHED)
        ]
        yield from sorted(found, key=lambda info: info.key.encode())

    def delete_prefix(self, prefix: str) -> None:
        folder = self.root / check_key(prefix)
        with disk_faults(folder):
            try:
                shutil.rmtree(folder)
            except (FileNotFoundError, NotADirectoryError):
                return

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        since = time.time() - older_than_s
        with disk_faults(self.root / check_prefix(prefix)):
            left = [
                path
                for path in self._files(prefix)
                if path.name.endswith(UNFINISHED) and path.stat().st_mtime <= since
            ]
            for path in left:
                path.unlink(missing_ok=True)
        return len(left)

    def local_path(self, key: str) -> Path | None:
        return self.root / check_key(key)

    def _files(self, prefix: str) -> Iterator[Path]:
        top = self.root / check_prefix(prefix)
        for folder, _, names in os.walk(top):
            yield from (Path(folder, name) for name in names)

    def _link(self, beside: Path, path: Path) -> bool:
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            fault = "this file system has no hard links, without which two writers could both win"
            remedy = "put the store on another disk, or use s3://"
            raise DeviceUnusable(str(path), fault, remedy) from error
        sync_folder(path.parent)
        return True

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self.root / check_key(key)
        try:
            with disk_faults(path):
                if not path.is_file():  # nor is a folder an object
                    raise ObjectMissing(self.location(key))
                yield path
        except FileNotFoundError:
            raise ObjectMissing(self.location(key)) from None

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        path = self.root / check_key(key)
        try:
            with disk_faults(path):
                yield path
        except DeviceUnusable as error:
            clash = FileExistsError | IsADirectoryError | NotADirectoryError
            if isinstance(error.__cause__, clash):
                fault = "a file and a folder would have the same name"
                raise SpecInvalid(self.location(key), fault, "choose another key") from None
            raise
