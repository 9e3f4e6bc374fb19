"""Snapshots through the real client, from a small HTTP server that speaks the hub's paths.

The real hub is not asked by any test; the server stands for it and answers as it does.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_tokenizer import tiny_entry

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import DataInvalid, InputMissing, ServiceUnavailable
from thinktune.schema.stages import PrepTask
from thinktune.store import open_store
from thinktune.tasks.prep import hub
from thinktune.tasks.prep.sources import open_source
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

COMMIT = "c0ffee" + "0" * 34
ROWS = [{"question": f"q{n}", "answer": f"<think>r</think>a{n}"} for n in range(3)]
FILES = {
    "data/train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "README.md": b"# a dataset",
}


class Hub(BaseHTTPRequestHandler):
    """One dataset, `owner/set`, with one commit."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        files = [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in FILES.items()]
        siblings = [{"rfilename": name} for name in FILES]
        info = {"id": "owner/set", "sha": COMMIT, "siblings": siblings}
        if path.startswith("/api/datasets/owner/set/tree/"):
            self._send(json.dumps(files).encode(), body, "application/json")
        elif path.startswith("/api/datasets/owner/set"):
            self._send(json.dumps(info).encode(), body, "application/json")
        elif path.startswith(f"/datasets/owner/set/resolve/{COMMIT}/"):
            self._send(FILES[path.split(f"{COMMIT}/")[1]], body, "application/octet-stream")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, data: bytes, body: bool, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def hub_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    point_at(url, monkeypatch)
    yield url
    server.shutdown()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads its address when it is imported, in several places."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def task(store: str) -> PrepTask:
    dataset = DatasetEntry(
        repo="owner/set", files=("data/*.jsonl",), license="x", format="columns", description="x"
    )
    data = DataSpec(dataset="some")
    model = tiny_entry()
    return PrepTask(
        run="r", store=store, model_name="tiny", model=model, dataset=dataset, data=data
    )


def context(url: str) -> Context:
    store = open_store(url)
    return Context(store, "a", Reporter(store, "r", "prep", "a"), Stop())


def test_a_revision_is_resolved_once_and_fetched_once(
    hub_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/store"
    with open_source(task(url), context(url)) as source:
        assert [record.row for record in source.records] == ROWS
        assert source.revision == f"owner/set@{COMMIT}"
    pinned = task(url)
    entry = pinned.dataset.model_copy(update={"revision": COMMIT})
    pinned = pinned.model_copy(update={"dataset": entry})
    point_at("http://127.0.0.1:9", monkeypatch)  # the hub is gone
    with open_source(pinned, context(url)) as source:
        assert [record.row for record in source.records] == ROWS


def test_a_repository_that_is_not_there(hub_url: str) -> None:
    with pytest.raises(InputMissing, match="gated, private or not there") as raised:
        hub.resolve_revision("owner/other", "dataset")
    assert "HF_TOKEN" in str(raised.value)


def test_patterns_that_match_nothing(hub_url: str, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"no file matches \*\.parquet"):
        hub.download("owner/set", "dataset", COMMIT, ["*.parquet"], tmp_path)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(ServiceUnavailable, match="the hub did not answer"):
        hub.resolve_revision("owner/set", "dataset")
