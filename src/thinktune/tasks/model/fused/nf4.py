"""NF4 weights to half precision or FP8 in one pass, written where the matrix product reads them.

Called by `weights` and `fp8`. bitsandbytes unpacks the scales of double quantization with two
kernels, then the weights with a third, into a contiguous matrix. Here one kernel does all three and
writes rows of any stride. The values are the same (tests/gpu/test_kernels.py).
"""

import torch
import triton
import triton.language as tl
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit

SCALES_PER_BLOCK = 256
"""Scales that share a second scale, in double quantization (arXiv:2305.14314, section 3)."""
BLOCKS = 32
"""Blocks of weights per program."""
TILE, ACROSS = 64, 4
"""Rows, and blocks of a row, per program of the FP8 form."""


@triton.jit
def _block_scale(
    scales, outer_code, outer_scales, offset, block, inside, nested: tl.constexpr,
    per_outer: tl.constexpr,
):  # fmt: skip
    if nested:
        inner = tl.load(scales + block, mask=inside, other=0).to(tl.int32)
        outer = tl.load(outer_scales + block // per_outer, mask=inside, other=0.0)
        scale = tl.load(outer_code + inner) * outer + tl.load(offset)
    else:
        scale = tl.load(scales + block, mask=inside, other=0.0)
    return scale


@triton.jit
def _values(packed, code, scale, block, inside, size: tl.constexpr):
    at = block[:, None] * (size // 2) + tl.arange(0, size // 2)[None, :]
    pair = tl.load(packed + at, mask=inside[:, None], other=0).to(tl.int32)
    first = tl.load(code + (pair >> 4)) * scale[:, None]
    second = tl.load(code + (pair & 15)) * scale[:, None]
    return tl.interleave(first, second)


@triton.jit
def _unpack(
    packed, code, scales, outer_code, outer_scales, offset, out, columns, stride, blocks,
    nested: tl.constexpr, size: tl.constexpr, per_outer: tl.constexpr, take: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64) * take + tl.arange(0, take)
    inside = block < blocks
    scale = _block_scale(scales, outer_code, outer_scales, offset, block, inside, nested, per_outer)
    value = _values(packed, code, scale, block, inside, size).to(out.dtype.element_ty)
    start = block * size
    index = (start // columns) * stride + start % columns
    tl.store(out + index[:, None] + tl.arange(0, size)[None, :], value, mask=inside[:, None])


@triton.jit
def _unpack_fp8(
    packed, code, scales, outer_code, outer_scales, offset, divisors, out, rows, columns, stride,
    transposed: tl.constexpr, nested: tl.constexpr, size: tl.constexpr, per_outer: tl.constexpr,
    take: tl.constexpr, across: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * take + tl.arange(0, take)
    inside = row < rows
    for step in tl.static_range(across):
        number = tl.program_id(1) * across + step
        if number < columns // size:
            block = row * (columns // size) + number
            scale = _block_scale(
                scales, outer_code, outer_scales, offset, block, inside, nested, per_outer
            )
            value = _values(packed, code, scale, block, inside, size)
            column = number * size + tl.arange(0, size)
            if transposed:
                value /= tl.load(divisors + column)[None, :]
                value = tl.trans(value.to(out.dtype.element_ty))
                index = column[:, None] * stride + row[None, :]
                tl.store(out + index, value, mask=inside[None, :])
            else:
                value /= tl.load(divisors + row, mask=inside, other=1.0)[:, None]
                index = row[:, None] * stride + column[None, :]
                tl.store(out + index, value.to(out.dtype.element_ty), mask=inside[:, None])


def dequantize(linear: Linear4bit, out: torch.Tensor) -> None:
    """Writes the layer's weights to `out`: (out features, in features), any row stride."""
    if not readable(linear):
        out.copy_(dequantize_4bit(linear.weight.data, linear.weight.quant_state))
        return
    state = linear.weight.quant_state
    blocks = linear.out_features * linear.in_features // state.blocksize
    _unpack[(triton.cdiv(blocks, BLOCKS),)](
        *_stored(linear), out, linear.in_features, out.stride(0), blocks,
        bool(state.nested), state.blocksize, SCALES_PER_BLOCK, BLOCKS, num_warps=4,
    )  # fmt: skip


def dequantize_fp8(
    linear: Linear4bit, divisors: torch.Tensor, out: torch.Tensor, *, transposed: bool
) -> None:
    """Writes the weights to `out` in float8_e4m3fn: divided by their row's divisor, in the shape
    (out features, in features); or `transposed`, divided by their column's divisor, in the shape
    (in features, out features)."""
    state = linear.weight.quant_state
    rows, columns = linear.out_features, linear.in_features
    grid = (triton.cdiv(rows, TILE), triton.cdiv(columns // state.blocksize, ACROSS))
    _unpack_fp8[grid](
        *_stored(linear), divisors, out, rows, columns, out.stride(0), transposed,
        bool(state.nested), state.blocksize, SCALES_PER_BLOCK, TILE, ACROSS, num_warps=4,
    )  # fmt: skip


def readable(linear: Linear4bit) -> bool:
    """Whether the kernels here read this layer: rows of whole blocks, the usual second scale."""
    state = linear.weight.quant_state
    usual = not state.nested or state.state2.blocksize == SCALES_PER_BLOCK
    return bool(usual and linear.in_features % state.blocksize == 0)


def _stored(linear: Linear4bit) -> tuple[torch.Tensor, ...]:
    """Packed weights, code, scales; and of the scales: code, scales, offset."""
    state = linear.weight.quant_state
    if not state.nested:
        return (linear.weight.data, state.code, *[state.absmax] * 4)
    outer = state.state2
    return (
        linear.weight.data, state.code, state.absmax, outer.code, outer.absmax, state.offset,
    )  # fmt: skip
