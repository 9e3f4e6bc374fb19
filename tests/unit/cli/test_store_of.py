"""The cluster's store from here: which endpoint, and an environment that stays as it was."""

import os
import uuid
from collections.abc import Iterator

import pytest
from s3_server import BUCKET, S3Server

from thinktune.cli.options import S3_ENDPOINT_VARIABLE, store_of
from thinktune.schema.cluster import Cluster

IN_THE_CLUSTER = "http://s3.storage.svc:8333"


@pytest.fixture
def credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that leads to the server but its address; nothing of it may change."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        if name != S3_ENDPOINT_VARIABLE:
            monkeypatch.setenv(name, value)
    yield


def cluster(endpoint: str) -> Cluster:
    return Cluster(store=f"s3://{BUCKET}/{uuid.uuid4().hex}", store_endpoint=endpoint)


def test_the_cluster_s_own_endpoint(server: S3Server, credentials: None) -> None:
    before = dict(os.environ)
    store = store_of(cluster(server.endpoint))
    store.put("k", b"x")
    assert store.get("k") == b"x"
    assert dict(os.environ) == before


def test_two_clusters_in_one_process(server: S3Server, credentials: None) -> None:
    """The first one's endpoint is not the second one's."""
    store_of(cluster(IN_THE_CLUSTER))
    second = store_of(cluster(server.endpoint))
    second.put("k", b"x")
    assert second.get("k") == b"x"


def test_this_environment_s_way_to_it(
    server: S3Server, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a port-forward to a store inside of the cluster."""
    monkeypatch.setenv(S3_ENDPOINT_VARIABLE, server.endpoint)
    before = dict(os.environ)
    store = store_of(cluster(IN_THE_CLUSTER))
    store.put("k", b"x")
    assert store.get("k") == b"x"
    assert dict(os.environ) == before
