"""Addresses of stores."""

import subprocess
import sys
from pathlib import Path

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.store import open_store


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "neither"),
        ("/data/runs", "neither"),
        ("gs://bucket/x", "neither"),
        ("file://data/runs", "absolute path"),
        ("file:data", "absolute path"),
        ("s3://", "no bucket"),
        ("s3:///x", "no bucket"),
        ("s3://bucket/../other", r"'\.\.'"),
        ("s3://bucket/a//b", "empty part"),
        ("s3://bucket/a?versionId=1", r"'\?'"),
        ("file:///data#1", "'#'"),
    ],
)
def test_other_addresses_are_refused(url: str, says: str) -> None:
    with pytest.raises(SpecInvalid, match=says):
        open_store(url)


def test_credentials_in_an_address_are_not_repeated() -> None:
    with pytest.raises(SpecInvalid, match="credentials") as raised:
        open_store("s3://key:canary@bucket/x")
    assert "canary" not in str(raised.value)


def test_addresses_are_kept(s3_environment: None) -> None:
    assert open_store("s3://bucket").url == "s3://bucket"
    assert open_store("s3://bucket/a/b/").url == "s3://bucket/a/b"
    assert open_store("file:///data/my%20runs/").local_path("k") is not None
    assert str(open_store("file:///data/my%20runs/").local_path("k")) == "/data/my runs/k"


def test_a_local_store_needs_no_boto3() -> None:
    program = (
        "import sys, thinktune.store; thinktune.store.open_store('file:///x');"
        "sys.exit(any(name.startswith(('boto', 's3transfer')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("name", ["c#d", "a b", "100%", "%20", "q?", "ü", "\udcff"])
def test_folders_with_odd_names(tmp_path: Path, name: str) -> None:
    url = (tmp_path / name).as_uri()
    store = open_store(url)
    assert store.url == url
    assert store.local_path("k") == tmp_path / name / "k"
    store.put("k", b"x")
    assert (tmp_path / name / "k").read_bytes() == b"x"
    assert open_store(store.url).get("k") == b"x"
