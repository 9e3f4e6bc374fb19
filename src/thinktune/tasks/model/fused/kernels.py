"""Elementwise Triton kernels of the fused layer: RMSNorm, rotary embedding, SwiGLU, LoRA dropout.

Called by `layer`. Each is one pass over its data; weights are frozen, so none computes a gradient
for them. bf16 or fp16 in and out, fp32 inside. Rows may have any stride, so that results land
where the next product reads them, beside its LoRA columns.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def _norm(x, w, y, rstd, width: tl.constexpr, stride, eps, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    tl.store(rstd + row, scale)
    # Rounded before the weight, as transformers does.
    normed = (value * scale).to(y.dtype.element_ty)
    weight = tl.load(w + at, mask=inside, other=0.0).to(y.dtype.element_ty)
    tl.store(y + row * stride + at, normed * weight, mask=inside)


@triton.jit
def _norm_back(
    dy, x, w, rstd, residual, dx, y, width: tl.constexpr, dy_stride, residual_stride, dx_stride,
    added: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    grad = tl.load(dy + row * dy_stride + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(w + at, mask=inside, other=0.0).to(y.dtype.element_ty)
    scale = tl.load(rstd + row)
    normed = value * scale
    tl.store(y + row * width + at, normed.to(y.dtype.element_ty) * weight, mask=inside)
    weighted = grad * weight.to(tl.float32)
    mean = tl.sum(weighted * normed) / width
    result = (weighted - normed * mean) * scale
    if added:
        result += tl.load(residual + row * residual_stride + at, mask=inside, other=0.0).to(
            tl.float32
        )
    tl.store(dx + row * dx_stride + at, result.to(dx.dtype.element_ty), mask=inside)


def norm(x: torch.Tensor, w: torch.Tensor, eps: float, out: torch.Tensor) -> torch.Tensor:
    """out = x / rms(x) · w; returns 1 / rms. Shapes: x, out (T, width), w (width,) → (T,)."""
    rows, width = x.shape
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _norm[(rows,)](x, w, out, rstd, width, out.stride(0), eps, block, num_warps=_warps(block))
    return rstd


def norm_back(
    dy: torch.Tensor,
    x: torch.Tensor,
    w: torch.Tensor,
    rstd: torch.Tensor,
    residual: torch.Tensor | None,
    out: torch.Tensor,
) -> torch.Tensor:
    """out = gradient of x, plus `residual`; returns the norm's output again, (T, width)."""
    rows, width = x.shape
    y = torch.empty_like(x)
    added = x if residual is None else residual
    block = triton.next_power_of_2(width)
    _norm_back[(rows,)](
        dy, x, w, rstd, added, out, y, width, dy.stride(0), added.stride(0), out.stride(0),
        residual is not None, block, num_warps=_warps(block),
    )  # fmt: skip
    return y


@triton.jit
def _rotate(
    x, out, cos, sin, q_norm, k_norm, q_heads, k_heads, x_stride, out_stride, eps,
    normed: tl.constexpr, half: tl.constexpr, block: tl.constexpr, heads: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    first_head = part * q_heads
    head = tl.arange(0, heads)
    at = tl.arange(0, block)
    inside = (head < tl.where(part == 0, q_heads, k_heads))[:, None] & (at < half)[None, :]
    c = tl.load(cos + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
    index = (first_head + head)[:, None] * 2 * half + at[None, :]
    source = x + token * x_stride + index
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    if normed:
        square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
        scale = tl.rsqrt(square / (2 * half) + eps)[:, None]
        weights = q_norm if part == 0 else k_norm
        lower = tl.load(weights + at, mask=at < half, other=0.0).to(kind)[None, :]
        upper = tl.load(weights + half + at, mask=at < half, other=0.0).to(kind)[None, :]
        first = ((first * scale).to(kind) * lower).to(tl.float32)
        second = ((second * scale).to(kind) * upper).to(tl.float32)
    target = out + token * out_stride + index
    tl.store(target, (first * c - second * s).to(kind), mask=inside)
    tl.store(target + half, (second * c + first * s).to(kind), mask=inside)


@triton.jit
def _rotate_back(
    dq, dk, dv, x, out, cos, sin, q_norm, k_norm, q_heads, k_heads, q_stride, k_stride, v_stride,
    x_stride, out_stride, eps,
    normed: tl.constexpr, half: tl.constexpr, block: tl.constexpr, heads: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    head = tl.arange(0, heads)
    at = tl.arange(0, block)
    inside = (head < tl.where(part == 0, q_heads, k_heads))[:, None] & (at < half)[None, :]
    own = head[:, None] * 2 * half + at[None, :]
    if part == 0:
        source = dq + token * q_stride + own
        first_head = 0
    elif part == 1:
        source = dk + token * k_stride + own
        first_head = q_heads
    else:
        source = dv + token * v_stride + own
        first_head = q_heads + k_heads
    index = first_head * 2 * half + own
    target = out + token * out_stride + index
    kind = out.dtype.element_ty
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    if part < 2:
        c = tl.load(cos + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
        s = tl.load(sin + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
        rotated = first * c + second * s
        second = second * c - first * s
        first = rotated
        if normed:
            raw = x + token * x_stride + index
            lower = tl.load(raw, mask=inside, other=0.0).to(tl.float32)
            upper = tl.load(raw + half, mask=inside, other=0.0).to(tl.float32)
            scale = tl.rsqrt(
                (tl.sum(lower * lower, 1) + tl.sum(upper * upper, 1)) / (2 * half) + eps
            )
            scale = scale[:, None]
            weights = q_norm if part == 0 else k_norm
            first *= tl.load(weights + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
            second *= tl.load(weights + half + at, mask=at < half, other=0.0).to(tl.float32)[
                None, :
            ]
            lower *= scale
            upper *= scale
            mean = ((tl.sum(first * lower, 1) + tl.sum(second * upper, 1)) / (2 * half))[:, None]
            first = (first - lower * mean) * scale
            second = (second - upper * mean) * scale
    tl.store(target, first.to(kind), mask=inside)
    tl.store(target + half, second.to(kind), mask=inside)


class Heads:
    """How a row of q, k and v is made of heads, and what is done to them before attention.

    `norms` are the weights of q's and k's RMSNorm over a head (Qwen3), or None.
    """

    def __init__(
        self,
        query: int,
        key: int,
        size: int,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
    ) -> None:
        self.query = query
        self.key = key
        self.size = size
        self.norms = norms
        self._eps = eps
        self._half = size // 2
        self._block = triton.next_power_of_2(self._half)
        self._heads = triton.next_power_of_2(max(query, key))

    def rotate(self, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """q and k normed and rotated: in index, or into a new tensor (T, heads · size) where there
        is a norm, whose backward pass needs its input. Shapes: cos, sin (T, size)."""
        out = qkv
        if self.norms is not None:
            out = qkv.new_empty(len(qkv), (self.query + self.key) * self.size)
        q_norm, k_norm = self.norms or (qkv, qkv)
        _rotate[(len(qkv), 2)](
            qkv, out, cos, sin, q_norm, k_norm, self.query, self.key, qkv.stride(0), out.stride(0),
            self._eps, self.norms is not None, self._half, self._block, self._heads, num_warps=4,
        )  # fmt: skip
        return out

    def rotate_back(
        self,
        gradients: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """The gradient of `rotate`'s input into `out`, v's beside it. Shapes: the gradients of q, k
        and v (T, heads, size), out (T, (q + 2·k heads) · size)."""
        dq, dk, dv = gradients
        q_norm, k_norm = self.norms or (qkv, qkv)
        _rotate_back[(len(out), 3)](
            dq, dk, dv, qkv, out, cos, sin, q_norm, k_norm, self.query, self.key, dq.stride(0),
            dk.stride(0), dv.stride(0), qkv.stride(0), out.stride(0), self._eps,
            self.norms is not None, self._half, self._block, self._heads, num_warps=4,
        )  # fmt: skip


@triton.jit
def _swiglu(x, y, width, x_stride, y_stride, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gate = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + width + at, mask=inside, other=0.0).to(tl.float32)
    kind = y.dtype.element_ty
    # Rounded between the two, as transformers does.
    silu = (gate * tl.sigmoid(gate)).to(kind)
    tl.store(y + row * y_stride + at, silu * up.to(kind), mask=inside)


@triton.jit
def _swiglu_back(dy, x, y, width, dy_stride, x_stride, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    grad = tl.load(dy + row * dy_stride + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + width + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    silu = gate * share
    kind = y.dtype.element_ty
    tl.store(y + row * width + at, silu.to(kind) * up.to(kind), mask=inside)
    d_gate = grad * up * (share + silu * (1 - share))
    tl.store(x + row * x_stride + at, d_gate.to(kind), mask=inside)
    tl.store(x + row * x_stride + width + at, (grad * silu).to(kind), mask=inside)


def swiglu(x: torch.Tensor, out: torch.Tensor) -> None:
    """out = silu(gate) · up. Shapes: x (T, 2 · width), gate first; out (T, width)."""
    rows, width = out.shape
    block = min(2048, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    _swiglu[grid](x, out, width, x.stride(0), out.stride(0), block, num_warps=4)


def swiglu_back(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Writes the gradient of x over x itself; returns silu(gate) · up again, (T, width)."""
    rows, width = dy.shape
    y = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    block = min(2048, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    _swiglu_back[grid](dy, x, y, width, dy.stride(0), x.stride(0), block, num_warps=4)
    return y


@triton.jit
def _dropped(x, y, width, x_stride, seed, probability, block: tl.constexpr, add: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    keep = tl.rand(seed, row * width + at) >= probability
    value = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(keep, value / (1 - probability), 0.0)
    target = y + row * width + at
    if add:
        value += tl.load(target, mask=inside, other=0.0).to(tl.float32)
    tl.store(target, value.to(y.dtype.element_ty), mask=inside)


def dropped(x: torch.Tensor, seed: int, probability: float) -> torch.Tensor:
    """x with each element 0 with this probability, else divided by 1 - probability. The same seed
    gives the same elements."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _drop(x, y, seed, probability, add=False)
    return y


def add_dropped(y: torch.Tensor, x: torch.Tensor, seed: int, probability: float) -> None:
    """y += `dropped(x, seed, probability)`."""
    _drop(x, y, seed, probability, add=True)


def _drop(x: torch.Tensor, y: torch.Tensor, seed: int, probability: float, *, add: bool) -> None:
    rows, width = x.shape
    block = min(1024, triton.next_power_of_2(width))
    grid = (rows, triton.cdiv(width, block))
    _dropped[grid](x, y, width, x.stride(0), seed, probability, block, add, num_warps=4)


def _warps(block: int) -> int:
    return max(1, min(16, block // 256))
