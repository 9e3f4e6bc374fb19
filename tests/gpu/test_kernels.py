"""Each Triton kernel against its torch form in float64: the values, and what it leaves alone."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit

from thinktune.tasks.model.fused.fp8 import quantize
from thinktune.tasks.model.fused.head import HeadLoss
from thinktune.tasks.model.fused.kernels import (
    Heads,
    add_dropped,
    dropped,
    norm,
    norm_back,
    swiglu,
    swiglu_back,
)
from thinktune.tasks.model.fused.nf4 import dequantize, dequantize_fp8

CUDA = torch.device("cuda", 0)
PADDING = 16
HALVES = [torch.bfloat16, torch.float16]


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, device=CUDA, dtype=dtype)


def relative(one: torch.Tensor | None, other: torch.Tensor | None) -> float:
    assert one is not None
    assert other is not None
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(24, 192), (7, 64), (4096, 1536), (33, 72), (1, 4160)])
def test_nf4_is_what_bitsandbytes_gives(
    shape: tuple[int, int], nested: bool, dtype: torch.dtype
) -> None:
    outs, ins = shape
    kind = {"compress_statistics": nested, "quant_type": "nf4"}
    layer = Linear4bit(ins, outs, bias=False, compute_dtype=dtype, **kind)
    layer.weight = Params4bit(random(*shape, dtype=dtype) * 0.02, False, **kind).to(CUDA)
    out = torch.zeros(outs, ins + PADDING, dtype=dtype, device=CUDA)
    dequantize(layer, out[:, :ins])
    wanted = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    # The scale of a block may be rounded once instead of twice.
    assert float((out[:, :ins] != wanted).float().mean()) < 1e-3
    assert torch.allclose(out[:, :ins], wanted, rtol=1e-2, atol=0)
    assert not out[:, ins:].any()


@pytest.mark.parametrize("shape", [(48, 192), (1000, 320), (4096, 1536)])
def test_nf4_to_fp8(shape: tuple[int, int]) -> None:
    outs, ins = shape
    kind = {"compress_statistics": True, "quant_type": "nf4"}
    layer = Linear4bit(ins, outs, bias=False, compute_dtype=torch.bfloat16, **kind)
    layer.weight = Params4bit(random(*shape) * 0.02, False, **kind).to(CUDA)
    wanted = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    rows, columns = wanted.abs().amax(1) / 448, wanted.abs().amax(0) / 448
    out = torch.zeros(outs, ins, dtype=torch.float8_e4m3fn, device=CUDA)
    dequantize_fp8(layer, rows, out, transposed=False)
    # e4m3 has 3 bits of fraction: half a step is 1/16.
    assert relative(out.float() * rows[:, None], wanted) < 0.04
    assert torch.allclose(out.float() * rows[:, None], wanted, rtol=0.07, atol=1e-4)
    transposed = torch.zeros(ins, outs + 16, dtype=torch.float8_e4m3fn, device=CUDA)
    dequantize_fp8(layer, columns, transposed[:, :outs], transposed=True)
    assert torch.allclose(transposed[:, :outs].float().T * columns, wanted, rtol=0.07, atol=1e-4)
    assert not transposed[:, outs:].float().any()


@pytest.mark.parametrize("width", [48, 5120, 8193, 28672])
def test_fp8_rows(width: int) -> None:
    x = random(37, width + PADDING)[:, :width] * 3
    x[5] = 0
    small, scales = quantize(x)
    again = small.float() * scales
    assert torch.allclose(again, x.float(), rtol=0.07, atol=float(x.abs().max()) / 448)
    assert float((small.float().abs().amax(1)[x.abs().amax(1) > 0]).min()) >= 440


@pytest.mark.parametrize("width", [64, 1000, 5120])
def test_norm(width: int) -> None:
    x, w = random(33, width), random(width)
    exact = x.double().requires_grad_()
    wanted = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6) * w.double()
    y = torch.zeros(33, width + PADDING, dtype=x.dtype, device=CUDA)
    rstd = norm(x, w, 1e-6, y[:, :width])
    assert relative(y[:, :width], wanted) < 1e-2
    assert not y[:, width:].any()
    upstream, residual = random(33, width), random(33, width + PADDING)[:, :width]
    dx = torch.zeros_like(y)
    again = norm_back(upstream, x, w, rstd, residual, dx[:, :width])
    wanted.backward(upstream.double())
    assert exact.grad is not None
    assert relative(dx[:, :width], exact.grad + residual.double()) < 1e-2
    assert torch.equal(again, y[:, :width])
    assert not dx[:, width:].any()


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    ("query", "key", "size"), [(6, 2, 24), (40, 8, 128), (4, 4, 80), (7, 1, 64)]
)
def test_heads(query: int, key: int, size: int, normed: bool) -> None:
    tokens, heads = 29, query + 2 * key
    qkv = random(tokens, heads * size)
    angle = torch.rand(tokens, size // 2, device=CUDA) * 6
    cos, sin = (torch.cat([f(angle)] * 2, -1).bfloat16() for f in (torch.cos, torch.sin))
    weights = (random(size), random(size)) if normed else None
    exact = qkv.double().requires_grad_()
    wanted = rotated(exact, query, key, cos.double(), sin.double(), weights)
    own = Heads(query, key, size, weights, 1e-6)
    raw = qkv.clone()
    got = own.rotate(raw, cos, sin).unflatten(-1, (-1, size))
    assert relative(got[:, : query + key], torch.cat(wanted[:2], 1)) < 1e-2
    upstream = [random(*part.shape) for part in wanted]
    torch.autograd.backward(wanted, [part.double() for part in upstream])
    out = torch.zeros(tokens, heads * size + PADDING, dtype=qkv.dtype, device=CUDA)
    own.rotate_back(tuple(upstream), raw, cos, sin, out[:, : heads * size])
    assert relative(out[:, : heads * size], exact.grad) < 1e-2
    assert not out[:, heads * size :].any()


def rotated(
    x: torch.Tensor,
    query: int,
    key: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weights: tuple[torch.Tensor, torch.Tensor] | None,
) -> list[torch.Tensor]:
    size = cos.shape[-1]
    parts = list(x.unflatten(-1, (-1, size)).split([query, key, key], dim=1))
    for number in (0, 1):
        part = parts[number]
        if weights is not None:
            part = part * torch.rsqrt(part.pow(2).mean(-1, keepdim=True) + 1e-6)
            part = part * weights[number].double()
        first, second = part.chunk(2, -1)
        parts[number] = part * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
    return parts


@pytest.mark.parametrize("width", [96, 8960])
def test_swiglu(width: int) -> None:
    x = random(17, 2 * width + PADDING)
    exact = x[:, : 2 * width].double().requires_grad_()
    gate, up = exact.chunk(2, dim=-1)
    wanted = torch.nn.functional.silu(gate) * up
    y = torch.zeros(17, width + PADDING, dtype=x.dtype, device=CUDA)
    swiglu(x, y[:, :width])
    assert relative(y[:, :width], wanted) < 1e-2
    assert not y[:, width:].any()
    upstream = random(17, width)
    wanted.backward(upstream.double())
    padding = x[:, 2 * width :].clone()
    again = swiglu_back(upstream, x)
    assert torch.equal(again, y[:, :width])
    assert relative(x[:, : 2 * width], exact.grad) < 1e-2
    assert torch.equal(x[:, 2 * width :], padding)


def test_dropout() -> None:
    x = torch.ones(700, 1000, device=CUDA, dtype=torch.bfloat16)
    once = dropped(x, 77, 0.25)
    assert float((once == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(once.float().mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(once, dropped(x, 77, 0.25))
    assert not torch.equal(once, dropped(x, 78, 0.25))
    total = x.clone()
    add_dropped(total, x, 77, 0.25)
    assert relative(total, once.double() + 1) < 1e-2


@pytest.mark.parametrize("words", [320, 50_000, 151_936])
def test_head(words: int) -> None:
    states = random(70, 64).requires_grad_()
    weight = random(words, 64) * 0.1
    targets = torch.randint(0, words, (70,), device=CUDA)
    exact = states.detach().double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact @ weight.double().T, targets, reduction="sum")
    loss = HeadLoss.apply(states, weight, targets)
    loss.backward()
    wanted.backward()
    assert float(loss) == pytest.approx(float(wanted), rel=5e-3)
    assert relative(states.grad, exact.grad) < 2e-2
