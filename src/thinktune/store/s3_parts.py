"""Sending a large file to S3 in parallel parts. Used by `s3_store` alone."""

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from thinktune.schema.errors import ServiceUnavailable
from thinktune.store.base import ChecksumMismatch
from thinktune.store.disk import disk_faults
from thinktune.store.s3 import Connection, Refused
from thinktune.store.s3_faults import unavailable

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES = 8 << 20
"""Size of a part on its way; a larger file than this goes in several. S3 wants 5 MiB or more."""

MAX_PARTS = 9000
"""Most parts of a file, of which S3 allows 10,000; a larger file has larger parts."""

PARALLEL_PARTS = 4
"""Parts of one file that are on their way at once. With `PARALLEL_FILES` these are 16 connections
and 128 MiB; one connection gives up to 5 Gb/s."""

WHOLE = "sha256"
"""Name of the metadata of an object sent in parts that holds the SHA-256 of the whole, which S3
cannot compute."""


@dataclass(frozen=True, kw_only=True)
class PartsUpload:
    """The upload of one object in parts."""

    connection: Connection
    pool: ThreadPoolExecutor
    bucket: str
    key: str
    """Key of the object in the bucket."""
    place: str
    """Location of the object, for messages."""

    def send(self, path: Path, sha256: str) -> None:
        """Sends the file. Raises ChecksumMismatch, and leaves nothing, if the file no longer has
        that SHA-256."""
        upload_id = self.connection.ask(
            self.place,
            lambda client: client.create_multipart_upload(
                Bucket=self.bucket,
                Key=self.key,
                ChecksumAlgorithm="SHA256",
                Metadata={WHOLE: sha256},
            ),
        )["UploadId"]
        try:
            digest = hashlib.sha256()
            with disk_faults(path), path.open("rb", buffering=0) as file:
                part_bytes = max(PART_BYTES, -(-path.stat().st_size // MAX_PARTS))
                parts = self._send_parts(upload_id, _hashed(file, part_bytes, digest))
            check_unchanged(path, digest.hexdigest(), sha256)
            self._complete(upload_id, parts, sha256)
        except BaseException:
            with suppress(ServiceUnavailable):  # what is left, abort_uploads clears
                abort(self.connection, self.bucket, self.key, upload_id)
            raise

    def _send_parts(self, upload_id: str, pieces: Iterable[bytes]) -> "list[CompletedPartTypeDef]":
        ahead: deque[Future[CompletedPartTypeDef]] = deque()
        parts: list[CompletedPartTypeDef] = []
        try:
            for number, piece in enumerate(pieces, 1):
                ahead.append(self.pool.submit(self._send_part, upload_id, number, piece))
                if len(ahead) == PARALLEL_PARTS:
                    parts.append(ahead.popleft().result())
            while ahead:
                parts.append(ahead.popleft().result())
        finally:
            # A part that still goes up after the abort would be an orphan.
            for future in ahead:
                if not future.cancel():
                    future.exception()
        return parts

    def _send_part(self, upload_id: str, number: int, data: bytes) -> "CompletedPartTypeDef":
        checksum = checksum_of(data)
        sent = self.connection.ask(
            self.place,
            lambda client: client.upload_part(
                Bucket=self.bucket,
                Key=self.key,
                UploadId=upload_id,
                PartNumber=number,
                Body=data,
                ChecksumSHA256=checksum,
            ),
        )
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def _complete(self, upload_id: str, parts: "list[CompletedPartTypeDef]", sha256: str) -> None:
        try:
            self.connection.ask(
                self.place,
                lambda client: client.complete_multipart_upload(
                    Bucket=self.bucket,
                    Key=self.key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                ),
                {404},
            )
        except Refused as refused:
            # An earlier try may have completed it, with its answer lost.
            if not self._is_there(sha256):
                raise unavailable(self.place, refused.code, refused.status, "") from None

    def _is_there(self, sha256: str) -> bool:
        with suppress(Refused):
            found = self.connection.ask(
                self.place,
                lambda client: client.head_object(Bucket=self.bucket, Key=self.key),
                {404},
            )
            return found["Metadata"].get(WHOLE) == sha256
        return False


def abort(connection: Connection, bucket: str, key: str, upload_id: str) -> None:
    """Frees the parts of an upload that will not be completed, if it is still there."""
    with suppress(Refused):
        connection.ask(
            f"s3://{bucket}/{key}",
            lambda client: client.abort_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload_id
            ),
            {404},
        )


def check_unchanged(path: Path, found: str, sha256: str) -> None:
    """Raises ChecksumMismatch if what was read is not what was hashed before."""
    if found != sha256:
        fault = "it changed while it was stored"
        raise ChecksumMismatch(str(path), fault, "store it once it is finished")


def checksum_of(data: bytes) -> str:
    """SHA-256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _hashed(file: BinaryIO, part_bytes: int, digest: "hashlib._Hash") -> Iterator[bytes]:
    while piece := _read_part(file, part_bytes):
        digest.update(piece)
        yield piece


def _read_part(file: BinaryIO, part_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while part_bytes and (piece := file.read(part_bytes)):
        pieces.append(piece)
        part_bytes -= len(piece)
    return b"".join(pieces)
