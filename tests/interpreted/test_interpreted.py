"""The fused path's Triton kernels without a GPU: `make unit` runs these in Triton's interpreter.

In float16, whose rounding the interpreter has right. tests/gpu/test_kernels.py holds the compiled
ones, in both precisions.
"""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit

from thinktune.tasks.model.fused.kernels import (
    Heads,
    add_dropped,
    dropped,
    norm,
    norm_back,
    swiglu,
    swiglu_back,
)
from thinktune.tasks.model.fused.nf4 import dequantize

TOKENS, PADDING = 7, 16


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float16, generator=torch.Generator().manual_seed(0))


def near(one: torch.Tensor, other: torch.Tensor | None) -> bool:
    assert other is not None
    return float((one.double() - other).norm() / other.norm()) < 2e-3


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(24, 192), (7, 64), (33, 72)])
def test_nf4_is_what_bitsandbytes_gives(shape: tuple[int, int], nested: bool) -> None:
    outs, ins = shape
    kind = {"compress_statistics": nested, "quant_type": "nf4"}
    layer = Linear4bit(ins, outs, bias=False, compute_dtype=torch.float16, **kind)
    layer.weight = Params4bit(random(*shape) * 0.02, False, **kind).to("cpu")
    out = torch.zeros(outs, ins + PADDING, dtype=torch.float16)
    dequantize(layer, out[:, :ins])
    assert torch.equal(out[:, :ins], dequantize_4bit(layer.weight.data, layer.weight.quant_state))
    assert not out[:, ins:].any()


def test_norm_both_ways() -> None:
    width = 100
    x, w, dy = random(TOKENS, width), random(width), random(TOKENS, width)
    residual = random(TOKENS, width + PADDING)[:, :width]
    exact = x.double().requires_grad_()
    wanted = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6) * w.double()
    wanted.backward(dy.double())
    y, dx = (torch.zeros(TOKENS, width + PADDING, dtype=x.dtype) for _ in range(2))
    rstd = norm(x, w, 1e-6, y[:, :width])
    again = norm_back(dy, x, w, rstd, residual, dx[:, :width])
    assert near(y[:, :width], wanted.detach())
    assert torch.equal(again, y[:, :width])
    assert exact.grad is not None
    assert near(dx[:, :width], exact.grad + residual)
    assert not y[:, width:].any()
    assert not dx[:, width:].any()


@pytest.mark.parametrize("normed", [False, True])
def test_heads_are_rotated_back_to_where_they_were(normed: bool) -> None:
    """Rotation is orthogonal: the gradient of ‖rotated‖² is twice what came in, v untouched."""
    query, key, size = 6, 2, 24
    qkv = random(TOKENS, (query + 2 * key) * size)
    angle = random(TOKENS, size // 2)
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
    # Of one size each, so that q's and k's cannot be mistaken for each other.
    weights = (torch.full((size,), 2.0).half(), torch.full((size,), 0.5).half())
    heads = Heads(query, key, size, weights if normed else None, 0.0)
    raw = qkv.clone()
    rotated = heads.rotate(raw, cos, sin).unflatten(-1, (-1, size))
    split = qkv.unflatten(-1, (-1, size))
    before = split[:, : query + key]
    if normed:
        before = before / before.float().pow(2).mean(-1, keepdim=True).sqrt()
        before[:, :query] *= 2
        before[:, query:] *= 0.5
    assert near(rotated[:, : query + key].float().norm(dim=-1), before.double().norm(dim=-1))
    out = torch.zeros(TOKENS, qkv.shape[1] + PADDING, dtype=qkv.dtype)
    parts = (rotated[:, :query], rotated[:, query : query + key], split[:, query + key :])
    heads.rotate_back(parts, raw, cos, sin, out[:, :-PADDING])
    back = out[:, :-PADDING].unflatten(-1, (-1, size))
    assert near(back[:, query + key :], split[:, query + key :].double())
    if normed:  # a norm's output does not change along its input
        assert float(back[:, : query + key].abs().max()) < 2e-2
    else:
        assert near(back[:, : query + key], split[:, : query + key].double())
    assert not out[:, -PADDING:].any()


def test_swiglu_both_ways() -> None:
    width = 96
    x, dy = random(TOKENS, 2 * width + PADDING), random(TOKENS, width)
    exact = x[:, : 2 * width].double().requires_grad_()
    gate, up = exact.chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up
    wanted.backward(dy.double())
    padding = x[:, 2 * width :].clone()
    y = torch.zeros(TOKENS, width, dtype=x.dtype)
    swiglu(x, y)
    again = swiglu_back(dy, x)
    assert near(y, wanted.detach())
    assert torch.equal(again, y)
    assert near(x[:, : 2 * width], exact.grad)
    assert torch.equal(x[:, 2 * width :], padding)


def test_dropout_is_the_same_by_seed() -> None:
    x = torch.ones(40, 1000, dtype=torch.float16)
    once = dropped(x, 77, 0.25)
    assert float((once == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(once, dropped(x, 77, 0.25))
    assert not torch.equal(once, dropped(x, 78, 0.25))
    total = x.clone()
    add_dropped(total, x, 77, 0.25)
    assert near(total, once.double() + 1)
