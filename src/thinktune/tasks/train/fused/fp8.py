"""A group's large products in FP8: e4m3 with a scale per row of each operand (arXiv:2209.05433).

Called by `layer` where the recipe allows it. Forward each token's activations and each output's
weights have a scale of their own, backward each token's gradient and each input's weights. Sums are
the tensor cores' own, of fewer bits than fp32 (`use_fast_accum`). The adapters stay in half
precision. It changes the result; benchmarks/fp8_loss.py and fp8_emulated.py say by how much.
"""

import torch
import triton
import triton.language as tl
from bitsandbytes.nn import Linear4bit

from thinktune.tasks.train.fused.nf4 import dequantize_fp8, readable
from thinktune.tasks.train.fused.weights import Group, Mask

LARGEST = 448.0
"""Of e4m3."""
SMALLEST = 1e-12
WIDEST = 8192
"""Columns that a program holds at once."""


@triton.jit
def _quantize(x, y, scales, width, stride, largest, smallest, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    base = x + row * stride
    top = tl.zeros((block,), tl.float32)
    for start in range(0, width, block):
        value = tl.load(base + start + at, mask=start + at < width, other=0.0).to(tl.float32)
        top = tl.maximum(top, tl.abs(value))
    scale = tl.maximum(tl.max(top), smallest) / largest
    tl.store(scales + row, scale)
    for start in range(0, width, block):
        inside = start + at < width
        value = tl.load(base + start + at, mask=inside, other=0.0).to(tl.float32)
        value = tl.clamp(value / scale, -largest, largest)
        tl.store(y + row * width + start + at, value.to(y.dtype.element_ty), mask=inside)


def quantize(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x (T, width) of any row stride → e4m3 (T, width) and its scales (T, 1), fp32."""
    rows, width = x.shape
    y = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = min(WIDEST, triton.next_power_of_2(width))
    warps = max(1, min(16, block // 512))
    _quantize[(rows,)](x, y, scales, width, x.stride(0), LARGEST, SMALLEST, block, num_warps=warps)
    return y, scales


class Fp8Group(Group):
    """As `Group`, for 4-bit weights whose sizes FP8 kernels take (`fits`)."""

    def __init__(
        self,
        modules: list[torch.nn.Module],
        dtype: torch.dtype,
        *,
        keep: bool,
        divided: bool = False,
    ) -> None:
        super().__init__(modules, dtype, keep=False, divided=divided)
        self.spare = 0  # the adapters are added in a product of their own
        whole = self._empty()
        self._fill(whole)
        weights = whole[: self.outs, : self.ins]
        self._row_scales = (weights.abs().amax(1).float() / LARGEST).clamp_min(SMALLEST)
        self._column_scales = (weights.abs().amax(0).float() / LARGEST).clamp_min(SMALLEST)
        self._pair = (self._unpack(turned=False), self._unpack(turned=True)) if keep else None

    @staticmethod
    def fits(modules: list[torch.nn.Module]) -> bool:
        """Whether these layers can go through FP8 products."""
        frozen = [getattr(module, "base_layer", module) for module in modules]
        return all(
            isinstance(layer, Linear4bit)
            and readable(layer)
            and layer.out_features % 16 == 0
            and layer.in_features % 16 == 0
            for layer in frozen
        )

    def product(
        self,
        x: torch.Tensor,
        low: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        roomy: bool = False,
    ) -> torch.Tensor:
        """As `Group.product`; there is no room."""
        del roomy
        weight = self._unpack(turned=False) if self._pair is None else self._pair[0]
        small, scales = quantize(x)
        y = torch._scaled_mm(
            small, weight.T, scales, self._row_scales[None], bias=self.bias,
            out_dtype=self._dtype, use_fast_accum=True,
        )  # fmt: skip
        if residual is not None:
            y += residual
        return y.addmm_(low, self.up.T) if self.margin else y

    def product_back(self, dy: torch.Tensor, low_back: torch.Tensor, mask: Mask) -> torch.Tensor:
        """As `Group.product_back`."""
        weight = self._unpack(turned=True) if self._pair is None else self._pair[1]
        small, scales = quantize(dy)
        dx = torch._scaled_mm(
            small, weight.T, scales, self._column_scales[None], out_dtype=self._dtype,
            use_fast_accum=True,
        )  # fmt: skip
        if not self.margin:
            return dx
        if mask.chance:
            mask.add(dx, low_back @ self.down)
            return dx
        return dx.addmm_(low_back, self.down)

    def _unpack(self, *, turned: bool) -> torch.Tensor:
        """(outs, ins), or turned (ins, outs)."""
        shape = (self.ins, self.outs) if turned else (self.outs, self.ins)
        whole = torch.empty(shape, dtype=torch.float8_e4m3fn, device=self._device)
        for part, rows in self._rows():
            assert isinstance(part.frozen, Linear4bit)
            if turned:
                dequantize_fp8(part.frozen, self._column_scales, whole[:, rows], turned=True)
            else:
                dequantize_fp8(part.frozen, self._row_scales[rows], whole[rows], turned=False)
        return whole
