"""Stores to test: a folder, a bucket on a real S3 server, and that bucket behind faults."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Proxy, fault_proxy
from one_artifact import LARGE
from s3_server import BUCKET, S3Server

from thinktune.store import Store, open_store


@pytest.fixture
def s3_environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_url(s3_environment: None) -> str:
    """A prefix of its own for each test."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def s3_store(s3_url: str) -> Store:
    return open_store(s3_url)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with fault_proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def faulty_store(
    s3_store: Store, s3_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """The same objects as `s3_store`, through the proxy, with shorter pauses between tries.

    `s3_store` comes first, since it takes its endpoint from the environment when it opens.
    """
    monkeypatch.setattr("thinktune.store.s3.FIRST_PAUSE_S", 0.02)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    return open_store(s3_url)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture(params=["folder_store", "s3_store"])
def store(request: pytest.FixtureRequest) -> Store:
    opened: Store = request.getfixturevalue(request.param)
    return opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "model"
    path.parent.mkdir()
    path.write_bytes(os.urandom(LARGE))
    return path
