"""Publishing into a bucket of a real S3 server: verified, gone on with, refused."""

from pathlib import Path

import pytest
from finished_run import RUN, finished_run
from s3_server import BUCKET, S3Server

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.publish import PublishReport, PublishRequest
from thinktune.store import Store, open_store
from thinktune.tasks.publish.__main__ import publish


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("finished")
    return finished_run(f"file://{folder}/store", folder / "made")


def push(store: Store, to: str, **more: bool) -> PublishReport:
    return publish(PublishRequest(run=RUN, store=store.url, destination=to, **more))


def test_a_bucket(run: Store, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    to = f"s3://{BUCKET}/models/sums"
    bucket = open_store(to)
    assert push(run, to, dry_run=True).outcome == "dry run" and not list(bucket.list(""))
    report = push(run, to)
    assert {info.key: info.size for info in bucket.list("")} == {
        entry.name: entry.size for entry in report.files
    }
    assert push(run, to).outcome == "unchanged"
    _remove(bucket, "chat_template.jinja")
    assert push(run, to).sent == ("chat_template.jinja",)
    size = next(entry.size for entry in report.files if entry.name == "README.md")
    bucket.put("README.md", b"x" * size)
    with pytest.raises(SpecInvalid, match=r"it holds another README\.md; name another prefix"):
        push(run, to)
    bucket.put("README.md", b"x")
    with pytest.raises(SpecInvalid, match=r"it holds another README\.md"):
        push(run, to)
    with pytest.raises(SpecInvalid, match="a whole bucket"):
        push(run, f"s3://{BUCKET}")


def _remove(bucket: Store, name: str) -> None:
    """One object, as whoever tidies a bucket removes it."""
    client = bucket._connection  # type: ignore[attr-defined]
    client.ask("", lambda s3: s3.delete_object(Bucket=BUCKET, Key=f"models/sums/{name}"))


def test_a_folder_by_its_path(run: Store, tmp_path: Path) -> None:
    assert push(run, str(tmp_path / "out")).outcome == "written"
