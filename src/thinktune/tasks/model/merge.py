"""An adapter merged into its base: a model folder that plain transformers and vLLM load alone.

Called by evaluation, which judges what is merged, and by whoever publishes it. Weights are read and
written file by file, so that memory holds one file of the release at a time.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from thinktune.schema.errors import DataInvalid
from thinktune.store.adapters import CONFIG_FILE, WEIGHTS_FILE
from thinktune.tasks.model.base import Base

ADAPTER_PREFIX = "base_model.model."
"""What PEFT puts in front of a layer's name."""
NOT_MERGED = ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Settings of PEFT that make something else of a layer than W + s·B·A with one s."""


def merge(
    weights: Path,
    adapter: Path,
    output: Path,
    *,
    base: Base,
    dtype: torch.dtype,
    device: torch.device,
    beat: Callable[[], None],
) -> None:
    """Writes the merged model into `output`, a new folder, in the type of the release.

    The sum W + s·B·A is computed in fp32. An adapter of an NF4 base has learned to work on rounded
    weights, so W is then what 4 bits make of it, also in layers without an adapter; `dtype` is the
    type from which the training rounded. `beat` is called after each weight. Raises DataInvalid for
    an adapter that is none of this base, or of another form than plain LoRA.
    """
    added = _Added(adapter)
    rounded = _linear_layers(weights) if base == "nf4" else frozenset[str]()
    output.mkdir()
    for file in sorted(weights.iterdir()):
        if file.is_dir():  # what some releases have for other programs
            continue
        if file.suffix != ".safetensors":
            shutil.copy2(file, output / file.name)
            continue
        merged = {}
        for name, weight in _tensors(file):
            layer = name.removesuffix(".weight")
            moved = weight.to(device)
            if layer in rounded:
                moved = _rounded(moved.to(dtype))
            merged[name] = added.onto(layer, moved).to("cpu", weight.dtype)
            beat()
        save_file(merged, output / file.name, metadata={"format": "pt"})
    added.check_all_used()


class _Added:
    """What an adapter adds to each layer's weight."""

    def __init__(self, adapter: Path) -> None:
        self._adapter = adapter
        config: Mapping[str, Any] = json.loads((adapter / CONFIG_FILE).read_text())
        if strange := [name for name in NOT_MERGED if config.get(name)]:
            raise self._fault(f"it has {strange[0]}", "merge it with PEFT, which made it")
        self._alpha: float = config["lora_alpha"]
        self._root: bool = bool(config.get("use_rslora"))
        try:
            self._weights = load_file(adapter / WEIGHTS_FILE)
        except (SafetensorError, OSError) as error:
            raise self._fault(f"it cannot be read ({error})", "fetch it again") from error
        names = [name.removeprefix(ADAPTER_PREFIX) for name in self._weights]
        self._left = {name.rpartition(".lora_")[0] for name in names}

    def onto(self, layer: str, weight: torch.Tensor) -> torch.Tensor:
        """The layer's merged weight, in fp32; the weight itself where nothing is added."""
        if layer not in self._left:
            return weight
        self._left.remove(layer)
        down, up = (
            self._weights[f"{ADAPTER_PREFIX}{layer}.lora_{part}.weight"].to(weight.device).float()
            for part in "AB"
        )
        if (up.shape[0], down.shape[1]) != tuple(weight.shape):
            fault = f"{layer} is {up.shape[0]} × {down.shape[1]}, and the base's {weight.shape}"
            raise self._fault(fault, "take the base that the adapter was trained on")
        rank = down.shape[0]
        scale = self._alpha / (rank**0.5 if self._root else rank)
        return weight.float() + scale * (up @ down)

    def check_all_used(self) -> None:
        """Raises DataInvalid where a layer of the adapter is no layer of the base."""
        if self._left:
            fault = f"it adds to {min(self._left)}, which the base does not have"
            raise self._fault(fault, "take the base that the adapter was trained on")

    def _fault(self, fault: str, remedy: str) -> DataInvalid:
        return DataInvalid(f"adapter {self._adapter.name}", fault, remedy)


def _linear_layers(weights: Path) -> frozenset[str]:
    """The layers that loading in 4 bits rounds: all linear ones but the output's."""
    config = AutoConfig.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    return frozenset(
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no mapping
            yield name, opened.get_tensor(name)


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    """What NF4 with double quantization keeps of a weight."""
    packed, state = quantize_4bit(
        weight.contiguous(), quant_type="nf4", compress_statistics=True, blocksize=64
    )
    rounded: torch.Tensor = dequantize_4bit(packed, state)
    return rounded
