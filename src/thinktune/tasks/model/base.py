"""The frozen base model, as training and evaluation both load it.

Called by `load` and by the evaluate stage. Weights are safetensors from the store's cache, and
no code of a repository's own is run.
"""

import os
from pathlib import Path
from typing import Literal

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from thinktune.schema.engines import UNPACKED_SHARE
from thinktune.schema.errors import DeviceUnusable

Base = Literal["nf4", "16bit"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


def local_device() -> torch.device:
    """This rank's device: its GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        fault = f"local rank {index}, and {torch.cuda.device_count()} GPUs are visible"
        raise DeviceUnusable("GPU", fault, "start one process per GPU, or request more GPUs")
    return torch.device("cuda", index)


def compute_dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 on a GPU that has it, float16 on one that has not, float32 on a CPU."""
    if wanted != "auto":
        return {
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float32": torch.float32,
        }[wanted]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16


def load_base(
    folder: Path, base: Base, dtype: torch.dtype, device: torch.device, *, attention: str
) -> PreTrainedModel:
    """Loads the model frozen onto `device`: NF4 with double quantization, or 16 (32) bits.

    `attention` names an implementation that transformers knows or that was registered with it.
    """
    transformers_logging.disable_progress_bar()  # ours is the one progress that people see
    quantization = None
    if base == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": device},
        quantization_config=quantization,
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    model.requires_grad_(False)
    # The release's sampling settings would mix with the recipe's.
    model.generation_config = GenerationConfig()
    keep_weights_packed(model)
    return model


def keep_weights_packed(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights on CPUs with avx512_bf16.

    There, a forward pass in eval mode rewrites a Linear4bit's weight for inference, and the
    backward pass of later training steps reads the new bytes as if they were the old ones: wrong
    gradients without an error (bitsandbytes 0.50.2).
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def recompute_layers(model: PeftModel, layers: int) -> None:
    """Recomputes the activations of the first `layers` layers; keeps those of the others."""
    if layers == 0:
        return
    causal = model.get_base_model()
    causal.gradient_checkpointing_enable({"use_reentrant": False})
    for number, layer in enumerate(causal.model.layers):
        layer.gradient_checkpointing = number < layers


def unpack(model: torch.nn.Module) -> None:
    """Puts each 4-bit layer's dequantized weight in its place, for inference: on a CPU, and on a
    GPU where the weights then take no more than `UNPACKED_SHARE` of its memory.

    bitsandbytes dequantizes on every call and multiplies by the result, so this gives the same
    numbers and saves the repetition: one dequantization instead of one per token.
    """
    packed = [(n, layer) for n, layer in model.named_modules() if isinstance(layer, Linear4bit)]
    if not packed:
        return
    weights = sum(layer.in_features * layer.out_features for _, layer in packed)
    memory = device_memory(packed[0][1].weight.device)
    if memory is not None and 2 * weights > UNPACKED_SHARE * memory:
        return
    for name, layer in packed:
        dtype = layer.compute_dtype or torch.float32
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
        plain = torch.nn.Linear(
            layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
        )
        plain.weight = torch.nn.Parameter(weight, requires_grad=False)
        plain.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory; None for a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def compute_capability() -> tuple[int, int] | None:
    """That of this process's GPU, such as (9, 0); None where there is none."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Versions of what decides a model's numbers, for manifests."""
    from importlib.metadata import version

    import thinktune

    names = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
    return {"thinktune": thinktune.__version__, **{name: version(name) for name in names}}


def device_name(device: torch.device) -> str:
    """The device's name for people to read."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU with {torch.get_num_threads()} threads"
