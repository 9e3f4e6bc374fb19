"""A group's large products in FP8: e4m3 with a scale per row of each operand (arXiv:2209.05433).

Called by `layer` where the recipe allows it. In the forward pass each token's activations and each
output's weights have a scale of their own, in the backward pass each token's gradient and each
input's weights. The tensor cores add up with fewer bits than fp32 (`use_fast_accum`). The adapters
stay in half precision. FP8 changes the result; benchmarks/fp8_loss.py and fp8_emulated.py measure
by how much.
"""

import torch
import triton
import triton.language as tl
from bitsandbytes.nn import Linear4bit

from thinktune.tasks.model.fused.nf4 import dequantize_fp8, readable
from thinktune.tasks.model.fused.weights import Mask, ProjectionGroup

LARGEST = 448.0
"""The largest number in e4m3."""
SMALLEST = 1e-12
"""What a scale is at least, so that a row of zeros has one."""
WIDEST = 8192
"""Columns that a program holds at once, at most."""


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


class Fp8Group(ProjectionGroup):
    """As `ProjectionGroup`, for 4-bit weights whose sizes FP8 kernels take (`fits`)."""

    def __init__(
        self,
        modules: list[torch.nn.Module],
        dtype: torch.dtype,
        *,
        keep: bool,
        divided: bool = False,
    ) -> None:
        super().__init__(modules, dtype, keep=False, divided=divided)
        self.padding = 0  # the adapters are added in a product of their own
        whole = self._empty()
        self._fill(whole)
        weights = whole[: self.out_features, : self.in_features]
        self._row_scales = (weights.abs().amax(1).float() / LARGEST).clamp_min(SMALLEST)
        self._column_scales = (weights.abs().amax(0).float() / LARGEST).clamp_min(SMALLEST)
        self._kept: dict[bool, torch.Tensor] | None = None
        """The weights as they are (False) and transposed (True), if they stay unpacked."""
        if keep:
            self._kept = {t: self._unpack(transposed=t) for t in (False, True)}

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
        lora_act: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        padded: bool = False,
    ) -> torch.Tensor:
        """As `ProjectionGroup.product`; there is no padding."""
        del padded
        weight = self._weight(transposed=False)
        small, scales = quantize(x)
        y = torch._scaled_mm(
            small, weight.T, scales, self._row_scales[None], bias=self.bias,
            out_dtype=self._dtype, use_fast_accum=True,
        )  # fmt: skip
        if residual is not None:
            y += residual
        return y.addmm_(lora_act, self.lora_b.T) if self.lora_columns else y

    def product_back(self, dy: torch.Tensor, lora_grad: torch.Tensor, mask: Mask) -> torch.Tensor:
        """As `ProjectionGroup.product_back`."""
        weight = self._weight(transposed=True)
        small, scales = quantize(dy)
        dx = torch._scaled_mm(
            small, weight.T, scales, self._column_scales[None], out_dtype=self._dtype,
            use_fast_accum=True,
        )  # fmt: skip
        if not self.lora_columns:
            return dx
        if mask.probability:
            mask.add_gradient(dx, lora_grad @ self.lora_a)
            return dx
        return dx.addmm_(lora_grad, self.lora_a)

    def _weight(self, *, transposed: bool) -> torch.Tensor:
        return self._unpack(transposed=transposed) if self._kept is None else self._kept[transposed]

    def _unpack(self, *, transposed: bool) -> torch.Tensor:
        """(out features, in features), or transposed (in features, out features)."""
        shape = (self.out_features, self.in_features)
        if transposed:
            shape = (self.in_features, self.out_features)
        whole = torch.empty(shape, dtype=torch.float8_e4m3fn, device=self._device)
        for projection, rows in self._outputs():
            assert isinstance(projection.frozen, Linear4bit)
            out, scales = whole[rows], self._row_scales[rows]
            if transposed:
                out, scales = whole[:, rows], self._column_scales
            dequantize_fp8(projection.frozen, scales, out, transposed=transposed)
        return whole
