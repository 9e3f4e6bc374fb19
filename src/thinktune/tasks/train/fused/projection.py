"""Several LoRA projections of one input as one autograd Function (qkv, gate and up, o, down).

Called by `layer`. Plain PEFT runs, per layer and projection, a dequantisation, a matrix product,
two small products, casts and an add, and keeps what each of them needs. Here the frozen weights of
a group are dequantised into one buffer, the input is multiplied once, the adapters of the group are
one small product more, added in the epilogue, and only the input x and x·Aᵀ are kept. The backward
pass dequantises again. Equal to PEFT up to the rounding of half precision:
y = x·Wᵀ + s · (x·Aᵀ)·Bᵀ, tests/gpu/test_fused.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

ADAPTER = "default"


@dataclass
class Part:
    """One projection: its frozen layer, and its adapter where it has one."""

    frozen: torch.nn.Linear
    """A Linear4bit is one too."""
    down: torch.nn.Parameter | None
    """A: (rank, in), fp32."""
    up: torch.nn.Parameter | None
    """B: (out, rank), fp32."""
    scale: float

    @classmethod
    def of(cls, module: torch.nn.Module) -> "Part":
        """Reads a PEFT layer, or a frozen one without an adapter."""
        if not isinstance(module, LoraLayer):
            assert isinstance(module, torch.nn.Linear)
            return cls(module, None, None, 0.0)
        return cls(
            module.get_base_layer(),
            module.lora_A[ADAPTER].weight,
            module.lora_B[ADAPTER].weight,
            module.scaling[ADAPTER],
        )


class Group:
    """Projections of one input."""

    def __init__(self, modules: list[torch.nn.Module]) -> None:
        self.parts = [Part.of(module) for module in modules]
        self.sizes = [part.frozen.out_features for part in self.parts]
        self.rank = sum(p.down.shape[0] for p in self.parts if p.down is not None)

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x (T, in) → (T, sum of outs), plus `residual` of that shape."""
        factors = [f for p in self.parts if p.down is not None for f in (p.down, p.up)]
        out: torch.Tensor = _Project.apply(self, x, residual, *factors)
        return out

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """All frozen weights, one below the other: (sum of outs, in)."""
        first = self.parts[0].frozen
        if len(self.parts) == 1 and not isinstance(first, Linear4bit):
            return first.weight
        shape = (sum(self.sizes), first.in_features)
        whole = torch.empty(shape, dtype=dtype, device=first.weight.device)
        for part, rows in zip(self.parts, torch.split(whole, self.sizes), strict=True):
            if isinstance(part.frozen, Linear4bit):
                weight = part.frozen.weight
                dequantize_4bit(weight.data, weight.quant_state, out=rows)
            else:
                rows.copy_(part.frozen.weight)
        return whole

    def bias(self) -> torch.Tensor | None:
        """All biases in a row, zeros where a projection has none; None if none has."""
        biases: list[torch.Tensor | None] = [part.frozen.bias for part in self.parts]
        like = next((bias for bias in biases if bias is not None), None)
        if like is None:
            return None
        return torch.cat(
            [
                like.new_zeros(size) if bias is None else bias
                for bias, size in zip(biases, self.sizes, strict=True)
            ]
        )

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """A of all adapters (ranks, in), and s·B of all as a block diagonal (ranks, outs)."""
        device = self.parts[0].frozen.weight.device
        downs: list[torch.Tensor] = [p.down for p in self.parts if p.down is not None]
        blocks = torch.zeros(self.rank, sum(self.sizes), dtype=dtype, device=device)
        row = column = 0
        for part, size in zip(self.parts, self.sizes, strict=True):
            if part.up is not None:
                rank = part.up.shape[1]
                blocks[row : row + rank, column : column + size] = part.up.T * part.scale
                row += rank
            column += size
        return torch.cat(downs).to(dtype), blocks


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        group: Group,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        del factors  # named so that autograd gives them their gradients; read through the group
        weight = group.weight(x.dtype)
        bias = group.bias()
        if residual is not None:
            y = torch.addmm(residual, x, weight.T)
            if bias is not None:
                y += bias
        else:
            y = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
        reduced = None
        if group.rank:
            down, up = group.factors(x.dtype)
            reduced = x @ down.T
            y.addmm_(reduced, up)
        ctx.group = group
        ctx.has_residual = residual is not None
        ctx.save_for_backward(x, reduced)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        group: Group = ctx.group
        x, reduced = ctx.saved_tensors
        dx = None
        gradients: list[torch.Tensor] = []
        d_reduced = down = None
        if group.rank:
            down, up = group.factors(x.dtype)
            d_reduced = dy @ up.T
            gradients = _factor_gradients(group, d_reduced.T @ x, reduced.T @ dy)
        if ctx.needs_input_grad[1]:
            dx = dy @ group.weight(x.dtype)
            if d_reduced is not None and down is not None:
                dx.addmm_(d_reduced, down)
        return None, dx, dy if ctx.has_residual else None, *gradients


def _factor_gradients(group: Group, d_down: torch.Tensor, d_up: torch.Tensor) -> list[torch.Tensor]:
    """The gradients of each A and B, in fp32, out of those of the whole group."""
    gradients = []
    row = column = 0
    for part, size in zip(group.parts, group.sizes, strict=True):
        if part.up is not None:
            rank = part.up.shape[1]
            gradients.append(d_down[row : row + rank].float())
            block = d_up[row : row + rank, column : column + size]
            gradients.append(block.T.float() * part.scale)
            row += rank
        column += size
    return gradients
