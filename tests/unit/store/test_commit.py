"""The commit protocol and the reading of artifacts, on a disk and on S3."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from thinktune.schema.errors import InputMissing, ServiceUnavailable
from thinktune.schema.manifest import Manifest
from thinktune.store import (
    Store,
    commit,
    fetch,
    file_key,
    hash_folder,
    manifest_digest,
    new_attempt,
    open_store,
    read_manifest,
    verify,
)

PREFIX = "runs/r1/prep"
TASK = "a" * 64
OTHER = "b" * 64
CREATED = "2026-01-01T00:00:00Z"
LARGE = 20 << 20


def output(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    for name, data in (files or {"rows.jsonl": b"rows", "model/config.json": b"{}"}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def committed(store: Store, folder: Path, **changed: Any) -> Manifest:
    said: dict[str, Any] = {
        "kind": "prep",
        "run": "r1",
        "attempt": new_attempt(),
        "inputs": {"data": OTHER},
        "task_sha256": TASK,
        "created": CREATED,
    }
    return commit(store, PREFIX, folder, **(said | changed))


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_attempts_differ_and_sort_by_time() -> None:
    attempts = {new_attempt() for _ in range(100)}
    assert len(attempts) == 100
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", attempt) for attempt in attempts)


def test_commit_then_fetch(store: Store, tmp_path: Path) -> None:
    assert read_manifest(store, PREFIX) is None
    manifest = committed(store, output(tmp_path / "out"), metrics={"rows": 4}, revisions={"m": "1"})
    assert [entry.name for entry in manifest.files] == ["model/config.json", "rows.jsonl"]
    assert read_manifest(store, PREFIX) == manifest
    assert manifest_digest(manifest) == manifest.digest()
    verify(store, PREFIX, manifest, checksums=True)
    dest = fetch(store, PREFIX, manifest, tmp_path / "in")
    assert names(dest) == names(tmp_path / "out")
    assert (dest / "rows.jsonl").read_bytes() == b"rows"
    one = fetch(store, PREFIX, manifest, tmp_path / "one", ["rows.jsonl"])
    assert names(one) == ["rows.jsonl"]
    with pytest.raises(InputMissing, match=r"no file 'row\.jsonl'; did you mean 'rows\.jsonl'"):
        fetch(store, PREFIX, manifest, tmp_path / "one", ["row.jsonl"])


def test_a_second_fetch_keeps_what_is_right(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = committed(store, output(tmp_path / "out"))
    dest = fetch(store, PREFIX, manifest, tmp_path / "in")
    (dest / "rows.jsonl").write_bytes(b"Xows")
    brought: list[Path] = []
    download = store.download

    def counted(key: str, path: Path, entry: Any = None) -> None:
        brought.append(path)
        download(key, path, entry)

    monkeypatch.setattr(store, "download", counted)
    fetch(store, PREFIX, manifest, dest)
    assert brought == [dest / "rows.jsonl"]
    assert (dest / "rows.jsonl").read_bytes() == b"rows"


def test_two_attempts_leave_one_manifest(store: Store, tmp_path: Path) -> None:
    folders = [output(tmp_path / str(n), {"rows.jsonl": b"from %d" % n}) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda folder: committed(store, folder), folders))
    assert len({manifest.digest() for manifest in got}) == 1
    assert read_manifest(store, PREFIX) == got[0]
    verify(store, PREFIX, got[0], checksums=True)
    below = [info.key for info in store.list(PREFIX)]
    assert below == [file_key(store, PREFIX, got[0], "rows.jsonl"), f"{PREFIX}/manifest.json"]


def test_the_same_commit_again_is_adopted(store: Store, tmp_path: Path) -> None:
    first = committed(store, output(tmp_path / "out"))
    again = committed(store, output(tmp_path / "out"), created="2026-01-02T00:00:00Z")
    assert again == first


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"task_sha256": OTHER}, "another task"), ({"inputs": {"data": TASK}}, "another inputs")],
)
def test_another_artifact_is_not_overwritten(
    store: Store, tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    first = committed(store, output(tmp_path / "out"))
    with pytest.raises(InputMissing, match=says):
        committed(store, output(tmp_path / "out"), **changed)
    assert read_manifest(store, PREFIX) == first


_KILLED = """
import sys, time
from pathlib import Path
from thinktune.store import commit, open_store
store = open_store(sys.argv[1])
def never(key, data):
    print("uploaded", flush=True)
    time.sleep(600)
store.put_if_absent = never
commit(store, "runs/r1/prep", Path(sys.argv[2]), kind="prep", run="r1", attempt="killed",
       inputs={}, task_sha256=None, created="2026-01-01T00:00:00Z")
"""


def test_a_commit_killed_before_its_manifest(store: Store, tmp_path: Path) -> None:
    folder = output(tmp_path / "out")
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, store.url, str(folder)], stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"uploaded\n"
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert {info.key.split("/")[3] for info in store.list(PREFIX)} == {"attempts"}
    assert read_manifest(store, PREFIX) is None
    manifest = committed(store, folder)
    assert read_manifest(store, PREFIX) == manifest
    verify(store, PREFIX, manifest, checksums=True)


@pytest.mark.parametrize("size", [4, LARGE])
@pytest.mark.parametrize("harm", ["flipped", "truncated", "deleted"])
def test_harm_is_found(store: Store, tmp_path: Path, size: int, harm: str) -> None:
    good = os.urandom(size)
    files = {"a": b"fine", "m/model": good, "z": b"z"}
    manifest = committed(store, output(tmp_path / "out", files))
    key = file_key(store, PREFIX, manifest, "m/model")
    if harm == "deleted":
        store.delete_prefix(key.rpartition("/")[0])
        says = "not there"
    elif harm == "truncated":
        store.put(key, good[:-1])
        says = f"has {size - 1} bytes"
    else:
        store.put(key, good[:-1] + bytes([good[-1] ^ 1]))
        says = "bytes changed"
    with pytest.raises(InputMissing, match=says) as raised:
        verify(store, PREFIX, manifest, checksums=True)
    assert raised.value.place == store.location(key)
    with pytest.raises(InputMissing, match=says):
        fetch(store, PREFIX, manifest, tmp_path / "in")
    assert "m/model" not in names(tmp_path / "in")


def test_a_hostile_name_in_a_manifest(store: Store, tmp_path: Path) -> None:
    manifest = committed(store, output(tmp_path / "out"))
    for name in ("../../../stolen", "/etc/passwd", "a/../../b", "..", "a\\b"):
        entry = manifest.files[0].model_copy(update={"name": name})
        hostile = manifest.model_copy(update={"files": (entry,)})
        with pytest.raises(InputMissing, match="name"):
            verify(store, PREFIX, hostile, checksums=False)
        with pytest.raises(InputMissing, match="name"):
            fetch(store, PREFIX, hostile, tmp_path / "in")
        store.put(f"{PREFIX}/manifest.json", hostile.canonical().encode())
        with pytest.raises(InputMissing, match="name"):
            read_manifest(store, PREFIX)
    elsewhere = manifest.model_copy(update={"attempt": "../../r2/prep/attempts/x"})
    with pytest.raises(InputMissing, match="attempt"):
        fetch(store, PREFIX, elsewhere, tmp_path / "in")
    assert names(tmp_path / "in") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[]", "format is None"),
        ('{"format": 9}', "format is 9"),
        ('{"format": 1}', "is missing"),
    ],
)
def test_an_unreadable_manifest(folder_store: Store, text: str, says: str) -> None:
    folder_store.put(f"{PREFIX}/manifest.json", text.encode("latin-1"))
    with pytest.raises(InputMissing, match=says) as raised:
        read_manifest(folder_store, PREFIX)
    assert raised.value.place.endswith(f"{PREFIX}/manifest.json")


def test_a_manifest_is_readable_json(folder_store: Store, tmp_path: Path) -> None:
    committed(folder_store, output(tmp_path / "out"), metrics={"loss": 0.5})
    text = folder_store.get(f"{PREFIX}/manifest.json").decode()
    assert text.endswith("}\n") and len(text.splitlines()) > 10
    assert json.loads(text)["metrics"] == {"loss": 0.5}


def test_what_cannot_be_committed(folder_store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissing, match="no file"):
        hash_folder(tmp_path / "empty")
    with pytest.raises(InputMissing, match="cannot be read"):
        hash_folder(tmp_path / "absent")
    folder = output(tmp_path / "out")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputMissing, match="link out of its folder"):
        committed(folder_store, folder)
    (folder / "link").unlink()
    (folder / "link").symlink_to(folder / "rows.jsonl")
    assert [entry.size for entry in hash_folder(folder)] == [4, 2, 4]
    os.mkfifo(folder / "pipe")
    with pytest.raises(InputMissing, match="not a regular file"):
        hash_folder(folder)


def test_an_upload_that_holds_less_is_not_committed(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = folder_store.upload

    def short(key: str, path: Path, sha256: str) -> None:
        upload(key, path, sha256)
        folder_store.put(key, b"")

    monkeypatch.setattr(folder_store, "upload", short)
    with pytest.raises(ServiceUnavailable, match="holds 0 of 2 bytes"):
        committed(folder_store, output(tmp_path / "out"))
    assert read_manifest(folder_store, PREFIX) is None


def test_large_files_of_a_local_store_are_linked(folder_store: Store, tmp_path: Path) -> None:
    files = {"model": bytes(LARGE), "config.json": b"{}"}
    manifest = committed(folder_store, output(tmp_path / "out", files))
    dest = fetch(folder_store, PREFIX, manifest, tmp_path / "in")
    linked = folder_store.local_path(file_key(folder_store, PREFIX, manifest, "model"))
    assert linked and (dest / "model").samefile(linked)
    assert linked.stat().st_mode & 0o222 == 0
    (dest / "config.json").write_bytes(b"edited")
    verify(folder_store, PREFIX, manifest, checksums=True)


def test_stores_with_one_address_share_artifacts(store: Store, tmp_path: Path) -> None:
    manifest = committed(store, output(tmp_path / "out"))
    assert read_manifest(open_store(store.url), PREFIX) == manifest
