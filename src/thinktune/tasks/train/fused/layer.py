"""A decoder layer over fused projections and kernels.

Called by `decoder`. Activations have no batch dimension: a packed row is (T, width).
"""

import inspect
from functools import partial
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn

from thinktune.tasks.train.batches import PackedRow
from thinktune.tasks.train.fused.kernels import RmsNorm, Rotary, SwiGlu
from thinktune.tasks.train.fused.projection import Group

GROUPED = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""Whether this torch's kernel takes fewer key and value heads than query heads."""
ATTEND = partial(varlen_attn, enable_gqa=True) if GROUPED else varlen_attn


class FusedLayer:
    """One decoder layer of Llama's kind, over the modules of the plain one."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = Group([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = Group([attention.o_proj])
        self.gate_up = Group([mlp.gate_proj, mlp.up_proj])
        self.down = Group([mlp.down_proj])
        self._norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
        self._eps = config.rms_norm_eps
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._size = attention.head_dim
        self._scale = attention.scaling

    def __call__(
        self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, row: PackedRow
    ) -> torch.Tensor:
        """(T, width) → (T, width)."""
        normed = RmsNorm.apply(hidden, self._norms[0], self._eps)
        qkv = Rotary.apply(self.qkv(normed), cos, sin, self._heads + self._kv_heads)
        attended = self._attend(qkv, row)
        hidden = self.out(attended, residual=hidden)
        normed = RmsNorm.apply(hidden, self._norms[1], self._eps)
        return self.down(SwiGlu.apply(self.gate_up(normed)), residual=hidden)

    def _attend(self, qkv: torch.Tensor, row: PackedRow) -> torch.Tensor:
        heads = qkv.unflatten(-1, (self._heads + 2 * self._kv_heads, self._size))
        query, key, value = heads.split([self._heads, self._kv_heads, self._kv_heads], dim=1)
        if not GROUPED and self._heads != self._kv_heads:
            groups = self._heads // self._kv_heads
            key = key.repeat_interleave(groups, dim=1)
            value = value.repeat_interleave(groups, dim=1)
        longest = max(row.lengths)
        out = ATTEND(
            query,
            key,
            value,
            row.boundaries,
            row.boundaries,
            longest,
            longest,
            scale=self._scale,
            window_size=(-1, 0),
        )
        assert isinstance(out, torch.Tensor)  # a pair only where the log-sum-exp is asked for
        return out.flatten(-2)
