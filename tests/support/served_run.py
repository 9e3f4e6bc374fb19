"""A run of SmolLM2 with a random adapter, committed as its stages would, for tests that serve."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from thinktune.recipes.compose import load_catalog
from thinktune.schema.data import DataSpec
from thinktune.schema.keys import cache_prefix
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.store import commit, files_digest, manifest_digest, open_store
from thinktune.tasks.prep.gguf_weights import packaged_file, unpack
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

NAME, REVISION = "smollm2-135m", "packaged"
ENTRY = load_catalog().models[NAME]
RENDERER = Renderer(ENTRY, DataSpec(dataset="inventory-sums", final_answer="Final Answer:"))
WHEN = "2026-01-01T00:00:00+00:00"


def commit_run(url: str, folder: Path, run: str, *, std: float = 0.05) -> None:
    """Base model, prep and train of a run. `std`: how far the adapter is from nothing."""
    store = open_store(url)
    weights = folder / "weights"
    weights.mkdir(parents=True)
    assert ENTRY.packaged is not None
    unpack(packaged_file(ENTRY.packaged), ENTRY, weights)
    _adapter(weights, folder / "adapter", std)
    cached = commit(
        store,
        cache_prefix("models", ENTRY.repo, REVISION),
        weights,
        kind="model",
        run=None,
        attempt="a",
        inputs={},
        task_sha256=None,
        created=WHEN,
    )
    facts = PromptFacts(
        stop_ids=(Encoder(weights / "tokenizer.json").end_id(RENDERER.end),),
        template_sha256=RENDERER.digest(),
        opens_think=RENDERER.opens_think,
        template=RENDERER.template(NAME),
    )
    (folder / "prep").mkdir()
    (folder / "prep" / PROMPT_FILE).write_text(facts.model_dump_json())
    prep = commit(
        store,
        f"runs/{run}/prep",
        folder / "prep",
        kind="prep",
        run=run,
        attempt="a",
        inputs={},
        task_sha256=None,
        template_sha256=RENDERER.digest(),
        revisions={"model": REVISION},
        created=WHEN,
    )
    figures = {"base": "16bit", "dtype": "float32", "base_model_sha256": files_digest(cached)}
    commit(
        store,
        f"runs/{run}/train",
        folder / "adapter",
        kind="train",
        run=run,
        attempt="a",
        inputs={"prep": manifest_digest(prep)},
        task_sha256=None,
        template_sha256=RENDERER.digest(),
        revisions={"model": REVISION},
        metrics=figures,
        created=WHEN,
    )


def _adapter(weights: Path, folder: Path, std: float) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
    config = LoraConfig(
        r=12, lora_alpha=48, target_modules=list(ENTRY.lora_targets), task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, config)
    tuned.peft_config["default"].base_model_name_or_path = ENTRY.repo
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)
    tuned.save_pretrained(folder, save_embedding_layers=False)
