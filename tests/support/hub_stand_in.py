"""A small server that speaks the paths of the hub which an upload takes, over HTTP.

It stands for the hub, which no test asks: repositories in memory, large files by LFS, commits. It
answers only what the client asks of a model repository.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

WRITER, READER = "hf_writer_0123456789", "hf_reader_0123456789"
"""Tokens: one that may write, and one that may only read."""


INVALID_TOKEN = "Invalid credentials in Authorization header"


@dataclass
class HubRepo:
    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)


@dataclass
class Hub:
    """What the server holds, and what it has been sent."""

    url: str
    repos: dict[str, HubRepo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256."""
    sent: list[str] = field(default_factory=list)
    """Digests of the large files and paths of the small ones, in the order in which they came."""
    refuse_commits: int = 0
    """Commits that are still to be answered with status 500."""


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        data = self._body()
        path = self.path.split("?")[0]
        if path.startswith("/lfs/"):  # as the hub's object storage: no token, the address is signed
            self.hub.objects[path.removeprefix("/lfs/")] = data
            self.hub.sent.append(path.removeprefix("/lfs/"))
            return self._send(200, {})
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in (WRITER, READER):
            return self._send(401, {"error": INVALID_TOKEN})
        if self.command == "POST" and token == READER:
            return self._send(403, {"error": f"You do not have the rights, {token}"})
        for pattern, answer in _PATHS.items():
            if found := re.fullmatch(pattern, path):
                return answer(self, data, *found.groups())
        return self._send(404, {"error": "no such path"})

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def create(self, data: bytes) -> None:
        asked = json.loads(data)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            error = "You already created this model repo"
            return self._send(409, {"error": error, "url": f"{self.hub.url}/{name}"})
        self.hub.repos[name] = HubRepo(private=asked.get("visibility") == "private")
        self.hub.repos[name].files[".gitattributes"] = b"*.safetensors filter=lfs\n"
        return self._send(200, {"url": f"{self.hub.url}/{name}"})

    def info(self, data: bytes, name: str) -> None:
        if name not in self.hub.repos:
            return self._send(404, {"error": "Repository not found"}, code="RepoNotFound")
        repo = self.hub.repos[name]
        return self._send(200, {"id": name, "sha": "0" * 40, "private": repo.private})

    def tree(self, data: bytes, name: str) -> None:
        repo = self.hub.repos[name]
        listed = []
        for path, content in repo.files.items():
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            item = {"type": "file", "path": path, "size": len(content), "oid": oid}
            if path in repo.large:
                sha256 = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            listed.append(item)
        return self._send(200, listed)

    def preupload(self, data: bytes, name: str) -> None:
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(data)["files"]
        ]
        return self._send(200, {"files": files})

    def validate(self, data: bytes) -> None:
        """The hub reads the metadata of a card before it takes it."""
        front = yaml.safe_load(json.loads(data)["content"].split("---")[1])
        named = front["license"] != "other" or front.get("license_name")
        if named and front["base_model_relation"] in ("adapter", "finetune"):
            return self._send(200, {"warnings": [], "errors": []})
        return self._send(400, {"warnings": [], "errors": [{"message": "bad metadata"}]})

    def batch(self, data: bytes, name: str) -> None:
        objects = []
        for each in json.loads(data)["objects"]:
            item = dict(each)
            if each["oid"] not in self.hub.objects:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}
            objects.append(item)
        return self._send(200, {"transfer": "basic", "objects": objects})

    def commit(self, data: bytes, name: str) -> None:
        if self.hub.refuse_commits:
            self.hub.refuse_commits -= 1
            return self._send(500, {"error": "Internal error"})
        repo = self.hub.repos[name]
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
                self.hub.sent.append(value["path"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.objects[value["oid"]]
                repo.large.add(value["path"])
        oid = "1" * 40
        return self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}",
                                "commitOid": oid})  # fmt: skip

    def _send(self, status: int, value: Any, *, code: str | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        if status == 401:  # otherwise the client takes it for a repository that is not there
            self.send_header("X-Error-Message", INVALID_TOKEN)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


_NAME = "([^/]+/[^/]+)"
_PATHS: dict[str, Any] = {
    "/api/repos/create": _Handler.create,
    "/api/validate-yaml": _Handler.validate,
    f"/api/models/{_NAME}": _Handler.info,
    f"/api/models/{_NAME}/tree/main": _Handler.tree,
    f"/api/models/{_NAME}/preupload/main": _Handler.preupload,
    rf"/{_NAME}\.git/info/lfs/objects/batch": _Handler.batch,
    f"/api/models/{_NAME}/commit/main": _Handler.commit,
}
