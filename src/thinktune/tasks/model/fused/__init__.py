"""The fast training path of one GPU, in one package with one switch.

What is replaced, by what, why it is equal, and the test in tests/gpu that says so:

- a LoRA linear each for q, k, v (gate, up) → one product whose operands have columns for the
  adapters (`weights`): the same sums. test_fused.py
- dequantization in three kernels → in one (`nf4`): the same table and scales. test_kernels.py
- RMSNorm, rotary, SwiGLU of several kernels → one each (`kernels`): fp32 inside. test_kernels.py
- attention with a mask → the flash kernel by document (`layer`): causal in each. test_fused.py
- autograd keeping what each operation read → what a layer keeps, written out (`layer`): the same
  derivative. test_fused.py
- a dropout mask per projection → one per group (`weights.Mask`): each projection sees the same
  distribution. test_fused.py
- logits kept, or computed twice → loss and gradient in place (`head`): one softmax. test_kernels.py

One thing changes the result and is off unless the recipe asks for it: products in FP8 (`fp8`).

`fuse` decides by what the device and the recipe allow and says why not where it does not; the plain
path stays for all else.
"""

import importlib.util

import torch
from peft import PeftModel

from thinktune.schema.fused import FUSED_KINDS, LARGEST_HEAD, head_fits
from thinktune.schema.task import Execution
from thinktune.tasks.model.packed_row import RowLoss
from thinktune.tasks.model.sharded import ShardedBase


def why_not(model: PeftModel, dtype: torch.dtype) -> str | None:
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
    if causal.config.hidden_act != "silu":
        return f"activation {causal.config.hidden_act}"
    size = causal.model.layers[0].self_attn.head_dim
    if 2 * len(causal.model.rotary_emb.inv_freq) != size:
        return "rotary embedding of a part of each head"
    if not head_fits(size):
        return f"heads of {size}: the attention kernel takes multiples of 8 up to {LARGEST_HEAD}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None


def why_not_fp8(model: PeftModel) -> str | None:
    """The reason for products in half precision on the fused path; None where FP8 is right."""
    from thinktune.tasks.model.fused.fp8 import Fp8Group  # needs triton
    from thinktune.tasks.model.fused.layer import grouped

    causal = model.get_base_model()
    if torch.cuda.get_device_capability(next(causal.parameters()).device) < (8, 9):
        return "the GPU is older than Ada and Hopper"
    if not all(Fp8Group.fits(group) for layer in causal.model.layers for group in grouped(layer)):
        return "the base is not in 4 bits, or its layers have odd sizes"
    return None


def fuse(
    model: PeftModel,
    execution: Execution,
    dtype: torch.dtype,
    *,
    dropout: float,
    fp8: bool,
    sharded: ShardedBase | None = None,
) -> RowLoss:
    """The loss over fused layers, for models that `why_not` has nothing against."""
    from thinktune.tasks.model.fused.decoder import FusedLoss  # needs triton

    causal = model.get_base_model()
    return FusedLoss(causal, execution, dtype, dropout=dropout, fp8=fp8, sharded=sharded)
