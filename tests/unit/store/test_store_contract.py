"""What every store does, on a disk and on S3."""

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.manifest import FileEntry
from thinktune.store import ChecksumMismatch, ObjectInfo, ObjectMissing, Store

LARGE = 40 << 20


def entry_of(name: str, data: bytes) -> FileEntry:
    return FileEntry(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def test_put_get_replace(store: Store) -> None:
    store.put("runs/a/x.json", b"one")
    store.put("runs/a/x.json", b"two")
    assert store.get("runs/a/x.json") == b"two"
    assert store.head("runs/a/x.json") == ObjectInfo("runs/a/x.json", 3)
    assert store.sha256("runs/a/x.json") == hashlib.sha256(b"two").hexdigest()


def test_what_is_absent(store: Store, tmp_path: Path) -> None:
    store.put("runs/a/x", b"")
    assert store.head("runs/b") is None
    assert store.head("runs/a") is None
    for key in ("runs/b", "runs/a", "runs/a/x/y"):
        with pytest.raises(ObjectMissing):
            store.get(key)
        with pytest.raises(ObjectMissing):
            store.download(key, tmp_path / "out")
        with pytest.raises(ObjectMissing):
            store.sha256(key)
    assert list(tmp_path.glob("out*")) == []


def test_an_empty_object(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    store.upload("empty", tmp_path / "in", hashlib.sha256().hexdigest())
    store.download("empty", tmp_path / "out", entry_of("empty", b""))
    assert (tmp_path / "out").read_bytes() == b""
    assert store.get("empty") == b""


def test_a_prefix_is_a_folder_and_lists_sort(store: Store) -> None:
    keys = ["a/b/c", "a/b-c", "a/b.d", "a/z", "ab/x", "a/é"]
    for key in keys:
        store.put(key, b"1")
    below = [key for key in keys if key.startswith("a/")]
    assert [info.key for info in store.list("a")] == sorted(below, key=str.encode)
    assert [info.key for info in store.list("")] == sorted(keys, key=str.encode)
    assert list(store.list("nothing")) == []
    store.delete_prefix("a")
    store.delete_prefix("nothing")
    assert [info.key for info in store.list("")] == ["ab/x"]


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("k", b"first")
    assert not store.put_if_absent("k", b"second")
    assert store.get("k") == b"first"


def test_of_sixteen_racing_writers_one_wins(store: Store) -> None:
    together = threading.Barrier(16)

    def write(number: int) -> bool:
        together.wait()
        return store.put_if_absent("race/manifest.json", b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    assert sum(won) == 1
    assert store.get("race/manifest.json") == b"%d" % won.index(True)
    assert len(list(store.list("race"))) == 1


def test_a_large_file_goes_both_ways(store: Store, tmp_path: Path) -> None:
    data = os.urandom(LARGE + 12345)
    entry = entry_of("model", data)
    (tmp_path / "in").write_bytes(data)
    store.upload("big/model", tmp_path / "in", entry.sha256)
    assert store.head("big/model") == ObjectInfo("big/model", len(data))
    store.download("big/model", tmp_path / "deep" / "out", entry)
    assert (tmp_path / "deep" / "out").read_bytes() == data
    assert store.sha256("big/model") == entry.sha256
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_file_that_changes_is_not_stored(store: Store, tmp_path: Path, size: int) -> None:
    (tmp_path / "in").write_bytes(bytes(size))
    with pytest.raises(ChecksumMismatch, match="changed"):
        store.upload("k", tmp_path / "in", "0" * 64)
    assert list(store.list("")) == []
    assert store.abort_uploads("", 0) == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(lambda data: b"X" + data[1:], "bytes changed"), (lambda data: data[:-1], "has 2 bytes")],
)
def test_wrong_bytes_never_arrive(
    store: Store, tmp_path: Path, spoil: Callable[[bytes], bytes], says: str
) -> None:
    store.put("k", spoil(b"abc"))
    with pytest.raises(ChecksumMismatch, match=says) as raised:
        store.download("k", tmp_path / "out", entry_of("k", b"abc"))
    assert raised.value.exit_code == 66
    assert raised.value.place == f"{store.url}/k"
    assert list(tmp_path.glob("*out*")) == []


HOSTILE = [
    *("", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb"),
    *("x" * 300, "a/" * 500 + "a", "\ud800", "k.unfinished"),
]


def test_hostile_keys_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    calls: list[Callable[[str], object]] = [
        store.get,
        lambda key: store.put(key, b""),
        lambda key: store.put_if_absent(key, b""),
        lambda key: store.upload(key, tmp_path / "in", hashlib.sha256().hexdigest()),
        lambda key: store.download(key, tmp_path / "out"),
        store.sha256,
        store.head,
        store.delete_prefix,
        store.local_path,
        lambda key: list(store.list(key or "/")),
        lambda key: store.abort_uploads(key or "/", 0),
    ]
    for key in HOSTILE:
        for call in calls:
            with pytest.raises(SpecInvalid):
                call(key)


def test_local_path_is_for_local_stores(store: Store) -> None:
    store.put("a/b", b"x")
    path = store.local_path("a/b")
    assert path is None if store.url.startswith("s3:") else path and path.read_bytes() == b"x"
