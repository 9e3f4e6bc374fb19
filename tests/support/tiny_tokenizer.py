"""The tiny model's catalog entry and tokenizer, for tests that need no weights: loads no torch."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

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


def commit_model(url: str, folder: Path) -> None:
    """Puts a folder in the hub's layout where prep puts the tiny model."""
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
