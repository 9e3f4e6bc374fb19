"""Elementwise Triton kernels of the fused layer: RMSNorm, rotary embedding, SwiGLU.

Called by `layer`. Each is one pass over its data forward and one backward; weights are frozen, so
none computes a gradient for them. bf16 or fp16 in and out, fp32 inside.
"""

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _norm_forward(x, w, y, rstd, width: tl.constexpr, eps, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    tl.store(rstd + row, scale)
    # Rounded before the weight, as transformers does.
    normed = (value * scale).to(y.dtype.element_ty)
    weight = tl.load(w + at, mask=inside, other=0.0).to(y.dtype.element_ty)
    tl.store(y + row * width + at, normed * weight, mask=inside)


@triton.jit
def _norm_backward(dy, x, w, rstd, dx, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    grad = tl.load(dy + row * width + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(w + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(rstd + row)
    normed = value * scale
    weighted = grad * weight
    mean = tl.sum(weighted * normed) / width
    tl.store(
        dx + row * width + at,
        ((weighted - normed * mean) * scale).to(dx.dtype.element_ty),
        mask=inside,
    )


class RmsNorm(torch.autograd.Function):
    """y = x / rms(x) · w. Shapes: x (T, width), w (width,)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
        rows, width = x.shape
        y = torch.empty_like(x)
        rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
        block = triton.next_power_of_2(width)
        _norm_forward[(rows,)](x, w, y, rstd, width, eps, block, num_warps=_warps(block))
        ctx.save_for_backward(x, w, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, w, rstd = ctx.saved_tensors
        rows, width = x.shape
        dx = torch.empty_like(x)
        block = triton.next_power_of_2(width)
        grid = (rows,)
        _norm_backward[grid](dy.contiguous(), x, w, rstd, dx, width, block, num_warps=_warps(block))
        return dx, None, None


@triton.jit
def _rotate(x, cos, sin, stride, half: tl.constexpr, block: tl.constexpr, back: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.arange(0, block)
    inside = at < half
    c = tl.load(cos + token * 2 * half + at, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + token * 2 * half + at, mask=inside, other=0.0).to(tl.float32)
    if back:
        s = -s
    base = x + token * stride + head * 2 * half
    first = tl.load(base + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(base + half + at, mask=inside, other=0.0).to(tl.float32)
    kind = x.dtype.element_ty
    tl.store(base + at, (first * c - second * s).to(kind), mask=inside)
    tl.store(base + half + at, (second * c + first * s).to(kind), mask=inside)


class Rotary(torch.autograd.Function):
    """Rotates the first `heads` heads of each row in place; the rest (values) passes.

    Shapes: x (T, all heads · size), cos and sin (T, size), both halves alike. In place is safe:
    the projection before it does not keep its output.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.heads = heads
        ctx.mark_dirty(x)
        _turn(x, cos, sin, heads, back=False)
        return x

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        dx = dy.clone() if not dy.is_contiguous() else dy
        _turn(dx, cos, sin, ctx.heads, back=True)
        return dx, None, None, None


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, *, back: bool) -> None:
    half = cos.shape[-1] // 2
    block = triton.next_power_of_2(half)
    grid = (x.shape[0], heads)
    _rotate[grid](x, cos, sin, x.stride(0), half, block, back, num_warps=1)


@triton.jit
def _swiglu_forward(x, y, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gate = tl.load(x + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        y + row * width + at, (gate * tl.sigmoid(gate) * up).to(y.dtype.element_ty), mask=inside
    )


@triton.jit
def _swiglu_backward(dy, x, dx, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    grad = tl.load(dy + row * width + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    silu = gate * share
    kind = dx.dtype.element_ty
    d_gate = grad * up * (share + silu * (1 - share))
    tl.store(dx + row * 2 * width + at, d_gate.to(kind), mask=inside)
    tl.store(dx + row * 2 * width + width + at, (grad * silu).to(kind), mask=inside)


class SwiGlu(torch.autograd.Function):
    """silu(gate) · up, both halves in one tensor. Shapes: x (T, 2 · width) → (T, width)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape[0], x.shape[1] // 2
        y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
        block = min(2048, triton.next_power_of_2(width))
        _swiglu_forward[(rows, triton.cdiv(width, block))](x, y, width, block, num_warps=4)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        rows, width = x.shape[0], x.shape[1] // 2
        dx = torch.empty_like(x)
        block = min(2048, triton.next_power_of_2(width))
        grid = (rows, triton.cdiv(width, block))
        _swiglu_backward[grid](dy.contiguous(), x, dx, width, block, num_warps=4)
        return dx


def _warps(block: int) -> int:
    return max(1, min(16, block // 256))
