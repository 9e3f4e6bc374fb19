"""A decoder layer as one autograd function: what it keeps and what it computes again, in writing.

Called by `decoder`. Activations have no batch dimension: a packed row is (T, width). Kept per layer
are its input, q/k/v, the attention's output, the residual stream between the halves, and the
output of gate and up; norms and SwiGLU are computed again from these, for they cost one pass over
memory. Two levels more give memory for time (`kept.Recompute`).
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from thinktune.schema.fused import GROUPS
from thinktune.tasks.train.fused.attention import attend, attend_back
from thinktune.tasks.train.fused.fp8 import Fp8Group
from thinktune.tasks.train.fused.kept import Kept, Masks, Pass, Recompute
from thinktune.tasks.train.fused.kernels import Heads, norm, norm_back, swiglu, swiglu_back
from thinktune.tasks.train.fused.weights import Group, Mask


def grouped(layer: Any) -> list[list[torch.nn.Module]]:
    """The projections of a decoder layer, those of one input together."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        [getattr(attention if hasattr(attention, name) else mlp, name) for name in group]
        for group in GROUPS
    ]


class FusedLayer:
    """One decoder layer of Llama's kind, over the modules of the plain one."""

    def __init__(
        self,
        layer: Any,
        config: Any,
        dtype: torch.dtype,
        level: Recompute,
        *,
        keep: bool,
        divided: bool,
        fp8: bool,
    ) -> None:
        attention = layer.self_attn
        kind = Fp8Group if fp8 else Group
        self.groups = [
            kind(modules, dtype, keep=keep, divided=divided) for modules in grouped(layer)
        ]
        self.qkv, self.out, self.gate_up, self.down = self.groups
        self.level = level
        self._first_norm = layer.input_layernorm.weight
        self._second_norm = layer.post_attention_layernorm.weight
        self._eps = config.rms_norm_eps
        norms = None
        if hasattr(attention, "q_norm"):
            norms = (attention.q_norm.weight, attention.k_norm.weight)
        self._heads = Heads(
            config.num_attention_heads,
            config.num_key_value_heads,
            attention.head_dim,
            norms,
            self._eps,
        )
        self._scale = attention.scaling
        # Per layer where the architecture has it so (Qwen), else the model's own (Mistral).
        window = getattr(config, "sliding_window", None)
        self._window = getattr(attention, "sliding_window", window)

    def __call__(self, hidden: torch.Tensor, passed: Pass, number: int) -> torch.Tensor:
        """(T, width) → (T, width)."""
        factors = [factor for group in self.groups for factor in group.factors()]
        out: torch.Tensor = _Layer.apply(self, passed, number, hidden, *factors)
        return out

    # Forward: each step fills in what it makes of `kept` and hands on what the next one reads.

    def attend(self, kept: Kept, passed: Pass, masks: Masks) -> None:
        """From the layer's input to q, k, v and the attention's output."""
        x, kept.rstd, kept.low_qkv = self._normed(
            kept.hidden, self._first_norm, self.qkv, masks.of(0)
        )
        kept.qkv = self.qkv.product(x, kept.low_qkv)
        query, key, value = self._query_key_value(kept.qkv, passed)
        kept.attended, kept.attention = attend(
            query, key, value, passed.row, self._scale, self._window
        )

    def project_out(self, kept: Kept, masks: Masks) -> None:
        """The attention's output into the residual stream."""
        assert kept.attended is not None
        kept.low_out = self.out.low(kept.attended, masks.of(1))
        kept.middle = self.out.product(kept.attended, kept.low_out, residual=kept.hidden)

    def widen(self, kept: Kept, masks: Masks) -> None:
        """From the residual stream to the outputs of gate and up, with room."""
        assert kept.middle is not None
        group = self.gate_up
        x, kept.middle_rstd, kept.low_gate_up = self._normed(
            kept.middle, self._second_norm, group, masks.of(2)
        )
        kept.gate_up = group.product(x, kept.low_gate_up, roomy=True)

    def narrow(self, kept: Kept, masks: Masks) -> torch.Tensor:
        """SwiGLU and down: the layer's output."""
        assert kept.gate_up is not None
        assert kept.middle is not None
        group = self.down
        x = group.room(kept.middle, group.ins)
        swiglu(kept.gate_up, x[:, : group.ins])
        kept.low_down = group.low(x[:, : group.ins], masks.of(3), x)
        return group.product(x, kept.low_down, residual=kept.middle)

    # Backward, from the layer's output to its input. Each gives its group's factor gradients and
    # the gradient that the step before it needs.

    def narrow_back(self, kept: Kept, d_out: torch.Tensor, masks: Masks) -> list[torch.Tensor]:
        """Leaves the gradient of gate's and up's outputs in `kept.gate_up`."""
        assert kept.gate_up is not None
        group, mask = self.down, masks.of(3)
        dy = group.with_room(d_out)
        low_back = group.low_back(dy)
        x = swiglu_back(group.product_back(dy, low_back, mask), kept.gate_up)
        return group.factor_gradients(x, d_out, kept.low_down, low_back, mask)

    def widen_back(
        self, kept: Kept, d_out: torch.Tensor, masks: Masks
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """To the residual stream between the halves; that gradient has the out group's room."""
        assert kept.gate_up is not None
        assert kept.middle is not None
        assert kept.middle_rstd is not None
        group, mask = self.gate_up, masks.of(2)
        dy = kept.gate_up
        low_back = group.low_back(dy)
        dx = group.product_back(dy, low_back, mask)
        d_middle = self.out.room(dx, self.out.outs)
        x = norm_back(dx, kept.middle, self._second_norm, kept.middle_rstd, d_out, d_middle)
        dy = dy[:, : group.outs]
        return group.factor_gradients(x, dy, kept.low_gate_up, low_back, mask), d_middle

    def out_back(
        self, kept: Kept, d_middle: torch.Tensor, masks: Masks
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """To the attention's output."""
        assert kept.attended is not None
        group, mask = self.out, masks.of(1)
        low_back = group.low_back(d_middle)
        dx = group.product_back(d_middle, low_back, mask)
        dy = d_middle[:, : group.outs]
        return group.factor_gradients(kept.attended, dy, kept.low_out, low_back, mask), dx

    def attend_back(
        self,
        kept: Kept,
        d_attended: torch.Tensor,
        d_middle: torch.Tensor,
        passed: Pass,
        masks: Masks,
        *,
        first: bool,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """To the layer's input, unless it is the `first`: nothing before that learns."""
        assert kept.qkv is not None
        assert kept.rstd is not None
        group, mask = self.qkv, masks.of(0)
        dy = group.room(d_attended, group.outs)
        assert kept.attended is not None
        heads = self._query_key_value(kept.qkv, passed, again=True)
        gradients = attend_back(
            d_attended, *heads, kept.attended, kept.attention, passed.row, self._scale, self._window
        )
        self._heads.turn_back(gradients, kept.qkv, passed.cos, passed.sin, dy)
        low_back = group.low_back(dy)
        hidden, dx = kept.hidden, None
        if first:
            x = torch.empty_like(hidden)
            norm(hidden, self._first_norm, self._eps, x)
        else:
            d_normed = group.product_back(dy, low_back, mask)
            dx = torch.empty_like(hidden)
            residual = d_middle[:, : self.out.outs]
            x = norm_back(d_normed, hidden, self._first_norm, kept.rstd, residual, dx)
        dy = dy[:, : group.outs]
        return group.factor_gradients(x, dy, kept.low_qkv, low_back, mask), dx

    def _normed(
        self, hidden: torch.Tensor, weight: torch.Tensor, group: Group, mask: Mask
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The norm's output with its room filled; 1 / rms; the room's content on its own."""
        x = group.room(hidden, group.ins)
        rstd = norm(hidden, weight, self._eps, x[:, : group.ins])
        return x, rstd, group.low(x[:, : group.ins], mask, x)

    def _query_key_value(
        self, qkv: torch.Tensor, passed: Pass, *, again: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated heads as attention reads them: (T, heads, size) each."""
        heads = self._heads
        # Turned in place the first time, where no norm needs what was there before.
        turned = qkv
        if heads.norms is not None or not again:
            turned = heads.turn(qkv, passed.cos, passed.sin)
        split = turned.unflatten(-1, (-1, heads.size))
        raw = qkv.unflatten(-1, (-1, heads.size))
        query, key = split[:, : heads.query], split[:, heads.query : heads.query + heads.key]
        return query, key, raw[:, heads.query + heads.key :]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        layer: FusedLayer,
        passed: Pass,
        number: int,
        hidden: torch.Tensor,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        del factors  # named so that autograd gives them their gradients; read through the groups
        masks = Masks(passed.seed + len(GROUPS) * number, passed.dropout)
        kept = Kept(hidden)
        layer.attend(kept, passed, masks)
        layer.project_out(kept, masks)
        layer.widen(kept, masks)
        out = layer.narrow(kept, masks)
        kept.drop(layer.level)
        ctx.layer, ctx.passed, ctx.masks, ctx.kept = layer, passed, masks, kept
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> tuple[Any, ...]:
        layer, passed, masks, kept = ctx.layer, ctx.passed, ctx.masks, ctx.kept
        del ctx.kept
        layer.gate_up.hold()
        if kept.qkv is None:
            layer.attend(kept, passed, masks)
            layer.project_out(kept, masks)
        if kept.gate_up is None:
            layer.widen(kept, masks)
        down = layer.narrow_back(kept, d_out, masks)
        gate_up, d_middle = layer.widen_back(kept, d_out, masks)
        layer.gate_up.release()
        kept.gate_up = None
        out, d_attended = layer.out_back(kept, d_middle, masks)
        first = not ctx.needs_input_grad[3]
        qkv, dx = layer.attend_back(kept, d_attended, d_middle, passed, masks, first=first)
        return None, None, None, dx, *qkv, *out, *gate_up, *down
