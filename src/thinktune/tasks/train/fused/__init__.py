"""The fast training path of one GPU, in one package with one switch.

What is replaced, by what, and why it is equal:

| plain transformers + PEFT | here | equal because |
|---|---|---|
| a LoRA linear each for q, k, v (gate, up) | one `Group` for all (`projection`) | the same sums |
| RMSNorm, rotary, SwiGLU as several kernels | one Triton kernel each (`kernels`) | fp32 inside |
| attention with a mask or per document | one varlen kernel (`layer`) | causal in each document |
| residual adds | the epilogue of the product before (`addmm`) | the same sum |
| logits, kept or computed twice | loss and gradient in place (`head`) | the same softmax |
| recompute of all layers or none | of as many as the plan says | the same layer again |

`fuse` decides by what the device and the recipe allow and says why not where it does not; the plain
path stays for all else, and tests/gpu/test_fused.py holds the two against each other.
"""

import importlib.util

import torch
from peft import PeftModel

from thinktune.tasks.train.loss import RowLoss

FUSED_KINDS = ("llama", "qwen2")


def why_not(model: PeftModel, dtype: torch.dtype, dropout: float) -> str | None:
    """The reason to take the plain path; None where the fused one is right."""
    causal = model.get_base_model()
    parameter = next(causal.parameters())
    if parameter.device.type != "cuda":
        return "no GPU"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"compute in {str(dtype).removeprefix('torch.')}"
    if torch.cuda.get_device_capability(parameter.device) < (8, 0):
        return "the GPU is older than Ampere"
    if causal.config.model_type not in FUSED_KINDS:
        return f"architecture {causal.config.model_type}"
    if dropout > 0:
        return "LoRA dropout is applied to each projection's own input"
    if getattr(causal.config, "use_sliding_window", False):
        return "sliding-window attention"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return "this torch has no varlen attention"
    return None


def fuse(model: PeftModel, *, recompute: int) -> RowLoss:
    """The loss over fused layers, for models that `why_not` has nothing against."""
    from thinktune.tasks.train.fused.decoder import FusedLoss  # needs triton

    return FusedLoss(model.get_base_model(), recompute)
