"""Small models of any shape of the four dense architectures, with random weights."""

from pathlib import Path
from typing import Any

import torch
from tiny import VOCABULARY
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

KINDS = ("llama", "qwen2", "qwen3", "mistral")


def write_shape(folder: Path, kind: str, **settings: Any) -> Path:
    """A model in the hub's layout; `settings` as in its config."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        **settings,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    with torch.no_grad():  # biases and norms that are not 0 and 1
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    return folder
