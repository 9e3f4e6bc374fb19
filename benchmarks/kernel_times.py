"""Each kernel of the fused path against its torch or bitsandbytes form, in one process.

Called by `gpu`. A row per kernel, so that a regression shows where. Shapes are those of an 8B layer
and a packed row of 16,384 tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from shapes import quantised
from torch.nn.functional import cross_entropy, linear, rms_norm, silu

from thinktune.tasks.train.fused.fp8 import Fp8Group, quantise
from thinktune.tasks.train.fused.head import HeadLoss
from thinktune.tasks.train.fused.kernels import Heads, norm, norm_back, swiglu, swiglu_back
from thinktune.tasks.train.fused.nf4 import dequantise
from thinktune.tasks.train.fused.weights import Group, Mask

TOKENS, WIDTH, INNER = 16384, 4096, 14336
HEADS, KV_HEADS, SIZE = 32, 8, 128
VOCABULARY, TARGETS = 128_256, 4096
REPEATS = 10
Work = Callable[[], Any]


def rows() -> list[dict[str, Any]]:
    """Milliseconds of ours and of theirs, and the ratio."""
    found = []
    for name, ours, theirs in pairs():
        mine, other = milliseconds(ours), milliseconds(theirs)
        found.append(
            {
                "kernel": name,
                "ms": round(mine, 3),
                "torch_ms": round(other, 3),
                "ratio": round(other / mine, 2),
            }
        )
        torch.cuda.empty_cache()
    return found


def milliseconds(work: Work) -> float:
    """Of one call: the mean over several, after two to warm up."""
    for _ in range(2):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / REPEATS


def pairs() -> Iterator[tuple[str, Work, Work]]:
    """Name, our form, the other one."""
    yield unpacking()
    yield from norms()
    yield rotation()
    yield from activations()
    yield head()
    yield from products()


def random(*shape: int) -> torch.Tensor:
    """Half precision, on the GPU."""
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def up_projection() -> Linear4bit:
    """A 4-bit layer of the 8B shape."""
    with torch.device("meta"):
        shape = torch.nn.Linear(WIDTH, INNER, bias=False)
    return quantised(shape, torch.device("cuda"))


def unpacking() -> tuple[str, Work, Work]:
    """NF4 to half precision."""
    layer = up_projection()
    out = torch.empty(INNER, WIDTH, dtype=torch.bfloat16, device="cuda")
    return (
        "NF4 to bf16",
        lambda: dequantise(layer, out),
        lambda: dequantize_4bit(layer.weight.data, layer.weight.quant_state, out=out),
    )


def norms() -> Iterator[tuple[str, Work, Work]]:
    """RMSNorm both ways; the backward form adds the residual's gradient and norms again."""
    x, w, dy, residual = (
        random(TOKENS, WIDTH),
        random(WIDTH),
        *(random(TOKENS, WIDTH) for _ in "ab"),
    )
    out = torch.empty_like(x)
    yield "RMSNorm", lambda: norm(x, w, 1e-5, out), lambda: rms_norm(x, (WIDTH,), w, 1e-5)
    rstd = norm(x, w, 1e-5, out)
    leaf = x.clone().requires_grad_()
    y = rms_norm(leaf, (WIDTH,), w, 1e-5)

    def theirs() -> None:
        torch.autograd.grad(y, leaf, dy, retain_graph=True)[0].add_(residual)

    yield "RMSNorm, backward", lambda: norm_back(dy, x, w, rstd, residual, out), theirs


def rotation() -> tuple[str, Work, Work]:
    """Rotary embedding of q and k."""
    qkv = random(TOKENS, (HEADS + 2 * KV_HEADS) * SIZE)
    cos, sin = random(TOKENS, SIZE), random(TOKENS, SIZE)
    heads = Heads(HEADS, KV_HEADS, SIZE, None, 1e-5)

    def theirs() -> torch.Tensor:
        q = qkv.unflatten(-1, (-1, SIZE))[:, : HEADS + KV_HEADS]
        first, second = q.chunk(2, -1)
        return q * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]

    return "rotary", lambda: heads.turn(qkv, cos, sin), theirs


def activations() -> Iterator[tuple[str, Work, Work]]:
    """SwiGLU both ways; the backward form also gives the output again."""
    x, dy = random(TOKENS, 2 * INNER), random(TOKENS, INNER)
    out = torch.empty_like(dy)
    yield "SwiGLU", lambda: swiglu(x, out), lambda: silu(x[:, :INNER]) * x[:, INNER:]
    leaf = x.clone().requires_grad_()
    y = silu(leaf[:, :INNER]) * leaf[:, INNER:]
    yield (
        "SwiGLU, backward",
        lambda: swiglu_back(dy, x),
        lambda: torch.autograd.grad(y, leaf, dy, retain_graph=True),
    )


def head() -> tuple[str, Work, Work]:
    """Head and cross-entropy, forward and backward."""
    states = random(TARGETS, WIDTH).requires_grad_()
    weight = random(VOCABULARY, WIDTH) * 0.02
    targets = torch.randint(0, VOCABULARY, (TARGETS,), device="cuda")

    def ours() -> None:
        HeadLoss.apply(states, weight, targets).backward()

    def theirs() -> None:
        cross_entropy(linear(states, weight).float(), targets, reduction="sum").backward()

    return "head and loss", ours, theirs


def products() -> Iterator[tuple[str, Work, Work]]:
    """Gate and up with their adapters, forward; plain PEFT, and in FP8."""
    from peft import LoraConfig, get_peft_model

    holder = torch.nn.ModuleDict({"gate": up_projection(), "up": up_projection()})
    config = LoraConfig(r=16, lora_alpha=32, target_modules=["gate", "up"])
    layers = list(get_peft_model(holder, config).base_model.model.values())
    x = random(TOKENS, WIDTH)
    mask = Mask(0, 0.0)

    def theirs() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            for layer in layers:
                layer(x)

    for kind, name in ((Group, "gate and up"), (Fp8Group, "gate and up, FP8")):
        group = kind(layers, torch.bfloat16, keep=False)
        room = group.room(x, WIDTH)
        room[:, :WIDTH] = x

        def ours(group: Group = group, room: torch.Tensor = room) -> None:
            group.product(room, group.low(room[:, :WIDTH], mask, room))

        yield name, ours, theirs
    yield "activations to FP8", lambda: quantise(x), lambda: _row_scaled(x)


def _row_scaled(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(1, keepdim=True).float() / 448
    return (x.float() / scale).to(torch.float8_e4m3fn)
