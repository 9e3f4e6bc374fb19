"""Downloads that are cut off, stopped or disturbed, and the ones after them."""

import hashlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import COMMAND, environment, thinktune
from fault_proxy import Fault, Proxy
from one_artifact import LARGE, commit_it, sha256

from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.manifest import FileEntry
from thinktune.store import Store
from thinktune.store.s3_parts import PART_BYTES


def ranges(proxy: Proxy, passed: int, pause_s: float = 0.0) -> list[str]:
    """Counts reads; after so many, the server is too busy for any."""
    asked: list[str] = []

    def decide(method: str, path: str) -> Fault | None:
        if method == "GET" and path.endswith("/model"):
            asked.append(path)
            time.sleep(pause_s)
            return "slow down" if len(asked) > passed else None
        return None

    proxy.decide = decide
    return asked


def test_a_download_goes_on_where_the_one_before_it_was_cut_off(
    s3_store: Store,
    faulty_store: Store,
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thinktune.store.s3.TRIES", 3)
    data = os.urandom(6 * PART_BYTES)
    entry = FileEntry(name="model", size=len(data), sha256=hashlib.sha256(data).hexdigest())
    (tmp_path / "in").write_bytes(data)
    s3_store.upload("a/model", tmp_path / "in", entry.sha256)
    out = tmp_path / "deep" / "out"
    ranges(proxy, 4)
    with pytest.raises(ServiceUnavailable):
        faulty_store.download("a/model", out, entry)
    (begun,) = out.parent.iterdir()
    kept = begun.stat().st_size // PART_BYTES
    assert 1 <= kept <= 4
    asked = ranges(proxy, 6)
    faulty_store.download("a/model", out, entry)
    assert len(asked) == 6 - kept
    assert out.read_bytes() == data
    assert list(out.parent.iterdir()) == [out]


def test_what_was_begun_wrongly_is_not_built_upon(
    s3_store: Store, tmp_path: Path, model: Path
) -> None:
    entry = FileEntry(name="model", size=LARGE, sha256=sha256(model))
    s3_store.upload("a/model", model, entry.sha256)
    (tmp_path / f".copy.{entry.sha256[:12]}.unfinished").write_bytes(b"x" * 100)
    s3_store.download("a/model", tmp_path / "copy", entry)
    assert sha256(tmp_path / "copy") == entry.sha256


def test_two_downloads_of_one_file_at_once(s3_store: Store, tmp_path: Path, model: Path) -> None:
    entry = FileEntry(name="model", size=LARGE, sha256=sha256(model))
    s3_store.upload("a/model", model, entry.sha256)
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(s3_store.download, "a/model", tmp_path / "copy", entry) for _ in "1234"
        ]
        assert [each.result() for each in asked] == [None] * 4
    assert sha256(tmp_path / "copy") == entry.sha256
    assert not list(tmp_path.glob(".copy*"))


def test_ctrl_c_ends_a_fetch_at_once_and_the_next_goes_on(
    s3_store: Store, s3_url: str, proxy: Proxy, tmp_path: Path, model: Path
) -> None:
    commit_it(s3_store, model.parent)
    asked = ranges(proxy, 1000, pause_s=6.0)
    command = ["fetch", "r1", "--store", s3_url, "--out", str(tmp_path / "got")]
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    slow = environment(more=keys | {"AWS_ENDPOINT_URL_S3": proxy.endpoint})
    fetching = subprocess.Popen([*COMMAND, *command], env=slow, stderr=subprocess.PIPE)
    while len(asked) < 2:
        time.sleep(0.05)
    fetching.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, words = fetching.communicate(timeout=20)
    assert fetching.returncode == 130
    assert time.monotonic() - began < 4  # not the rest of the file
    assert b"stopped" in words
    again = thinktune(*command, more=keys)
    assert again.code == 0, again.err
    assert sha256(tmp_path / "got" / "model") == sha256(model)
