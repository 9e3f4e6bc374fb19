"""Each kernel of the fused path against its torch or bitsandbytes form, in one process.

Called by `gpu`. A row per kernel, so that a regression shows where. Shapes are those of an 8B layer
and a packed row of 16,384 tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from shapes import documents, quantized
from torch.nn.functional import cross_entropy, dropout, linear, rms_norm, silu
from torch.nn.functional import scaled_dot_product_attention as sdpa

from thinktune.tasks.model.fused.attention import attend, attend_back
from thinktune.tasks.model.fused.fp8 import LARGEST, SMALLEST, Fp8Group, quantize
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
from thinktune.tasks.model.fused.weights import Mask, ProjectionGroup
from thinktune.tasks.train.sft.batches import pack

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
    yield from unpacking()
    yield from norms()
    yield from rotations()
    yield from attention()
    yield from activations()
    yield from masks()
    yield head()
    yield from products()


def random(*shape: int) -> torch.Tensor:
    """Half precision, on the GPU."""
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def up_projection() -> Linear4bit:
    """A 4-bit layer of the 8B shape."""
    with torch.device("meta"):
        shape = torch.nn.Linear(WIDTH, INNER, bias=False)
    return quantized(shape, torch.device("cuda"))


def unpacking() -> Iterator[tuple[str, Work, Work]]:
    """NF4 to half precision, and to FP8 as both passes read it."""
    layer = up_projection()
    out = torch.empty(INNER, WIDTH, dtype=torch.bfloat16, device="cuda")

    def theirs() -> torch.Tensor:
        return dequantize_4bit(layer.weight.data, layer.weight.quant_state, out=out)

    yield "NF4 to bf16", lambda: dequantize(layer, out), theirs
    for transposed, name in ((False, "NF4 to FP8"), (True, "NF4 to FP8, transposed")):
        divisors = (theirs().abs().amax(0 if transposed else 1).float() / LARGEST).clamp_min(
            SMALLEST
        )
        shape = (WIDTH, INNER) if transposed else (INNER, WIDTH)
        small = torch.empty(shape, dtype=torch.float8_e4m3fn, device="cuda")

        def ours(
            divisors: torch.Tensor = divisors,
            small: torch.Tensor = small,
            transposed: bool = transposed,
        ) -> None:
            dequantize_fp8(layer, divisors, small, transposed=transposed)

        def two(divisors: torch.Tensor = divisors, transposed: bool = transposed) -> torch.Tensor:
            scaled = theirs() / (divisors if transposed else divisors[:, None])
            return (scaled.T if transposed else scaled).to(torch.float8_e4m3fn).contiguous()

        yield name, ours, two


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


def rotations() -> Iterator[tuple[str, Work, Work]]:
    """Rotary embedding of q and k both ways, without and with their norms (Qwen3)."""
    qkv = random(TOKENS, (HEADS + 2 * KV_HEADS) * SIZE)
    cos, sin = random(TOKENS, SIZE), random(TOKENS, SIZE)
    weights = (random(SIZE), random(SIZE))
    gradients = tuple(random(TOKENS, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    joined = torch.cat([gradients[0], gradients[1]], 1)
    for norms, name in ((None, "rotary"), (weights, "rotary and head norms")):
        heads = Heads(HEADS, KV_HEADS, SIZE, norms, 1e-5)
        out = torch.empty_like(qkv)

        def ours(heads: Heads = heads) -> None:
            heads.rotate(qkv, cos, sin)

        def ours_back(heads: Heads = heads, out: torch.Tensor = out) -> None:
            heads.rotate_back(gradients, qkv, cos, sin, out)

        def theirs(leaf: torch.Tensor = qkv, normed: bool = norms is not None) -> torch.Tensor:
            q = leaf.unflatten(-1, (-1, SIZE))[:, : HEADS + KV_HEADS]
            if normed:
                parts = q.split([HEADS, KV_HEADS], 1)
                pairs = zip(parts, weights, strict=True)
                q = torch.cat([rms_norm(part, (SIZE,), w, 1e-5) for part, w in pairs], 1)
            first, second = q.chunk(2, -1)
            return q * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]

        leaf = random(*qkv.shape).requires_grad_()
        rotated = theirs(leaf)

        def theirs_back(
            rotated: torch.Tensor = rotated, leaf: torch.Tensor = leaf
        ) -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(rotated, leaf, joined, retain_graph=True)

        yield name, ours, theirs
        yield f"{name}, backward", ours_back, theirs_back


def attention() -> Iterator[tuple[str, Work, Work]]:
    """Of a packed row of documents, both ways, against torch's document by document."""
    chosen, left = [], TOKENS
    for example in documents(100, VOCABULARY):
        if example.tokens <= left:
            chosen.append(example)
            left -= example.tokens
    row = pack(chosen).to(torch.device("cuda"))
    total = sum(row.lengths)
    query, key, value = (random(total, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS))
    d_out = random(total, HEADS * SIZE)
    scale = SIZE**-0.5
    out, state = attend(query, key, value, row, scale, None)

    def theirs(leaves: list[torch.Tensor]) -> torch.Tensor:
        parts = zip(*(leaf.split(list(row.lengths)) for leaf in leaves), strict=True)
        found = [
            sdpa(*(x.transpose(0, 1)[None] for x in part), is_causal=True, enable_gqa=True)
            for part in parts
        ]
        return torch.cat([x[0].transpose(0, 1) for x in found]).flatten(-2)

    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    y = theirs(leaves)
    yield (
        "attention",
        lambda: attend(query, key, value, row, scale, None),
        lambda: theirs([query, key, value]),
    )
    yield (
        "attention, backward",
        lambda: attend_back(d_out, query, key, value, out, state, row, scale, None),
        lambda: torch.autograd.grad(y, leaves, d_out, retain_graph=True),
    )


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


def masks() -> Iterator[tuple[str, Work, Work]]:
    """LoRA dropout of an input, and of its gradient, which is added."""
    x, y = random(TOKENS, WIDTH), random(TOKENS, WIDTH)
    kept = torch.rand(TOKENS, WIDTH, device="cuda") >= 0.05
    yield "dropout", lambda: dropped(x, 1, 0.05), lambda: dropout(x, 0.05)
    yield (
        "dropout, backward",
        lambda: add_dropped(y, x, 1, 0.05),
        lambda: y.add_(x.where(kept, 0) / 0.95),
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
    """Gate and up with their adapters, both ways; plain PEFT, and in FP8."""
    from peft import LoraConfig, get_peft_model

    holder = torch.nn.ModuleDict({"gate": up_projection(), "up": up_projection()})
    config = LoraConfig(r=16, lora_alpha=32, target_modules=["gate", "up"])
    layers = list(get_peft_model(holder, config).base_model.model.values())
    x, dy = random(TOKENS, WIDTH), random(TOKENS, 2 * INNER)
    mask = Mask(0, 0.0)
    leaf = random(TOKENS, WIDTH).requires_grad_()
    factors = [p for layer in layers for p in layer.parameters() if p.requires_grad]

    def theirs(x: torch.Tensor = x) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return torch.cat([layer(x) for layer in layers], 1)

    y = theirs(leaf)

    def theirs_back() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(y, [leaf, *factors], dy, retain_graph=True)

    for kind, name in ((ProjectionGroup, "gate and up"), (Fp8Group, "gate and up, FP8")):
        group = kind(layers, torch.bfloat16, keep=False)
        inputs = group.new_padded(x, WIDTH)
        inputs[:, :WIDTH] = x
        gradient = group.padded(dy)
        act = group.lora_act(x, mask, inputs)

        def ours(group: ProjectionGroup = group, inputs: torch.Tensor = inputs) -> None:
            group.product(inputs, group.lora_act(inputs[:, :WIDTH], mask, inputs))

        def ours_back(
            group: ProjectionGroup = group,
            gradient: torch.Tensor = gradient,
            act: torch.Tensor = act,
        ) -> None:
            lora_grad = group.lora_grad(gradient)
            group.factor_gradients(x, gradient, act, lora_grad, mask)
            group.product_back(gradient, lora_grad, mask)

        yield name, ours, theirs
        yield f"{name}, backward", ours_back, theirs_back
    yield "activations to FP8", lambda: quantize(x), lambda: _row_scaled(x)


def _row_scaled(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(1, keepdim=True).float() / 448
    return (x.float() / scale).to(torch.float8_e4m3fn)
