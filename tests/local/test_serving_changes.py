"""Runs that change behind the real gateway, in front of an engine that only writes down which
adapters it is given: who waits for whom, and what goes wrong."""

import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from command import environment
from gateway import KEY, Gateway, gateway, template, wait_until
from s3_server import BUCKET, S3Server
from tiny_tokenizer import REPO, REVISION, commit_model

from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.serve import ServeTask
from thinktune.schema.served import Desired, DesiredRun
from thinktune.store import commit, files_digest, manifest_digest, open_store, read_manifest
from thinktune.tasks.serve.adapters import Adapters
from thinktune.text.templates import Renderer

WHEN = "2026-01-01T00:00:00+00:00"
CONFIG = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": REPO, "bias": "none"}


class Runs:
    """Runs of the tiny model in a store, and the file that says which of them are served."""

    def __init__(
        self, folder: Path, tokenizer_file: Path, *names: str, url: str | None = None
    ) -> None:
        self._folder = folder
        self.file = folder / "served.json"
        self.revision = 0
        model = folder / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
        self.url = url or f"file://{folder}/store"
        commit_model(self.url, model)
        self._sha256 = {name: self._run(name) for name in names}

    def _run(self, name: str) -> str:
        store = open_store(self.url)
        base = read_manifest(store, f"cache/models/tests--tiny@{REVISION}")
        assert base is not None
        digest = Renderer.of(template()).digest()
        prep, adapter = self._folder / name / "prep", self._folder / name / "adapter"
        prep.mkdir(parents=True)
        facts = PromptFacts(
            stop_ids=(2,), template_sha256=digest, opens_think=False, template=template()
        )
        (prep / PROMPT_FILE).write_text(facts.model_dump_json())
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text(json.dumps(CONFIG))
        tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header = json.dumps({f"{name}.q_proj": tensor}).encode()
        weights = struct.pack("<Q", len(header)) + header
        (adapter / "adapter_model.safetensors").write_bytes(weights)
        inputs: dict[str, str] = {}
        figures = {"base": "16bit", "dtype": "float32", "base_model_sha256": files_digest(base)}
        for stage, files in (("prep", prep), ("train", adapter)):
            made = commit(
                store,
                f"runs/{name}/{stage}",
                files,
                kind=stage,
                run=name,
                attempt="a",
                inputs=inputs,
                task_sha256=None,
                template_sha256=digest,
                revisions={"model": REVISION},
                metrics=figures if stage == "train" else {},
                created=WHEN,
            )
            inputs = {"prep": manifest_digest(made)}
        return manifest_digest(made)

    def desire(self, *names: str) -> None:
        """From now on these, as after a promotion."""
        self.revision += 1
        runs = tuple(
            DesiredRun(run=name, train_sha256=self._sha256[name], unpromoted=True) for name in names
        )
        beside = self._folder / "beside"
        beside.write_text(Desired(revision=self.revision, runs=runs).canonical())
        beside.replace(self.file)

    def adapters(self) -> Adapters:
        """Those of a server called shop."""
        task = ServeTask(
            run="shop", store=self.url, window=512, server="shop", desired_file=str(self.file)
        )
        made = Adapters(task, open_store(self.url), self._folder / "fetched")
        made.begin()
        made.check("vllm")
        return made


@contextmanager
def serving(folder: Path, tokenizer_file: Path, runs: Runs) -> Iterator[Gateway]:
    """A server called shop of runs that change."""
    with gateway(folder, tokenizer_file, server_name="shop", adapters=runs.adapters()) as running:
        yield running


def is_behind_the_name(running: Gateway, run: str) -> bool:
    """Whether the server's name leads to that run."""
    _, found = running.request("GET", "/v1/models")
    return bool(found["data"][0]["thinktune"]["run"] == run)


def test_a_client_that_reads_slowly_holds_no_change_up(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    runs = Runs(tmp_path, tokenizer_file, "one", "two", "three")
    runs.desire("one")
    with serving(tmp_path, tokenizer_file, runs) as running, socket.socket() as slow:
        running.script(text="so " * 400, wait_s=0.2)
        body = json.dumps({"model": "shop", "messages": [{"role": "user", "content": "x"}]})
        slow.connect(("127.0.0.1", running.port))
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        slow.sendall(f"{head}{body}".encode())
        wait_until(lambda: running.server.state.running == 1)
        for name in ("two", "three", "one", "two"):
            runs.desire(name)
            wait_until(partial(is_behind_the_name, running, name))
        told = (tmp_path / "adapters.txt").read_text().split()
        assert not any("one" in name for verb, name in zip(told[::2], told[1::2], strict=True))
        slow.close()
        wait_until(lambda: "unload one" in (tmp_path / "adapters.txt").read_text())
        running.script(text="Four.")
        assert running.chat(model="shop")["choices"]


def test_a_fault_that_nobody_foresaw_ends_the_server(tmp_path: Path, tokenizer_file: Path) -> None:
    runs = Runs(tmp_path, tokenizer_file, "one")
    runs.desire("one")
    with serving(tmp_path, tokenizer_file, runs) as running:
        runs.file.write_text("[" * 200_000)  # deeper than Python's parser of JSON goes
        wait_until(lambda: running.fault() is not None)
        assert isinstance(running.fault(), RecursionError)


def test_a_container_that_starts_again_keeps_what_it_has(
    tmp_path: Path, tokenizer_file: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/again"
    runs = Runs(tmp_path, tokenizer_file, "one", "two", url=url)
    runs.desire("one", "two")
    before = runs.adapters()
    store = open_store(url)
    for info in store.list(""):
        if info.key.endswith((".safetensors", "tokenizer.json")):
            store.delete_prefix(info.key)  # none of them can be fetched a second time
    runs.desire("two")
    after = runs.adapters()
    assert after.first.weights == before.first.weights
    assert list(after.loaded.values()) == list(before.loaded.values())[1:]
    found = {path.name.split(".")[0] for path in (tmp_path / "fetched").iterdir()}
    assert found == {"model", "two"}


def test_a_stop_does_not_wait_for_files(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a store that says nothing
        silent.settimeout(60)
        store = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
            "TMPDIR": str(tmp_path),
        }
        task = tmp_path / "task.json"
        task.write_text(ServeTask(run="one", store="s3://bucket/x", port=0).canonical())
        command = [sys.executable, "-m", "thinktune.tasks.serve", "--task", str(task)]
        with subprocess.Popen(command, env=environment(more=store)) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["task.json"]
