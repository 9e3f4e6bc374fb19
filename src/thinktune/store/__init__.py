"""Where artifacts are kept, on a disk or in S3, and how one is committed whole or not at all.

Tasks, launch and the command line open a store here and never look below.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from thinktune.schema.errors import SpecInvalid
from thinktune.store.artifact import (
    fetch,
    file_key,
    files_digest,
    manifest_digest,
    read_manifest,
    verify,
)
from thinktune.store.base import ChecksumMismatch, ObjectInfo, ObjectMissing, Store, key_fault
from thinktune.store.commit import commit, hash_folder, new_attempt
from thinktune.store.disk import file_sha256
from thinktune.store.local import FileStore

__all__ = [
    "ChecksumMismatch",
    "ObjectInfo",
    "ObjectMissing",
    "Store",
    "commit",
    "fetch",
    "file_key",
    "file_sha256",
    "files_digest",
    "hash_folder",
    "manifest_digest",
    "new_attempt",
    "open_store",
    "read_manifest",
    "verify",
]


def open_store(url: str, *, endpoint: str | None = None) -> Store:
    """Opens `file:///path` or `s3://bucket[/prefix]`, without asking it anything yet.

    A path's odd characters are quoted as in any URL: `Path.as_uri` writes it so.
    Credentials of S3 come from the environment, as boto3 takes them, and so does its endpoint where
    none is given: AWS_ENDPOINT_URL_S3 and the like.
    Raises SpecInvalid for any other address.
    """
    parts = urlsplit(url)
    place = f"store '{url}'" if "@" not in parts.netloc else f"store '{parts.scheme}://…'"
    if "@" in parts.netloc:
        remedy = "leave them out; they come from the environment (AWS_PROFILE and the like)"
        raise SpecInvalid(place, "an address has no place for credentials", remedy)
    if parts.query or parts.fragment:
        remedy = "leave that out; in a path, write %3F and %23"
        raise SpecInvalid(place, "it has a '?' or a '#'", remedy)
    if parts.scheme == "file":
        path = unquote(parts.path, errors="surrogateescape")  # names need not be UTF-8
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            remedy = "write an absolute path after three slashes: file:///data/runs"
            raise SpecInvalid(place, "it is not a path on this machine", remedy)
        return FileStore(Path(path))
    if parts.scheme == "s3":
        prefix = parts.path.strip("/")
        fault = key_fault(prefix) if prefix else None
        if not parts.netloc or fault:
            fault = f"its prefix {fault}" if fault else "it names no bucket"
            raise SpecInvalid(place, fault, "write s3://bucket or s3://bucket/prefix")
        from thinktune.store.s3_store import (
            S3Store,
        )  # boto3 takes long to import; `plan` needs none

        return S3Store(parts.netloc, prefix, endpoint)
    remedy = "write file:///path or s3://bucket/prefix"
    raise SpecInvalid(place, "it is neither a folder nor S3", remedy)
