"""The LoRA adapter: put onto the base, kept in fp32, saved in the standard PEFT form.

Called by `stage` and `checkpoint`.
"""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from thinktune.schema.catalog import ModelEntry
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.recipe import TrainSpec

MLP_LAYERS = ("gate_proj", "up_proj", "down_proj")


def target_layers(train: TrainSpec, entry: ModelEntry) -> list[str]:
    """Names of the linear layers that take an adapter, for this architecture."""
    every = list(entry.lora_targets)
    if train.targets == "all":
        return every
    if train.targets == "mlp":
        return [name for name in every if name in MLP_LAYERS]
    if train.targets == "attention":
        return [name for name in every if name not in MLP_LAYERS]
    for name in train.targets:
        if name not in every:
            raise SpecInvalid("train.targets", f"no layer '{name}'", near_misses(name, every))
    return list(train.targets)


def add_adapter(model: PreTrainedModel, train: TrainSpec, entry: ModelEntry) -> PeftModel:
    """Wraps the base. The adapter starts as the identity (B is zero), from the recipe's seed."""
    torch.manual_seed(train.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=train.rank,
        lora_alpha=train.alpha,
        lora_dropout=train.dropout,
        use_rslora=train.rslora,
        target_modules=target_layers(train, entry),
        bias="none",
    )
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
    # What plain transformers + PEFT will look for, not the folder it was trained from.
    wrapped.peft_config["default"].base_model_name_or_path = entry.repo
    return wrapped


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_adapter(model: PeftModel, folder: Path) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`, as PEFT names them."""
    # Embeddings are never trained here, and "auto" would ask the hub whether they were.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
