"""A model of some 80,000 random weights and a jobs folder with a recipe for it.

For tests that run real stages in real processes: everything is real but the model's wits.
"""

import json
from pathlib import Path

import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from thinktune.recipes.compose import jobs_folder
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.keys import cache_prefix
from thinktune.store import commit, new_attempt, open_store
from thinktune.tasks.prep.inventory_sums import inventory_sums

REPO = "tests/tiny"
REVISION = "0" * 40
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 320
HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE = 64, 2, 4, 2, 128


def tiny_entry() -> ModelEntry:
    """The catalog entry of the tiny model."""
    return ModelEntry(
        repo=REPO,
        revision=REVISION,
        license="Apache-2.0",
        architecture="llama",
        parameters=80_000,
        layers=LAYERS,
        hidden=HIDDEN,
        heads=HEADS,
        kv_heads=KV_HEADS,
        head_size=HIDDEN // HEADS,
        intermediate=INTERMEDIATE,
        vocabulary=VOCABULARY,
        tied_embeddings=True,
        attention_bias=False,
        context=2048,
        dtype="float32",
        chat_template="chatml",
        thinks=False,
        lora_targets=(
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ),
    )


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE learnt from the demo's own questions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"{row['question']}\n{row['reasoning']}" for row in inventory_sums(rows=100)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|im_end|>",
            }
        )
    )


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
    commit(
        open_store(url),
        cache_prefix("models", REPO, REVISION),
        folder,
        kind="model",
        run=None,
        attempt=new_attempt(),
        inputs={},
        task_sha256=None,
        created="2026-01-01T00:00:00+00:00",
    )


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
