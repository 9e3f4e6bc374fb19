"""What a store is: objects under keys, whole or absent. Callers hold a `Store` and never ask which.

`local` and `s3` implement it, `commit` builds artifacts on it, the tasks read and write through it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.manifest import FileEntry

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written; never a key, never listed."""

KEY_BYTES = 900
"""S3 allows 1024, of which the store's own prefix takes some."""

NAME_BYTES = 200
"""File systems allow 255 between two slashes; the temporary name needs the rest."""


class ObjectMissing(LookupError):
    """Nothing is under that key. Not a fault by itself: the caller knows what absence means."""

    def __init__(self, place: str) -> None:
        super().__init__(f"nothing at {place}")
        self.place = place


class ChecksumMismatch(InputMissing):
    """Bytes that are not those that were committed: short, flipped or replaced."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object."""

    key: str
    size: int
    """Bytes."""


class Store(ABC):
    """Objects under keys. Every method is safe to call from several threads.

    A prefix means a folder: `runs/a` covers `runs/a/x` and not `runs/ab`; `""` covers everything.
    All methods raise SpecInvalid for a key that `check_key` refuses, ServiceUnavailable when the
    service refuses or does not answer, DeviceUnusable when a local disk fails.
    """

    url: str
    """Address as given, without a trailing slash and without credentials."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object, for small ones. Raises ObjectMissing."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Writes or replaces; readers see the old or the new, nothing between."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Writes unless something is there; of racing writers exactly one gets True."""

    @abstractmethod
    def upload(self, key: str, path: Path, sha256: str) -> None:
        """Stores a file of any size. Raises ChecksumMismatch if it no longer has that SHA-256."""

    @abstractmethod
    def download(self, key: str, path: Path, entry: FileEntry | None = None) -> None:
        """Writes the object to `path`, whole or not at all; makes the folders above it.

        Raises ObjectMissing, and ChecksumMismatch if size or SHA-256 differ from `entry`'s.
        """

    @abstractmethod
    def sha256(self, key: str) -> str:
        """SHA-256 of the object as it is stored now, in hex: reads all of it. Raises
        ObjectMissing."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """Whether it is there, and its size."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a folder, sorted by key (as UTF-8 bytes)."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Removes all objects below a folder, which may be empty; refuses `""`."""

    @abstractmethod
    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """Clears what killed writers left half-written below a folder; returns how many.

        `older_than_s` spares writers that are still at it.
        """

    @abstractmethod
    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine, if it does, so that nobody copies it. Not to be
        written to. Does not say that it exists."""

    def location(self, key: str) -> str:
        """The key's address, for messages."""
        return f"{self.url}/{key}" if key else self.url


def key_fault(key: str) -> str | None:
    """What is wrong with a key or with a name in a manifest; None if it is safe everywhere."""
    parts = key.split("/")
    if not key:
        return "is empty"
    if key.startswith("/"):
        return "is absolute"
    if "" in parts:
        return "has an empty part"
    if ".." in parts or "." in parts:
        return "has a part '.' or '..'"
    if "\\" in key or any(ord(char) < 32 or ord(char) == 127 for char in key):
        return "has a backslash or a control character"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in key):
        return "is not UTF-8"
    if len(key.encode()) > KEY_BYTES or any(len(part.encode()) > NAME_BYTES for part in parts):
        return f"is longer than {KEY_BYTES} bytes, or {NAME_BYTES} between slashes"
    if any(part.endswith(UNFINISHED) for part in parts):
        return f"ends in '{UNFINISHED}'"
    return None


def check_key(key: str) -> str:
    """The key itself. Raises SpecInvalid for one that could leave the store or hide in it."""
    fault = key_fault(key)
    if fault:
        raise SpecInvalid(repr(key), f"as a key it {fault}", "use plain names joined by '/'")
    return key


def check_prefix(prefix: str) -> str:
    """Like `check_key`, for a folder; `""` is the whole store."""
    return check_key(prefix) if prefix else prefix


def check_bytes(place: str, entry: FileEntry, size: int, sha256: str | None = None) -> None:
    """Raises ChecksumMismatch unless size (bytes) and, if known, SHA-256 are the entry's."""
    remedy = "delete that artifact and run the stage that makes it again"
    if size != entry.size:
        fault = f"has {size} bytes, its manifest says {entry.size}"
        raise ChecksumMismatch(place, fault, remedy)
    if sha256 not in (None, entry.sha256):
        fault = f"its bytes changed: SHA-256 is {sha256}, its manifest says {entry.sha256}"
        raise ChecksumMismatch(place, fault, remedy)
