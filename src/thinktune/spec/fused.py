"""What the fused training path takes, by shape and hardware, before anything runs.

Read by the plan and, for its own checks, by `thinktune.tasks.train.fused`.
"""

from thinktune.spec.catalog import HardwareEntry, ModelEntry
from thinktune.spec.recipe import TrainSpec

FUSED_KINDS = ("llama", "qwen2", "qwen3", "mistral")
"""Architectures of the fused path, as `model_type` names them."""
LARGEST_HEAD = 192
"""Of the flash kernel's backward pass on every GPU since Ampere."""


def head_fits(size: int) -> bool:
    """Whether the attention kernel takes heads of this size."""
    return size % 8 == 0 and size <= LARGEST_HEAD


def is_fused(model: ModelEntry, train: TrainSpec, hardware: HardwareEntry) -> bool:
    """Whether training takes the fused path; every GPU with bf16 has what it needs."""
    device = hardware.num_gpus > 0 and hardware.bf16 and train.dtype != "float32"
    return device and model.architecture in FUSED_KINDS and head_fits(model.head_size)
