"""What is checked before a run is served: promotion, prompts, base model, adapter."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, S3Server
from tiny_tokenizer import REPO, REVISION, commit_model, tiny_entry, write_tokenizer

from thinktune.schema.data import DataSpec
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.manifest import Manifest, MetricValue
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.serve import ServeTask
from thinktune.store import Store, commit, files_digest, manifest_digest, open_store, read_manifest
from thinktune.tasks.serve.adapter_check import check_adapter, rank_setting
from thinktune.tasks.serve.inputs import Served, read_served
from thinktune.text.templates import Renderer

CONFIG = {
    "peft_type": "LORA",
    "r": 12,
    "base_model_name_or_path": REPO,
    "bias": "none",
    "init_lora_weights": True,
}
RENDERER = Renderer(tiny_entry(), DataSpec(dataset="inventory-sums", final_answer="Final Answer:"))
PROMOTED: dict[str, MetricValue] = {
    "promoted": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "max_new_tokens": 100,
}


def write_adapter(
    folder: Path, config: Mapping[str, Any], names: tuple[str, ...] = ("q_proj",)
) -> None:
    """An adapter whose weights are a header alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps(dict.fromkeys(names, tensor)).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


class Made:
    """A store with a run in it, of which parts can be other than they should be."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.store: Store = open_store(url or f"file://{folder}/store")
        model = folder / "model"
        model.mkdir()
        write_tokenizer(model)
        (model / "config.json").write_text("{}")
        commit_model(self.store.url, model)
        cached = read_manifest(self.store, f"cache/models/tests--tiny@{REVISION}")
        assert cached is not None
        self.base_sha256 = files_digest(cached)

    def stage(self, stage: str, files: Path, **more: Any) -> Manifest:
        facts: dict[str, Any] = {"inputs": {}, "template_sha256": RENDERER.digest()} | more
        return commit(
            self.store,
            f"runs/r/{stage}",
            files,
            kind=stage,
            run="r",
            attempt="a",
            task_sha256=None,
            created="2026-01-01T00:00:00+00:00",
            **facts,
        )

    def run(
        self,
        *,
        template: bool = True,
        config: Mapping[str, Any] = CONFIG,
        evaluation: Mapping[str, MetricValue] | None = PROMOTED,
        of_another: bool = False,
        train: Mapping[str, Any] | None = None,
        metrics: Mapping[str, MetricValue] | None = None,
    ) -> None:
        facts = PromptFacts(
            stop_ids=(2,),
            template_sha256=RENDERER.digest(),
            opens_think=False,
            template=RENDERER.template("tiny") if template else None,
        )
        (self.folder / "prep").mkdir()
        (self.folder / "prep" / PROMPT_FILE).write_text(facts.model_dump_json())
        prep = self.stage("prep", self.folder / "prep", revisions={"model": REVISION})
        write_adapter(self.folder / "adapter", config)
        figures = {
            "base": "nf4",
            "dtype": "auto",
            "base_model_sha256": self.base_sha256,
            **(metrics or {}),
        }
        trained = self.stage(
            "train",
            self.folder / "adapter",
            **({"inputs": {"prep": manifest_digest(prep)}, "metrics": figures} | dict(train or {})),
        )
        if evaluation is not None:
            (self.folder / "report").mkdir()
            (self.folder / "report" / "report.json").write_text("{}")
            digest = "0" * 64 if of_another else manifest_digest(trained)
            inputs = {"prep": manifest_digest(prep), "train": digest}
            self.stage("evaluate", self.folder / "report", inputs=inputs, metrics=dict(evaluation))

    def read(self, **more: Any) -> Served:
        task = ServeTask(run="r", store=self.store.url, **more)
        return read_served(task, self.store, self.folder / "here")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_a_promoted_run(made: Made) -> None:
    made.run()
    served = made.read()
    assert served.judged == "promoted by its evaluation"
    assert (served.base, served.dtype, served.window) == ("nf4", "auto", 2048)
    assert (served.defaults.temperature, served.defaults.max_tokens) == (0.5, 200)
    assert (served.weights / "tokenizer.json").is_file()
    assert rank_setting(served.adapter_config) == 16


def test_a_run_in_a_bucket_is_fetched(
    tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    made = Made(tmp_path, f"s3://{BUCKET}/served")
    made.run()
    served = made.read()
    assert served.weights.is_relative_to(tmp_path / "here")
    assert json.loads((served.adapter / "adapter_config.json").read_text()) == CONFIG


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        ({"evaluation": None}, "it has not been evaluated"),
        ({"of_another": True}, "its evaluation is of another adapter"),
        (
            {"evaluation": {"promoted": False, "not_promoted_because": "accuracy is low"}},
            "did not promote it: accuracy is low",
        ),
    ],
)
def test_a_run_that_is_not_promoted(made: Made, run: dict[str, Any], fault: str) -> None:
    made.run(**run)
    with pytest.raises(SpecInvalid, match=fault) as error:
        made.read()
    assert "--unpromoted" in error.value.remedy
    assert fault in made.read(unpromoted=True).judged


def test_a_run_without_requirements_is_served(made: Made) -> None:
    made.run(evaluation={"questions": 3})
    assert made.read().judged.startswith("evaluated, without requirements")


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        ({"template": False}, "does not say how its prompts are rendered"),
        ({"train": {"template_sha256": "0" * 64}}, "train rendered its prompts in another way"),
        ({"train": {"inputs": {"prep": "0" * 64}}}, "trained on another artifact of prep"),
        ({"metrics": {"base": None}}, "at which precision"),
        ({"metrics": {"base_model_sha256": "0" * 64}}, "not those that the adapter was trained on"),
    ],
)
def test_what_does_not_fit_is_not_served(made: Made, run: dict[str, Any], fault: str) -> None:
    made.run(**run)
    with pytest.raises(InputMissing, match=fault):
        made.read(unpromoted=True)


def test_damage_in_the_store_is_found(made: Made) -> None:
    made.run()
    for place in ("runs/r/train/attempts/a/adapter_model.safetensors",):
        path = made.folder / "store" / place
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        with pytest.raises(InputMissing, match=r"adapter_model\.safetensors"):
            made.read()
    (weights,) = (made.folder / "store" / "cache").rglob("tokenizer.json")
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b" ")
    with pytest.raises(InputMissing, match=r"tokenizer\.json"):
        made.read()


def test_a_window_beyond_the_models(made: Made) -> None:
    made.run()
    assert made.read(window=100).window == 100
    with pytest.raises(SpecInvalid, match="the model supports 2048"):
        made.read(window=4096)


@pytest.mark.parametrize(
    ("config", "names", "fault"),
    [
        ({"use_dora": True}, ("q_proj",), "use_dora"),
        ({"modules_to_save": ["lm_head"]}, ("q_proj",), "modules_to_save"),
        ({"bias": "all"}, ("q_proj",), "biases"),
        ({"init_lora_weights": "pissa"}, ("q_proj",), "pissa"),
        ({"peft_type": "IA3"}, ("q_proj",), "type IA3"),
        ({"rank_pattern": {"q_proj": 600}}, ("q_proj",), "its rank is 600"),
        ({}, ("layers.0.self_attn.kv_b_proj.lora_A.weight",), "kv_b_proj"),
        ({}, ("layers.0.mlp.experts.1.up_proj.lora_A.weight",), "experts"),
        ({}, ("m.layers.0.q_proj.lora_A.weight", "m.lm_head.lora_A.weight"), "it adapts lm_head,"),
        ({}, ("m.embed_tokens.lora_embedding_A",), "embed_tokens, for which vLLM has no place"),
    ],
)
def test_adapters_that_vllm_applies_wrongly(
    tmp_path: Path, config: dict[str, Any], names: tuple[str, ...], fault: str
) -> None:
    write_adapter(tmp_path, CONFIG | config, names)
    with pytest.raises(SpecInvalid, match=fault) as error:
        check_adapter(tmp_path, tiny_entry(), "vllm")
    assert "--engine transformers" in error.value.remedy
    check_adapter(tmp_path, tiny_entry(), "transformers")


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_a_foreign_or_damaged_adapter(tmp_path: Path, engine: Any) -> None:
    write_adapter(tmp_path, CONFIG | {"base_model_name_or_path": "other/model"})
    with pytest.raises(SpecInvalid, match="another base model"):
        check_adapter(tmp_path, tiny_entry(), engine)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(InputMissing, match="it is no adapter"):
        check_adapter(tmp_path, tiny_entry(), engine)
