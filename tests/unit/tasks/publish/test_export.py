"""An adapter as a folder: its files, its card, and what is refused."""

import hashlib
import json
import socket
from pathlib import Path

import pytest
import yaml
from finished_run import HOST, OWN_FILE, RENDERER, RUN, SECRET_ROW, finished_run
from tiny_tokenizer import REPO, REVISION

from thinktune.schema.errors import DeviceUnusable, InputMissing, SpecInvalid
from thinktune.schema.publish import PublishReport, PublishRequest
from thinktune.store import Store
from thinktune.tasks.publish.__main__ import publish
from thinktune.text.chat_template import chat_template


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("finished")
    return finished_run(f"file://{folder}/private-store", folder / "made")


def export(store: Store, folder: Path, **more: bool) -> PublishReport:
    request = PublishRequest(run=RUN, store=store.url, destination=str(folder), **more)
    return publish(request)


def test_the_files_of_an_adapter(run: Store, tmp_path: Path) -> None:
    report = export(run, tmp_path / "a" / "out")
    folder = tmp_path / "a" / "out"
    assert {entry.name for entry in report.files} == {
        *("README.md", "SHA256SUMS", "adapter_config.json", "adapter_model.safetensors"),
        *("chat_template.jinja", "generation_config.json", "tokenizer.json"),
        "tokenizer_config.json",
    }
    assert report.outcome == "written"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (REPO, REVISION)
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings == {
        "do_sample": True, "eos_token_id": [2], "pad_token_id": 2, "temperature": 0.6,
        "top_p": 0.9, "top_k": 0, "max_new_tokens": 24,
    }  # fmt: skip
    template = (folder / "chat_template.jinja").read_text()
    assert template == chat_template(RENDERER.template("tiny"))
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        sha256, _, name = line.partition("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    # Whoever changes the export does not change the store.
    assert (folder / "adapter_model.safetensors").stat().st_nlink == 1
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"out"}


def test_the_same_command_again_and_a_folder_that_holds_something_else(
    run: Store, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    export(run, tmp_path / "out")
    assert export(run, tmp_path / "out").outcome == "unchanged"
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(SpecInvalid, match=r"something else: notes\.txt; name a new folder"):
        export(run, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").unlink()
    (tmp_path / "out" / "README.md").write_text("mine")
    with pytest.raises(SpecInvalid, match=r"another README\.md"):
        export(run, tmp_path / "out")
    (tmp_path / "out" / "README.md").unlink()
    with pytest.raises(SpecInvalid, match="part of the same export"):
        export(run, tmp_path / "out")
    with pytest.raises(SpecInvalid, match="it is a file"):
        export(run, tmp_path / "out" / "SHA256SUMS")
    with pytest.raises(DeviceUnusable, match="nothing can be written"):
        export(run, tmp_path / "out" / "SHA256SUMS" / "below")


def test_a_dry_run_writes_nothing(run: Store, tmp_path: Path) -> None:
    report = export(run, tmp_path / "out", dry_run=True)
    assert report.outcome == "dry run" and len(report.sent) == len(report.files) == 8
    assert not list(tmp_path.iterdir())


def test_the_card_says_what_the_manifests_say(run: Store, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == REPO and front["license"] == "apache-2.0"
    assert front["base_model_relation"] == "adapter" and front["library_name"] == "peft"
    for part in (
        REVISION, "Apache-2.0", "inventory-sums, generated", "1,064", "4, 32, scaled by α/r",
        "q_proj, k_proj, v_proj, o_proj", "0.001, cosine", "40 held-out questions",
        "Requirements of the recipe: passed", "| accuracy | tuned |", "0.9", "100.0%", "met |",
    ):  # fmt: skip
        assert part in text, part
    assert "Not promoted" not in text


def test_nothing_private_is_in_an_export(run: Store, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    private = {run.url, str(tmp_path), "private-store", SECRET_ROW, "violet", HOST, str(Path.cwd())}
    private |= {socket.gethostname(), str(Path.home())} - {"/", "localhost"}
    for path in (tmp_path / "out").iterdir():
        if path.name not in ("tokenizer.json", "adapter_model.safetensors"):
            text = path.read_text()
            assert not [word for word in private if word in text], path.name


def test_a_file_of_one_s_own_stays_one_s_own(tmp_path: Path) -> None:
    store = finished_run(f"file://{tmp_path}/store", tmp_path / "made", own_file=True)
    export(store, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "a file of its author's own, which is not published" in text
    assert not [part for part in Path(OWN_FILE).parts[1:] if part in text]


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_run_that_is_not_promoted(evaluated: bool, tmp_path: Path) -> None:
    store = finished_run(
        f"file://{tmp_path}/store", tmp_path / "made", promoted=False, evaluated=evaluated
    )
    with pytest.raises(SpecInvalid, match="--unpromoted"):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(store, tmp_path / "out", unpromoted=True)
    text = (tmp_path / "out" / "README.md").read_text()
    title, warning = text.split("---\n")[2].strip().split("\n\n")[:2]
    assert title == f"# {RUN}" and warning.startswith("> **Not promoted.**")
    assert ("accuracy of tuned is not" in warning) == evaluated
    assert ("**not met**" in text) == evaluated


def test_a_run_that_is_not_there_and_a_base_model_that_is_another(tmp_path: Path) -> None:
    store = finished_run(f"file://{tmp_path}/store", tmp_path / "made")
    with pytest.raises(InputMissing, match="prep of run other has committed nothing"):
        publish(PublishRequest(run="other", store=store.url, destination=str(tmp_path / "x")))
    key = next(info.key for info in store.list("cache") if info.key.endswith("/manifest.json"))
    changed = store.get(key).decode().replace('"sha256": "', '"sha256": "0', 1)
    digest = changed.split('"sha256": "')[1].split('"')[0]
    store.put(key, changed.replace(digest, digest[:64]).encode())
    with pytest.raises(InputMissing, match="not those that the adapter was trained on"):
        export(store, tmp_path / "out")
