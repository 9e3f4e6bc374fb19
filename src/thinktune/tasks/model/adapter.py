"""The LoRA adapter: put onto the base, kept in fp32, saved in the standard PEFT form.

Called by the train stage; `trainable` by everything that reads or changes the adapter.
"""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import InputMissing
from thinktune.schema.lora_targets import target_names
from thinktune.schema.recipe import TrainSpec

ADAPTER = "default"
"""PEFT's name of the one adapter."""


def add_adapter(model: PreTrainedModel, train: TrainSpec, entry: ModelEntry) -> PeftModel:
    """Wraps the base. The adapter starts as the identity (B is zero), from the recipe's seed."""
    torch.manual_seed(train.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=train.rank,
        lora_alpha=train.alpha,
        lora_dropout=train.dropout,
        use_rslora=train.rslora,
        target_modules=list(target_names(entry, train)),
        bias="none",
    )
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
    # What plain transformers + PEFT will look for, not the folder it was trained from.
    wrapped.peft_config[ADAPTER].base_model_name_or_path = entry.repo
    return wrapped


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_adapter(model: PeftModel, file: Path) -> None:
    """Sets the adapter to the weights of an `adapter_model.safetensors`. Raises InputMissing where
    they are not those of this adapter's layers and shapes."""
    weights = load_file(file)
    there = {name: weight.shape for name, weight in weights.items()}
    parameters = {saved_name(name): p for name, p in trainable(model).items()}
    if there != {name: p.shape for name, p in parameters.items()}:
        fault = "its weights are not of the layers and shapes of this adapter"
        raise InputMissing(str(file), fault, "name another run in train.init_from")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def write_peft_form(parameters: Path, file: Path) -> None:
    """Writes a checkpoint's adapter, which is saved under the names of parameters, as an
    `adapter_model.safetensors`."""
    weights = {saved_name(name): weight for name, weight in load_file(parameters).items()}
    save_file(weights, file, metadata={"format": "pt"})


def saved_name(name: str) -> str:
    """What PEFT calls a parameter of the adapter in its file."""
    return name.replace(f".{ADAPTER}.", ".")


def save_adapter(model: PeftModel, folder: Path) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`, as PEFT names them."""
    # Embeddings are never trained here, and "auto" would ask the hub whether they were.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
