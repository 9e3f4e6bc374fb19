"""A decoder layer as one autograd function: what it keeps and what it computes again, in writing.

Called by `decoder`. Activations have no batch dimension: a packed row is (T, width). Kept per layer
are its input, q/k/v, the attention's output, the residual stream between the halves, and the
output of gate and up; norms and SwiGLU are computed again from these, for they cost one pass over
memory. Two levels more give memory for time (`kept.Recompute`).
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from thinktune.schema.fused import PROJECTION_GROUPS
from thinktune.tasks.model.fused.attention import attend, attend_back
from thinktune.tasks.model.fused.fp8 import Fp8Group
from thinktune.tasks.model.fused.kept import Kept, Masks, Pass, Recompute
from thinktune.tasks.model.fused.kernels import Heads, norm, norm_back, swiglu, swiglu_back
from thinktune.tasks.model.fused.weights import Mask, ProjectionGroup


def grouped(layer: Any) -> list[list[torch.nn.Module]]:
    """The projections of a decoder layer, those of one input together."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        [getattr(attention if hasattr(attention, name) else mlp, name) for name in group]
        for group in PROJECTION_GROUPS
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
        kind = Fp8Group if fp8 else ProjectionGroup
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
        sliding_window = getattr(config, "sliding_window", None)
        self._sliding_window = getattr(attention, "sliding_window", sliding_window)

    def __call__(self, hidden: torch.Tensor, passed: Pass, number: int) -> torch.Tensor:
        """The layer's output of a row's hidden states, (T, width) each."""
        factors = [factor for group in self.groups for factor in group.factors()]
        out: torch.Tensor = _Layer.apply(self, passed, number, hidden, *factors)
        return out

    # Forward: each step fills in what it makes of `kept` and hands on what the next one reads.

    def attend(self, kept: Kept, passed: Pass, masks: Masks) -> None:
        """Computes q, k, v and the attention's output from the layer's input."""
        x, kept.rstd, kept.lora_act_qkv = self._normed(
            kept.hidden, self._first_norm, self.qkv, masks.of(0)
        )
        kept.qkv = self.qkv.product(x, kept.lora_act_qkv)
        query, key, value = self._query_key_value(kept.qkv, passed)
        kept.attended, kept.attention = attend(
            query, key, value, passed.row, self._scale, self._sliding_window
        )

    def project_out(self, kept: Kept, masks: Masks) -> None:
        """Projects the attention's output and adds it to the residual stream."""
        assert kept.attended is not None
        kept.lora_act_out = self.out.lora_act(kept.attended, masks.of(1))
        kept.middle = self.out.product(kept.attended, kept.lora_act_out, residual=kept.hidden)

    def widen(self, kept: Kept, masks: Masks) -> None:
        """Computes the padded outputs of gate and up from the residual stream."""
        assert kept.middle is not None
        group = self.gate_up
        x, kept.middle_rstd, kept.lora_act_gate_up = self._normed(
            kept.middle, self._second_norm, group, masks.of(2)
        )
        kept.gate_up = group.product(x, kept.lora_act_gate_up, padded=True)

    def narrow(self, kept: Kept, masks: Masks) -> torch.Tensor:
        """Applies SwiGLU and down, and returns the layer's output."""
        assert kept.gate_up is not None
        assert kept.middle is not None
        group = self.down
        x = group.new_padded(kept.middle, group.in_features)
        swiglu(kept.gate_up, x[:, : group.in_features])
        kept.lora_act_down = group.lora_act(x[:, : group.in_features], masks.of(3), x)
        return group.product(x, kept.lora_act_down, residual=kept.middle)

    # Backward, from the layer's output to its input. Each gives its group's factor gradients and
    # the gradient that the step before it needs.

    def narrow_back(self, kept: Kept, d_out: torch.Tensor, masks: Masks) -> list[torch.Tensor]:
        """Goes back through down and SwiGLU, and leaves the gradient of gate's and up's outputs in
        `kept.gate_up`."""
        assert kept.gate_up is not None
        group, mask = self.down, masks.of(3)
        dy = group.padded(d_out)
        lora_grad = group.lora_grad(dy)
        x = swiglu_back(group.product_back(dy, lora_grad, mask), kept.gate_up)
        return group.factor_gradients(x, d_out, kept.lora_act_down, lora_grad, mask)

    def widen_back(
        self, kept: Kept, d_out: torch.Tensor, masks: Masks
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Goes back to the residual stream between the halves, whose gradient is padded for the out
        group."""
        assert kept.gate_up is not None
        assert kept.middle is not None
        assert kept.middle_rstd is not None
        group, mask = self.gate_up, masks.of(2)
        dy = kept.gate_up
        lora_grad = group.lora_grad(dy)
        dx = group.product_back(dy, lora_grad, mask)
        d_middle = self.out.new_padded(dx, self.out.out_features)
        x = norm_back(dx, kept.middle, self._second_norm, kept.middle_rstd, d_out, d_middle)
        dy = dy[:, : group.out_features]
        return group.factor_gradients(x, dy, kept.lora_act_gate_up, lora_grad, mask), d_middle

    def out_back(
        self, kept: Kept, d_middle: torch.Tensor, masks: Masks
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Goes back through the out group to the attention's output."""
        assert kept.attended is not None
        group, mask = self.out, masks.of(1)
        lora_grad = group.lora_grad(d_middle)
        dx = group.product_back(d_middle, lora_grad, mask)
        dy = d_middle[:, : group.out_features]
        return group.factor_gradients(kept.attended, dy, kept.lora_act_out, lora_grad, mask), dx

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
        """Goes back through attention and q, k, v to the layer's input. The `first` layer's input
        gets no gradient, as nothing before it learns."""
        assert kept.qkv is not None
        assert kept.rstd is not None
        group, mask = self.qkv, masks.of(0)
        dy = group.new_padded(d_attended, group.out_features)
        assert kept.attended is not None
        heads = self._query_key_value(kept.qkv, passed, again=True)
        gradients = attend_back(
            d_attended,
            *heads,
            kept.attended,
            kept.attention,
            passed.row,
            self._scale,
            self._sliding_window,
        )
        self._heads.rotate_back(gradients, kept.qkv, passed.cos, passed.sin, dy)
        lora_grad = group.lora_grad(dy)
        hidden, dx = kept.hidden, None
        if first:
            x = torch.empty_like(hidden)
            norm(hidden, self._first_norm, self._eps, x)
        else:
            d_normed = group.product_back(dy, lora_grad, mask)
            dx = torch.empty_like(hidden)
            residual = d_middle[:, : self.out.out_features]
            x = norm_back(d_normed, hidden, self._first_norm, kept.rstd, residual, dx)
        dy = dy[:, : group.out_features]
        return group.factor_gradients(x, dy, kept.lora_act_qkv, lora_grad, mask), dx

    def _normed(
        self, hidden: torch.Tensor, weight: torch.Tensor, group: ProjectionGroup, mask: Mask
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The norm's output, padded and filled; 1 / rms; the LoRA activation, which fills it."""
        x = group.new_padded(hidden, group.in_features)
        rstd = norm(hidden, weight, self._eps, x[:, : group.in_features])
        return x, rstd, group.lora_act(x[:, : group.in_features], mask, x)

    def _query_key_value(
        self, qkv: torch.Tensor, passed: Pass, *, again: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated heads as attention reads them: (T, heads, size) each."""
        heads = self._heads
        # Rotated in place the first time, where no norm needs what was there before.
        rotated = qkv
        if heads.norms is not None or not again:
            rotated = heads.rotate(qkv, passed.cos, passed.sin)
        split = rotated.unflatten(-1, (-1, heads.size))
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
        del factors  # named so that autograd passes on their gradients; the groups read them
        masks = Masks(passed.seed + len(PROJECTION_GROUPS) * number, passed.dropout)
        kept = Kept(hidden)
        layer.attend(kept, passed, masks)
        layer.project_out(kept, masks)
        layer.widen(kept, masks)
        out = layer.narrow(kept, masks)
        kept.drop(layer.level)
        ctx.layer = layer
        ctx.passed = passed
        ctx.masks = masks
        ctx.kept = kept
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> tuple[Any, ...]:
        layer, passed, masks, kept = ctx.layer, ctx.passed, ctx.masks, ctx.kept
        del ctx.kept
        layer.gate_up.cache_matrix()
        if kept.qkv is None:
            layer.attend(kept, passed, masks)
            layer.project_out(kept, masks)
        if kept.gate_up is None:
            layer.widen(kept, masks)
        down = layer.narrow_back(kept, d_out, masks)
        gate_up, d_middle = layer.widen_back(kept, d_out, masks)
        layer.gate_up.drop_cached_matrix()
        kept.gate_up = None
        out, d_attended = layer.out_back(kept, d_middle, masks)
        first = not ctx.needs_input_grad[3]
        qkv, dx = layer.attend_back(kept, d_attended, d_middle, passed, masks, first=first)
        return None, None, None, dx, *qkv, *out, *gate_up, *down
