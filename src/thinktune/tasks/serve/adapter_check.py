"""Whether an engine can apply an adapter beside its base model. vLLM checks little of it itself.

Called by `inputs` before anything is loaded.
"""

import json
import struct
from pathlib import Path
from typing import Any

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import InputMissing, SpecInvalid
from thinktune.schema.recipe import EngineName
from thinktune.schema.serving import LORA_RANKS, adapter_rank, lora_rank_setting
from thinktune.store.adapters import CONFIG_FILE, WEIGHTS_FILE

REMEDY = "serve it by transformers (--engine transformers), or merge it into its base model"
PLAIN_INIT = (True, False, "gaussian", None)
"""Ways to initialize an adapter that leave the base's weights as they are. PiSSA, OLoRA and LoftQ
train against changed ones."""


def check_adapter(folder: Path, model: ModelEntry, engine: EngineName) -> None:
    """Raises InputMissing where it cannot be read, SpecInvalid for one that the engine would apply
    wrongly or not at all."""
    path, config = folder / CONFIG_FILE, read_config(folder)
    try:
        names = tensor_names(folder / WEIGHTS_FILE)
    except (OSError, ValueError, struct.error) as error:
        raise _broken(folder, error) from None
    named = config.get("base_model_name_or_path")
    if named not in (None, model.repo):
        fault = f"it is of another base model ({named}, not {model.repo})"
        raise SpecInvalid(str(path), fault, "serve the run that it was trained in")
    fault_for_vllm = _fault(config, names, model) if engine == "vllm" else None
    if fault_for_vllm is not None:
        raise SpecInvalid(str(path), fault_for_vllm, REMEDY)


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration. Raises InputMissing."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(folder, error) from None
    if not isinstance(config, dict) or not isinstance(config.get("r", 0), int):
        raise _broken(folder, ValueError(f"{CONFIG_FILE} holds no configuration"))
    return config


def _broken(folder: Path, error: Exception) -> InputMissing:
    return InputMissing(str(folder), f"it is no adapter ({error})", "train it again")


def _fault(config: dict[str, Any], names: list[str], model: ModelEntry) -> str | None:
    """Why vLLM cannot apply it."""
    if config.get("peft_type") != "LORA":
        return f"it is of type {config.get('peft_type')}, and vLLM takes LORA alone"
    for key in ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices"):
        if config.get(key):
            return f"it uses {key}, which vLLM does not apply"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it trains biases, which vLLM does not apply"
    if config.get("init_lora_weights") not in PLAIN_INIT:
        return f"it was initialized by {config['init_lora_weights']}, which changes the base model"
    for part, why in (
        ("kv_b_proj", "and vLLM applies that to the prompt alone"),
        (".experts.", "and not every kernel of vLLM applies that"),
    ):
        if any(part in name for name in names):
            return f"it adapts {part.strip('.')}, {why}"
    unplaced = sorted({layer_of(name) for name in names} - set(model.lora_targets))
    if unplaced:
        return f"it adapts {', '.join(unplaced)}, for which vLLM has no place and which it ignores"
    if adapter_rank(config) > LORA_RANKS[-1]:
        return f"its rank is {adapter_rank(config)}, and vLLM takes {LORA_RANKS[-1]} at most"
    return None


def layer_of(tensor: str) -> str:
    """Name of the layer that a tensor of an adapter changes, as configurations name it: `q_proj` of
    `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`."""
    return tensor.partition(".lora_")[0].rpartition(".")[2]


def rank_setting(config: dict[str, Any]) -> int:
    """The adapter's rank, rounded up to a value that vLLM takes. Raises SpecInvalid."""
    return lora_rank_setting(adapter_rank(config), "adapter", REMEDY)


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, from its header alone."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > path.stat().st_size:
            raise ValueError(f"{path.name} is damaged")
        header: dict[str, Any] = json.loads(file.read(size))
    return [name for name in header if name != "__metadata__"]
