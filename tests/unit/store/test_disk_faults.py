"""A disk that is full, read-only or not ours: exit code 71 and no half artifact."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from one_artifact import commit_it
from small_disk import mounted

from thinktune.schema.errors import DeviceUnusable, SpecInvalid
from thinktune.store import Store, open_store

MEGABYTE = 1 << 20


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def commit_large(store: Store, folder: Path) -> None:
    folder.mkdir()
    (folder / "model").write_bytes(bytes(4 * MEGABYTE))
    commit_it(store, folder)


def test_a_full_disk_leaves_no_artifact(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        store = open_store(f"file://{disk}/store")
        with pytest.raises(DeviceUnusable, match="no space left on device; free space") as raised:
            commit_large(store, tmp_path / "out")
        assert raised.value.place.startswith(f"{disk}/store/runs/r1/train/attempts/")
        assert left(disk) == []


def test_a_full_disk_ends_a_download(store: Store, tmp_path: Path) -> None:
    store.put("model", bytes(4 * MEGABYTE))
    with mounted(tmp_path / "disk", "size=2m") as disk:
        with pytest.raises(DeviceUnusable, match="no space left") as raised:
            store.download("model", disk / "model")
        assert raised.value.place == f"{disk}/model"
        assert left(disk) == []


_LIMITED = f"""
import resource, sys
from pathlib import Path
from thinktune.schema.errors import ThinktuneError
from thinktune.store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, ({MEGABYTE}, {MEGABYTE}))
try:
    open_store(sys.argv[1]).put("model", bytes({2 * MEGABYTE}))
except ThinktuneError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_limit_on_file_sizes_acts_like_a_full_disk(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    done = subprocess.run([sys.executable, "-c", _LIMITED, url], capture_output=True, text=True)
    assert done.returncode == 71, done.stderr
    assert "file too large; raise the limit" in done.stdout
    assert left(tmp_path / "store") == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != MEGABYTE


@pytest.mark.parametrize(
    "write",
    [lambda store: store.put("k", b""), lambda store: store.put_if_absent("k", b"")],
)
def test_a_read_only_disk(tmp_path: Path, write: Callable[[Store], object]) -> None:
    says = "read-only file system; mount it writable"
    with mounted(tmp_path / "disk", "ro") as disk, pytest.raises(DeviceUnusable, match=says):
        write(open_store(f"file://{disk}"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_someone_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DeviceUnusable, match="permission denied; let this user write"):
        open_store(f"file://{tmp_path}").put("k", b"")
    tmp_path.chmod(0o755)


def test_a_file_where_a_folder_should_be(folder_store: Store) -> None:
    folder_store.put("a", b"")
    with pytest.raises(SpecInvalid, match="same name"):
        folder_store.put("a/b", b"")
    folder_store.put("c/d", b"")
    with pytest.raises(SpecInvalid, match="same name"):
        folder_store.put("c", b"")


_KILLED = """
import os, signal, sys
import thinktune.store.local
from thinktune.store import open_store
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
thinktune.store.local.rename = kill
open_store(sys.argv[1]).put("a/model", b"half")
"""


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")
    done = subprocess.run([sys.executable, "-c", _KILLED, store.url])
    assert done.returncode == -9
    assert list(store.list("")) == []
    assert [path.suffix for path in left(tmp_path)] == [".unfinished"]
    assert store.abort_uploads("", older_than_s=3600) == 0
    os.utime(left(tmp_path)[0], times=(time.time() - 7200,) * 2)
    assert store.abort_uploads("b", older_than_s=3600) == 0
    assert store.abort_uploads("a", older_than_s=3600) == 1
    assert left(tmp_path) == []
