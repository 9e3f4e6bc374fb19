"""What a user does with a finished run, by the real command: files that transformers and PEFT load,
that answer as the run does, and whose model card has code that runs.
"""

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from command import thinktune
from finished_run import RENDERER, RUN, finished_run
from hub_stand_in import READER, WRITER, hub_stand_in
from peft import PeftModel
from tiny_tokenizer import REPO, tiny_entry
from transformers import AutoModelForCausalLM, AutoTokenizer

from thinktune.schema.catalog import ChatTemplate
from thinktune.schema.data import DataSpec
from thinktune.schema.exit_codes import ExitCode
from thinktune.store import Store
from thinktune.tasks.model.base import load_base
from thinktune.text.chat_template import chat_template
from thinktune.text.conversation import Exchange, Query, Turn
from thinktune.text.templates import Renderer

QUESTION = "What is 17 + 25?"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Store:
    folder = tmp_path_factory.mktemp("finished")
    return finished_run(f"file://{folder}/store", folder / "made", weights=tiny_folder)


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    assert found is not None
    monkeypatch.chdir(folder)
    exec(compile(found[1], "README.md", "exec"), {})  # noqa: S102 - what a reader pastes


def test_a_merged_model_answers_as_the_run_does(
    store: Store, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    ended = thinktune(
        "export", RUN, "--out", str(folder), "--merged", "--store", store.url, "--output", "json"
    )
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["outcome"] == "written"
    assert {e["name"] for e in report["files"]} >= {"model.safetensors", "config.json"}
    assert "in fp32" in ended.err

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    assert text == "".join(piece.text for piece in RENDERER.prompt(Query(question=QUESTION)))
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert merged.generation_config.eos_token_id == [2]
    assert merged.generation_config.temperature == 0.6
    apart = load_base(tiny_folder, "nf4", torch.float32, torch.device("cpu"), attention="sdpa")
    plain = apart(input_ids=ids).logits
    made = store.url.removeprefix("file://")
    adapter = next(Path(made).glob(f"runs/{RUN}/train/attempts/*"))
    tuned = PeftModel.from_pretrained(apart, str(adapter)).eval()
    with torch.inference_mode():
        expected, found = tuned(input_ids=ids).logits, merged(input_ids=ids).logits
    assert torch.allclose(found, expected, atol=2e-4)
    assert (plain - expected).abs().max() > 0.1  # the adapter does something

    assert "Merged, the model has not been judged." in (folder / "README.md").read_text()
    run_snippet(folder, monkeypatch)
    assert capsys.readouterr().out


def test_the_snippet_of_an_adapter_and_a_push(
    store: Store, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "adapter"
    ended = thinktune("export", RUN, "--out", str(folder), "--store", store.url)
    assert ended.code == 0, ended.err
    assert "8 files" in ended.out and "promoted by its evaluation" in ended.out
    # The hub's repository of the base model, where the snippet finds it without a hub.
    shutil.copytree(tiny_folder, folder / REPO)
    run_snippet(folder, monkeypatch)
    assert capsys.readouterr().out

    with hub_stand_in() as hub:
        more = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
        command = ("publish", RUN, "--to", "hf://org/sums", "--store", store.url)
        denied = thinktune(*command, more=more | {"HF_TOKEN": READER})
        assert denied.code == ExitCode.SERVICE_UNAVAILABLE, denied.err
        assert "hf://org/sums: the token may not write there; take one" in denied.err
        pushed = thinktune(*command, more=more | {"HF_TOKEN": WRITER})
        assert pushed.code == 0, pushed.err
        assert "adapter_model.safetensors" in hub.repos["org/sums"].files
    for said in (denied, pushed):
        assert not [t for t in (READER, WRITER) if t in said.out + said.err]


def test_arguments_that_make_no_sense(store: Store, tmp_path: Path) -> None:
    for arguments, said in (
        (("--to", "ftp://host/x"), "no address that is known"),
        (("--to", "folder", "--private"), "only repositories of the hub"),
    ):
        ended = thinktune("publish", RUN, *arguments, "--store", store.url, cwd=tmp_path)
        assert ended.code == ExitCode.SPEC_INVALID and said in ended.err


@pytest.mark.parametrize("layout", get_args(ChatTemplate))
def test_transformers_renders_the_text_of_training(layout: str, tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    for thinks in (False, True):
        entry = tiny_entry().model_copy(update={"chat_template": layout, "thinks": thinks})
        renderer = Renderer(entry, DataSpec(dataset="some"))
        exchange = Exchange(
            question=QUESTION, system="Count.", reasoning="17 + 25 = 42", answer="42",
            before=(Turn("user", "Hi"), Turn("assistant", "Hm")),
        )  # fmt: skip
        said = [
            {"role": "system", "content": "Count."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hm"},
            {"role": "user", "content": QUESTION},
        ]
        answer = {"role": "assistant", "content": "<think>\n17 + 25 = 42\n</think>\n\n42"}
        source = chat_template(renderer.template("tiny"))
        rendered = renderer.render(exchange)
        whole = rendered.prompt_text() + rendered.reasoning + rendered.answer + rendered.end
        prompt = tokenizer.apply_chat_template(
            said, chat_template=source, add_generation_prompt=True, tokenize=False
        )
        assert prompt == rendered.prompt_text()
        learned = tokenizer.apply_chat_template(
            [*said, answer], chat_template=source, tokenize=False
        )
        assert learned == whole
