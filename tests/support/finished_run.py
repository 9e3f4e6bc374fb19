"""A finished run of the tiny model, committed as its stages would: what `publish` reads.

The adapter is random and made without torch; tests that compute with it give the model's weights.
"""

import json
from pathlib import Path

import numpy as np
from answers import sample
from safetensors.numpy import save_file
from tiny_tokenizer import (
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LAYERS,
    REPO,
    REVISION,
    commit_model,
    tiny_entry,
    write_tokenizer,
)

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.keys import cache_prefix, stage_prefix, task_key
from thinktune.schema.manifest import Manifest, MetricValue
from thinktune.schema.prompt import PROMPT_FILE, PromptFacts
from thinktune.schema.recipe import EvaluateSpec, Requirement, TrainSpec
from thinktune.schema.report import Report
from thinktune.schema.stages import PrepTask, TrainTask
from thinktune.store import (
    Store,
    commit,
    files_digest,
    manifest_digest,
    open_store,
    read_manifest,
)
from thinktune.tasks.evaluate.metrics.registry import Registry, Setup
from thinktune.tasks.evaluate.report.build import ArmInfo, build_report, manifest_metrics
from thinktune.tasks.evaluate.samples import Question
from thinktune.tasks.evaluate.verdicts import Rules, judge_all, verifier_of
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

RUN = "sums-1"
OWN_FILE = "/home/alice/ward-7/letters.jsonl"
SECRET_ROW = "How many violet teapots?"
DATA = DataSpec(dataset="inventory-sums", prompt="Q: {question}", final_answer="Final Answer:")
RENDERER = Renderer(tiny_entry(), DATA)
TRAIN = TrainSpec(rank=4, alpha=32, targets="attention", lr=1e-3, batch_size=4)
HOST = "gpu7.intern.example.com"
ARMS = {
    "base": ArmInfo("the base model", "transformers 5.17", "there is no GPU", "4-bit NF4 base"),
    "tuned": ArmInfo("the tuned model", "transformers 5.17", "there is no GPU", "4-bit NF4 base"),
    "rival": ArmInfo("rival", f"big-model at {HOST}", "the recipe names it", "as served"),
}
WHEN = "2026-01-01T00:00:00+00:00"
SIZES = {"q_proj": HIDDEN, "k_proj": HIDDEN * KV_HEADS // HEADS}
SIZES |= {"v_proj": SIZES["k_proj"], "o_proj": HIDDEN}
assert INTERMEDIATE != HIDDEN


def finished_run(
    url: str,
    folder: Path,
    *,
    run: str = RUN,
    weights: Path | None = None,
    base: str = "nf4",
    evaluated: bool = True,
    promoted: bool = True,
    own_file: bool = False,
) -> Store:
    """The store with the run. `weights`: the tiny model in the hub's layout."""
    store = open_store(url)
    folder.mkdir(parents=True, exist_ok=True)
    if weights is None:
        weights = folder / "weights"
        weights.mkdir()
        write_tokenizer(weights)
        (weights / "config.json").write_text("{}")
    commit_model(url, weights)
    prep = _prep(store, folder / "prep", run, weights / "tokenizer.json", own_file)
    train = _train(store, folder / "train", run, prep, base)
    if evaluated:
        _evaluate(store, folder / "evaluate", run, train, promoted)
    return store


def _prep(store: Store, folder: Path, run: str, tokenizer: Path, own_file: bool) -> Manifest:
    dataset, data = load_catalog().datasets["inventory-sums"], DATA
    if own_file:
        data = DATA.model_copy(update={"dataset": "file", "path": OWN_FILE})
        dataset = DatasetEntry(license="own", format="columns", description="a file of one's own")
    task = PrepTask(
        run=run, store=store.url, model_name="tiny", model=tiny_entry(), dataset=dataset, data=data
    )
    folder.mkdir()
    facts = PromptFacts(
        stop_ids=(Encoder(tokenizer).end_id(RENDERER.end),),
        template_sha256=RENDERER.digest(),
        opens_think=RENDERER.opens_think,
        template=RENDERER.template("tiny"),
    )
    (folder / PROMPT_FILE).write_text(facts.model_dump_json())
    store.put(task_key(run, "prep"), task.model_dump_json().encode())
    return commit(
        store, stage_prefix(run, "prep"), folder, kind="prep", run=run, attempt="a", inputs={},
        task_sha256=task.result_digest(), template_sha256=RENDERER.digest(), created=WHEN,
        revisions={"model": REVISION, "dataset": "inventory-sums"},
        metrics={"training_rows": 1064, "test_rows": 40},
    )  # fmt: skip


def _train(store: Store, folder: Path, run: str, prep: Manifest, base: str) -> Manifest:
    train = TRAIN.model_copy(update={"base": base})
    task = TrainTask(run=run, store=store.url, model_name="tiny", model=tiny_entry(), train=train)
    store.put(task_key(run, "train"), task.model_dump_json().encode())
    folder.mkdir()
    _write_adapter(folder)
    cached = read_manifest(store, cache_prefix("models", REPO, REVISION))
    assert cached is not None
    figures: dict[str, MetricValue] = {
        "base": base,
        "dtype": "auto",
        "base_model_sha256": files_digest(cached),
        "steps": 40,
        "selected_step": 40,
        "last_loss": 0.25,
        "device": "CPU with 2 threads",
    }
    return commit(
        store, stage_prefix(run, "train"), folder, kind="train", run=run, attempt="a",
        inputs={"prep": manifest_digest(prep)}, task_sha256=task.result_digest(),
        template_sha256=RENDERER.digest(), revisions={"model": REVISION}, metrics=figures,
        versions={"thinktune": "0.1.0"}, created=WHEN,
    )  # fmt: skip


def _write_adapter(folder: Path) -> None:
    draw = np.random.default_rng(3)
    tensors = {}
    for layer in range(LAYERS):
        for name, rows in SIZES.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = draw.normal(size=(4, HIDDEN)).astype(np.float32)
            up = 0.05 * draw.normal(size=(rows, 4))
            tensors[f"{place}.lora_B.weight"] = up.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": REPO,
        "inference_mode": True,
        "r": 4,
        "lora_alpha": 32,
        "target_modules": list(SIZES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _evaluate(store: Store, folder: Path, run: str, train: Manifest, promoted: bool) -> None:
    report = _report(run, promoted)
    folder.mkdir()
    (folder / "report.json").write_text(report.model_dump_json())
    commit(
        store, stage_prefix(run, "evaluate"), folder, kind="evaluate", run=run, attempt="a",
        inputs={"train": manifest_digest(train)}, task_sha256=None, created=WHEN,
        metrics=manifest_metrics(report),
    )  # fmt: skip


def _report(run: str, promoted: bool) -> Report:
    asked = [
        Question(id=f"q{n}", question=f"{SECRET_ROW} {n}", answer=str(n), reference=str(n))
        for n in range(40)
    ]
    said = [
        sample(f"<think>so</think>\nFinal Answer: {n if arm == 'tuned' or n % 3 else 99}", str(n),
               arm=arm, question=f"q{n}")
        for arm in ARMS for n in range(40)
    ]  # fmt: skip
    require = {"accuracy": Requirement(at_least=0.9 if promoted else 1.1)}
    spec = EvaluateSpec(max_new_tokens=24, temperature=0.6, top_p=0.9, require=require)
    marker = DATA.final_answer
    verifier = verifier_of(spec.verifier, asked)
    rules = Rules(marker=marker, verifier=verifier, count_tokens=len)
    return build_report(
        run=run,
        model=REPO,
        setup=Setup(spec, marker, verifier, asked),
        arms=ARMS,
        judged=judge_all(said, asked, rules),
        versions={},
        metrics=Registry.discover(),
    )
