"""The frozen head and the cross-entropy in one: no logits are kept, none are computed twice.

Called by `fused.FusedLoss`. The head is frozen, so the gradient of the hidden states is all that a
backward pass needs, and it can be had in the forward pass: per chunk of targets, logits, then loss
and gradient in place over them, then the product with the head (as Liger's and cut cross-entropy
do, arXiv:2411.09009).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from thinktune.schema.fused import LOGITS_BYTES

BLOCK = 8192


@triton.jit
def _loss_and_gradient(logits, targets, losses, words: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * words
    top = float("-inf")
    total = 0.0
    target = tl.load(targets + row)
    chosen = 0.0
    for start in range(0, words, block):
        at = start + tl.arange(0, block)
        value = tl.load(base + at, mask=at < words, other=float("-inf")).to(tl.float32)
        # Taken on the way: below, another warp may have written over it.
        chosen += tl.sum(tl.where(at == target, value, 0.0))
        higher = tl.maximum(top, tl.max(value))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(value - higher))
        top = higher
    tl.store(losses + row, tl.log(total) + top - chosen)
    for start in range(0, words, block):
        at = start + tl.arange(0, block)
        value = tl.load(base + at, mask=at < words, other=float("-inf")).to(tl.float32)
        share = tl.exp(value - top) / total - tl.where(at == target, 1.0, 0.0)
        tl.store(base + at, share.to(logits.dtype.element_ty), mask=at < words)


class HeadLoss(torch.autograd.Function):
    """Sum of the cross-entropy. Shapes: states (N, width), weight (words, width), targets (N,)."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        count, words = len(states), len(weight)
        losses = torch.empty(count, dtype=torch.float32, device=states.device)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(states) if wanted else None
        chunk = max(1, LOGITS_BYTES // (words * states.element_size()))
        for start in range(0, count, chunk):
            some = slice(start, min(count, start + chunk))
            logits = states[some] @ weight.T
            grid = (len(logits),)
            _loss_and_gradient[grid](
                logits, targets[some], losses[some], words, BLOCK, num_warps=16
            )
            if gradient is not None:
                torch.mm(logits, weight, out=gradient[some])
            del logits  # before the next chunk is made
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # The scalar stays in fp32: rounded, it would scale all gradients of the step alike.
        return gradient * d_loss, None, None
