"""What networks, busy services and wrong settings do to S3: done, or exit code 69; never half."""

import hashlib
import os
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from fault_proxy import Fault, Proxy
from one_artifact import LARGE, PREFIX, commit_it, sha256
from s3_server import BUCKET, S3Server

from thinktune.schema.errors import ServiceUnavailable
from thinktune.schema.manifest import FileEntry
from thinktune.store import (
    ChecksumMismatch,
    Store,
    fetch,
    open_store,
    read_manifest,
    verify,
)


def once(proxy: Proxy, fault: Fault, method: str, *marks: str) -> None:
    """That fault, for the first request that has the method and the marks in its path."""

    def decide(asked: str, path: str) -> Fault | None:
        hit = asked == method and all(mark in path for mark in marks)
        return fault if hit and not proxy.injected else None

    proxy.decide = decide


def sometimes(proxy: Proxy, share: float, *faults: Fault) -> None:
    chance = random.Random(7)

    def decide(method: str, path: str) -> Fault | None:
        return chance.choice(faults) if chance.random() < share else None

    proxy.decide = decide


def test_slow_down_on_a_third_of_requests(
    faulty_store: Store, proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    sometimes(proxy, 0.3, "slow down")
    for number in range(6):
        (model.parent / f"{number}.json").write_text("{}")
    manifest = commit_it(faulty_store, model.parent)
    dest = fetch(faulty_store, PREFIX, manifest, tmp_path / "in")
    assert sha256(dest / "model") == sha256(model)
    assert len(proxy.injected) > 5


def test_resets_in_bodies_and_lost_answers(
    faulty_store: Store, proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    sometimes(proxy, 0.2, "reset in body", "lose answer")
    manifest = commit_it(faulty_store, model.parent)
    verify(faulty_store, PREFIX, manifest, checksums=True)
    dest = fetch(faulty_store, PREFIX, manifest, tmp_path / "in")
    assert sha256(dest / "model") == sha256(model)
    assert len(list(faulty_store.list(PREFIX))) == 2
    assert {"reset in body", "lose answer"} <= set(proxy.injected)


def test_a_reset_in_the_body_of_a_small_object(faulty_store: Store, proxy: Proxy) -> None:
    faulty_store.put("k", b"x" * 100_000)
    once(proxy, "reset in body", "GET")
    assert faulty_store.get("k") == b"x" * 100_000
    assert proxy.injected == ["reset in body"]


def test_a_flipped_byte_on_the_way_is_found(
    faulty_store: Store, proxy: Proxy, tmp_path: Path
) -> None:
    faulty_store.put("k", b"abc")
    entry = FileEntry(name="k", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    proxy.decide = lambda method, path: "flip a byte" if method == "GET" else None
    with pytest.raises((ChecksumMismatch, ServiceUnavailable)):
        faulty_store.download("k", tmp_path / "k", entry)
    assert list(tmp_path.iterdir()) == []


def test_one_flipped_byte_is_asked_for_again(faulty_store: Store, proxy: Proxy) -> None:
    faulty_store.put("k", b"abc")
    once(proxy, "flip a byte", "GET")
    assert faulty_store.get("k") == b"abc"  # the service sends its checksum along
    assert proxy.injected == ["flip a byte"]


def test_a_winner_whose_answer_was_lost_has_won(faulty_store: Store, proxy: Proxy) -> None:
    once(proxy, "lose answer", "PUT")
    assert faulty_store.put_if_absent("k", b"mine")
    assert proxy.injected == ["lose answer"]
    assert not faulty_store.put_if_absent("k", b"theirs")
    assert faulty_store.get("k") == b"mine"


def test_of_racing_writers_with_lost_answers_one_wins(faulty_store: Store, proxy: Proxy) -> None:
    sometimes(proxy, 0.3, "lose answer")
    together = threading.Barrier(8)

    def write(number: int) -> bool:
        together.wait()
        return faulty_store.put_if_absent("k", b"the same")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    assert proxy.injected


def test_a_completion_whose_answer_was_lost(
    faulty_store: Store, proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    once(proxy, "lose answer", "POST", "uploadId=")
    faulty_store.upload("k", model, sha256(model))
    assert proxy.injected == ["lose answer"]
    assert faulty_store.sha256("k") == sha256(model)


def test_an_error_inside_a_200_is_a_failure(
    faulty_store: Store, proxy: Proxy, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once(proxy, "error in 200", "POST", "uploadId=")
    faulty_store.upload("k", model, sha256(model))
    assert faulty_store.sha256("k") == sha256(model)
    monkeypatch.setattr("thinktune.store.s3.LONGEST_PAUSE_S", 0.01)
    proxy.decide = lambda method, path: (
        "error in 200" if method == "POST" and "uploadId=" in path else None
    )
    with pytest.raises(ServiceUnavailable, match="InternalError"):
        faulty_store.upload("never", model, sha256(model))
    assert faulty_store.head("never") is None
    assert faulty_store.abort_uploads("", 0) == 0


def test_retries_end(faulty_store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktune.store.s3.LONGEST_PAUSE_S", 0.01)
    proxy.decide = lambda method, path: "slow down"
    with pytest.raises(ServiceUnavailable, match="slow down") as raised:
        faulty_store.put("k", b"")
    assert raised.value.exit_code == 69
    assert 2 < len(proxy.injected) < 20


def test_an_object_replaced_during_its_download(
    faulty_store: Store, proxy: Proxy, s3_store: Store, model: Path, tmp_path: Path
) -> None:
    faulty_store.upload("k", model, sha256(model))
    new = os.urandom(LARGE)
    replaced = threading.Event()

    def decide(method: str, path: str) -> Fault | None:
        if method == "GET" and not replaced.is_set():
            replaced.set()
            s3_store.put("k", new)
        return None

    proxy.decide = decide
    faulty_store.download("k", tmp_path / "in")
    assert (tmp_path / "in").read_bytes() == new


def test_orphan_uploads_are_aborted(s3_store: Store, server: S3Server) -> None:
    client = boto3.client("s3", endpoint_url=server.endpoint)
    below = s3_store.url.removeprefix(f"s3://{BUCKET}/")
    for key in ("a/model", "b/model"):
        client.create_multipart_upload(Bucket=BUCKET, Key=f"{below}/{key}")
    client.close()
    assert s3_store.abort_uploads("a", older_than_s=3600) == 0
    assert s3_store.abort_uploads("a", older_than_s=-60) == 1
    assert s3_store.abort_uploads("", older_than_s=-60) == 1
    assert s3_store.abort_uploads("", older_than_s=-60) == 0


def test_a_wrong_secret(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-tests")
    store = open_store(s3_url)
    for call in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: store.head("k")):
        with pytest.raises(ServiceUnavailable) as raised:
            call()
        assert raised.value.place == f"{s3_url}/k"
        assert raised.value.exit_code == 69
        assert "canary" not in str(raised.value)
    with pytest.raises(ServiceUnavailable, match="secret key is wrong; check AWS_ACCESS_KEY_ID"):
        store.get("k")


def test_an_unknown_access_key(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(ServiceUnavailable, match="access key is unknown"):
        open_store(s3_url).get("k")


def test_no_credentials(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ServiceUnavailable, match="no credentials; set AWS_PROFILE"):
        open_store(s3_url).get("k")
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ServiceUnavailable, match="names no profile"):
        open_store(s3_url)


def test_credentials_that_rotate(
    s3_url: str, server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(secret: str) -> None:
        lines = ["[default]", f"aws_access_key_id={server.access_key}"]
        file.write_text("\n".join([*lines, f"aws_secret_access_key={secret}", ""]))

    file = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    write("the one before")
    store = open_store(s3_url)
    write(server.secret_key)
    store.put("k", b"x")
    assert store.get("k") == b"x"


def test_no_such_bucket(s3_environment: None) -> None:
    store = open_store("s3://no-such-bucket/x")
    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        lambda: store.put_if_absent("k", b""),
        lambda: list(store.list("")),
        lambda: read_manifest(store, PREFIX),
    ):
        with pytest.raises(ServiceUnavailable, match="no such bucket; create it"):
            call()


def test_an_endpoint_that_is_not_there(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, so free for nobody, and not listening
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:canary@127.0.0.1:{port}")
        with pytest.raises(
            ServiceUnavailable, match=f"127.0.0.1:{port} cannot be reached"
        ) as raised:
            open_store(s3_url).get("k")
    assert raised.value.exit_code == 69
    assert "canary" not in str(raised.value)


def test_an_endpoint_that_is_no_address(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost")
    with pytest.raises(ServiceUnavailable, match="AWS_"):
        open_store(s3_url)
