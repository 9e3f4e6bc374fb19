"""A bucket as a store: `s3://bucket/prefix`. Opened by `open_store`.

Large files go both ways in parallel parts; every byte is hashed on its way, in one pass.
"""

import hashlib
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.manifest import FileEntry
from thinktune.store.base import (
    ChecksumMismatch,
    ObjectInfo,
    ObjectMissing,
    Store,
    check_bytes,
    check_key,
    check_prefix,
)
from thinktune.store.disk import chunks, disk_faults, rename, resumable, unfinished, write_all
from thinktune.store.s3 import Connection, Refused
from thinktune.store.s3_faults import unavailable
from thinktune.store.s3_parts import (
    PARALLEL_PARTS,
    PART_BYTES,
    PartsUpload,
    abort,
    check_unchanged,
    checksum_of,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import HeadObjectOutputTypeDef

T = TypeVar("T")

WHOLE_READS = 3
"""Downloads begun of an object that is replaced meanwhile."""


class _ReplacedError(Exception):
    """The object is no longer the one whose download began."""


class S3Store(Store):
    """Credentials come from the environment, and are reread once they expire; the endpoint likewise
    where it is None."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None = None) -> None:
        self.url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._bucket = bucket
        self._prefix = prefix
        self._connection = Connection(self.url, endpoint)
        self._pool = ThreadPoolExecutor(4 * PARALLEL_PARTS, thread_name_prefix="s3-part")

    def get(self, key: str) -> bytes:
        def request(client: "S3Client") -> bytes:
            found = client.get_object(Bucket=self._bucket, Key=self._full(key))
            return found["Body"].read()

        return self._ask_for(key, request)

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        writer = secrets.token_hex(8)
        try:
            self._put(key, data, expected={412}, IfNoneMatch="*", Metadata={"writer": writer})
        except Refused:
            # Ours after all, if the answer to an earlier try was lost on its way.
            there = self._head(key)
            return there is not None and there["Metadata"].get("writer") == writer
        return True

    def upload(self, key: str, path: Path, sha256: str) -> None:
        size = path.stat().st_size
        if size > PART_BYTES:
            upload = PartsUpload(
                connection=self._connection,
                pool=self._pool,
                bucket=self._bucket,
                key=self._full(key),
                place=self.location(key),
            )
            upload.send(path, sha256)
            return
        with disk_faults(path):
            data = path.read_bytes()
        check_unchanged(path, hashlib.sha256(data).hexdigest(), sha256)
        self._put(key, data)

    def download(self, key: str, path: Path, entry: FileEntry | None = None) -> None:
        begun_before = False

        def write(pieces_from: Callable[[int], Iterator[bytes]]) -> None:
            nonlocal begun_before
            digest, size = hashlib.sha256(), 0
            begun = resumable(path, entry.sha256, entry.size) if entry else unfinished(path)
            with disk_faults(path), begun as (file, beside):
                for piece in chunks(beside):
                    digest.update(piece)
                    size += len(piece)
                begun_before = size > 0
                for piece in pieces_from(size):
                    digest.update(piece)
                    size += len(piece)
                    write_all(file, piece)
                if entry:
                    check_bytes(self.location(key), entry, size, digest.hexdigest())
                rename(file, beside, path)

        try:
            self._read(key, write, entry)
        except ChecksumMismatch:
            if not begun_before:
                raise
            # What was there from before may be what is wrong; it is gone now.
            self._read(key, write, entry)

    def sha256(self, key: str) -> str:
        def hashed(pieces_from: Callable[[int], Iterator[bytes]]) -> str:
            digest = hashlib.sha256()
            for piece in pieces_from(0):
                digest.update(piece)
            return digest.hexdigest()

        return self._read(key, hashed)

    def head(self, key: str) -> ObjectInfo | None:
        found = self._head(key)
        return ObjectInfo(key, found["ContentLength"]) if found else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        found: list[ObjectInfo] = []
        skipped = len(self._prefix) + 1 if self._prefix else 0
        more: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._folder(prefix)}
        while True:
            page = self._ask(prefix, lambda client: client.list_objects_v2(**more))
            for item in page.get("Contents", []):
                found.append(ObjectInfo(item["Key"][skipped:], item["Size"]))
            if not page.get("IsTruncated"):
                break
            more["ContinuationToken"] = page["NextContinuationToken"]
        # Not every server sorts as S3 does.
        yield from sorted(found, key=lambda info: info.key.encode())

    def delete_prefix(self, prefix: str) -> None:
        keys = [self._full(info.key) for info in self.list(check_key(prefix))]
        for start in range(0, len(keys), 1000):
            batch: Any = {"Objects": [{"Key": key} for key in keys[start : start + 1000]]}
            answer = self._ask(
                prefix,
                lambda client: client.delete_objects(Bucket=self._bucket, Delete=batch),  # noqa: B023
            )
            for error in answer.get("Errors", []):
                raise unavailable(self.location(prefix), error.get("Code", "unknown"), 200, "")

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        since = datetime.now(UTC) - timedelta(seconds=older_than_s)
        old: list[tuple[str, str]] = []
        more: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._folder(prefix)}
        while True:
            page = self._ask(prefix, lambda client: client.list_multipart_uploads(**more))
            for item in page.get("Uploads", []):
                if item["Initiated"] <= since:
                    old.append((item["Key"], item["UploadId"]))
            if not page.get("IsTruncated"):
                break
            more["KeyMarker"] = page["NextKeyMarker"]
            more["UploadIdMarker"] = page["NextUploadIdMarker"]
        for full, upload_id in old:
            abort(self._connection, self._bucket, full, upload_id)
        return len(old)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def _full(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}/{key}" if self._prefix else key

    def _folder(self, prefix: str) -> str:
        if check_prefix(prefix):
            return self._full(prefix) + "/"
        return self._prefix + "/" if self._prefix else ""

    def _ask(
        self, key: str, request: "Callable[[S3Client], T]", expected: Collection[int] = ()
    ) -> T:
        return self._connection.ask(self.location(key), request, expected)

    def _ask_for(self, key: str, request: "Callable[[S3Client], T]") -> T:
        try:
            return self._ask(key, request, {404})
        except Refused:
            raise ObjectMissing(self.location(key)) from None

    def _put(self, key: str, data: bytes, expected: Collection[int] = (), **more: Any) -> None:
        checksum = checksum_of(data)
        self._ask(
            key,
            lambda client: client.put_object(
                Bucket=self._bucket,
                Key=self._full(key),
                Body=data,
                ChecksumSHA256=checksum,
                **more,
            ),
            expected,
        )

    def _head(self, key: str) -> "HeadObjectOutputTypeDef | None":
        full = self._full(key)
        try:
            return self._ask(
                key, lambda client: client.head_object(Bucket=self._bucket, Key=full), {404}
            )
        except Refused:
            return None

    def _read(
        self,
        key: str,
        consume: Callable[[Callable[[int], Iterator[bytes]]], T],
        entry: FileEntry | None = None,
    ) -> T:
        """Begins again when the object is replaced while `consume` takes its pieces, from the byte
        that it asks for."""
        for _ in range(WHOLE_READS):
            found = self._head(key)
            if found is None:
                raise ObjectMissing(self.location(key))
            size = found["ContentLength"]
            if entry:
                check_bytes(self.location(key), entry, size)
            with suppress(_ReplacedError):
                return consume(partial(self._pieces, key, found["ETag"], size))
        fault = "it was replaced each time while it was read"
        raise ServiceUnavailable(self.location(key), fault, "run it again once nobody writes there")

    def _pieces(self, key: str, etag: str, size: int, first: int) -> Iterator[bytes]:
        """The object's bytes in order, a few ranges ahead of the reader."""
        ahead: deque[Future[bytes]] = deque()
        try:
            for start in range(first, size, PART_BYTES):
                end = min(start + PART_BYTES, size)
                ahead.append(self._pool.submit(self._range, key, etag, start, end))
                if len(ahead) == PARALLEL_PARTS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except ServiceUnavailable:
            # Or they would go on asking beside whoever tries the same again.
            wait([future for future in ahead if not future.cancel()])
            raise
        finally:
            for future in ahead:
                future.cancel()

    def _range(self, key: str, etag: str, start: int, end: int) -> bytes:
        def request(client: "S3Client") -> tuple[str, bytes]:
            found = client.get_object(
                Bucket=self._bucket,
                Key=self._full(key),
                IfMatch=etag,
                Range=f"bytes={start}-{end - 1}",
            )
            return found["ETag"], found["Body"].read()

        try:
            there, data = self._ask(key, request, {404, 412, 416})
        except Refused as refused:
            if refused.status == 404:
                raise ObjectMissing(self.location(key)) from None
            raise _ReplacedError from None
        if there != etag or len(data) != end - start:  # a server that ignores If-Match
            raise _ReplacedError
        return data
