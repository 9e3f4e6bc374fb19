"""The train stage itself on a GPU, as the launcher starts it."""

import json
from pathlib import Path

import torch
from command import thinktune
from peft import PeftModel
from tiny import seed_store, write_jobs, write_model
from transformers import AutoModelForCausalLM

from thinktune.store import fetch, open_store, read_manifest


def test_prep_and_train_on_the_fused_path(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    seed_store(store, tmp_path / "seed")
    write_model(tmp_path / "model")
    jobs = write_jobs(tmp_path / "jobs")
    settings = ("--run", "gpu", "--until", "train", "--set", "train.max_steps=60")
    ended = thinktune("run", "tiny", "--local", "--store", store, *settings, jobs=jobs)
    assert ended.code == 0, ended.err
    assert "train: fused path" in ended.out
    manifest = read_manifest(open_store(store), "runs/gpu/train")
    assert manifest is not None
    assert int(manifest.metrics["peak_gpu_memory_bytes"] or 0) > 0
    folder = fetch(open_store(store), "runs/gpu/train", manifest, tmp_path / "adapter")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 60
    assert losses[-1] < losses[0]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tuned = PeftModel.from_pretrained(base, str(folder))
    factors = [p for n, p in tuned.named_parameters() if "lora_B" in n]
    assert len(factors) == 14
    assert all(torch.isfinite(p).all() and p.abs().sum() > 0 for p in factors)
