"""A model of some 80,000 random weights and a jobs folder with a recipe for it.

For tests that run real stages in real processes: everything is real but the model's wits.
"""

from pathlib import Path

import torch
import yaml
from tiny_tokenizer import (
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LAYERS,
    VOCABULARY,
    commit_model,
    tiny_entry,
    write_tokenizer,
)
from transformers import LlamaConfig, LlamaForCausalLM

from thinktune.recipes.compose import jobs_folder


def write_model(folder: Path) -> None:
    """The model in the hub's layout."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=2,
        pad_token_id=2,
        bos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder)


def seed_store(url: str, folder: Path) -> None:
    """Puts the model where prep would have put it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder)
    commit_model(url, folder)


def write_jobs(folder: Path) -> Path:
    """A jobs folder: the shipped catalog and the tiny model, the demo recipe cut down to it."""
    (folder / "catalog").mkdir(parents=True)
    (folder / "recipes").mkdir()
    shipped = jobs_folder()
    for name in ("datasets", "hardware"):
        text = (shipped / "catalog" / f"{name}.yaml").read_text(encoding="utf-8")
        (folder / "catalog" / f"{name}.yaml").write_text(text, encoding="utf-8")
    entry = tiny_entry().model_dump(mode="json")
    (folder / "catalog" / "models.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    recipe = yaml.safe_load((shipped / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    recipe["model"] = "tiny"
    recipe["data"]["split"] = {"test_rows": 8, "validation_rows": 4}
    recipe["train"] |= {
        "batch_size": 4,
        "max_steps": 6,
        "checkpoint_every_steps": 2,
        "lr": 0.01,
    }
    recipe["evaluate"] |= {"max_new_tokens": 8, "batch_size": 4}
    (folder / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return folder
