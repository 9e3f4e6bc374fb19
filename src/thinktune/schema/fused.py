"""What the fused training path takes, by shape and hardware, before anything runs.

Read by the plan and, for its own checks, by `thinktune.tasks.model.fused`.
"""

from thinktune.schema.catalog import HardwareEntry, ModelEntry
from thinktune.schema.recipe import TrainSpec

FUSED_KINDS = ("llama", "qwen2", "qwen3", "mistral")
"""Architectures of the fused path, as `model_type` names them."""
LARGEST_HEAD = 192
"""Largest head that the flash kernel's backward pass takes on every GPU since Ampere."""

ALIGNMENT = 16
"""The adapters of a group take a multiple of this many columns: what tensor cores want."""
LOGITS_BYTES = 2**29
"""Logits that exist at once, in half precision."""
PROJECTION_GROUPS = (
    ("q_proj", "k_proj", "v_proj"),
    ("o_proj",),
    ("gate_proj", "up_proj"),
    ("down_proj",),
)
"""Projections of one input, which run as one product."""


def head_fits(size: int) -> bool:
    """Whether the attention kernel takes heads of this size."""
    return size % 8 == 0 and size <= LARGEST_HEAD


def is_fused(model: ModelEntry, train: TrainSpec, hardware: HardwareEntry) -> bool:
    """Whether training takes the fused path; every GPU with bf16 has what it needs."""
    device = hardware.num_gpus > 0 and hardware.bf16 and train.dtype != "float32"
    return device and model.architecture in FUSED_KINDS and head_fits(model.head_size)
