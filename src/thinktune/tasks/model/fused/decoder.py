"""The whole model over fused layers: a packed row in, its loss out.

Made by `fused.fuse`, called by whoever needs the loss of a row (`RowLoss`).
"""

from typing import Any

import torch

from thinktune.schema.fused import PROJECTION_GROUPS
from thinktune.schema.task import Execution
from thinktune.tasks.model.fused.head import HeadLoss
from thinktune.tasks.model.fused.kept import Pass, Recompute
from thinktune.tasks.model.fused.kernels import norm, norm_back
from thinktune.tasks.model.fused.layer import FusedLayer
from thinktune.tasks.model.packed_row import PackedRow
from thinktune.tasks.model.sharded import ShardedBase


class FusedLoss:
    """Embedding, layers, last norm, head."""

    def __init__(
        self,
        causal: Any,
        execution: Execution,
        dtype: torch.dtype,
        *,
        dropout: float,
        fp8: bool,
        sharded: ShardedBase | None = None,
    ) -> None:
        self._model = causal.model
        self._head = causal.lm_head
        self._eps = causal.config.rms_norm_eps
        self._dropout = dropout
        self._sharded = sharded
        layers = causal.model.layers
        self._layers = []
        for number, layer in enumerate(layers):
            if sharded is not None:
                sharded.use(number)
            # The last layers: their backward pass comes first, while most is still in memory.
            keep = number >= len(layers) - execution.unpacked_layers
            level = _level(execution, number)
            divided = sharded is not None
            self._layers.append(
                FusedLayer(layer, causal.config, dtype, level, keep=keep, divided=divided, fp8=fp8)
            )
        groups = [group for layer in self._layers for group in layer.groups]
        self._factors: list[torch.Tensor] = [
            factor for group in groups for factor in group.factors()
        ]
        self._half_copies = [copy for group in groups for copy in group.half_copies()]

    @torch.no_grad()
    def _refresh(self) -> None:
        """Brings the factors' half-precision copies up to date."""
        torch._foreach_copy_(self._half_copies, self._factors)

    def __call__(self, row: PackedRow) -> torch.Tensor:
        """The sum of the cross-entropy over the row's targets."""
        self._refresh()
        hidden = self._model.embed_tokens(row.ids)
        cos, sin = self._model.rotary_emb(hidden, row.positions)
        dropout = self._dropout if self._model.training else 0.0
        # Each group of each layer adds its number to it, and a kernel takes 31 bits.
        groups = len(PROJECTION_GROUPS) * len(self._layers)
        seed = int(torch.randint(2**31 - groups, ())) if dropout else 0
        passed = Pass(row, cos[0].contiguous(), sin[0].contiguous(), dropout, seed)
        hidden = hidden[0]
        for number, layer in enumerate(self._layers):
            hidden = self._through(layer, hidden, passed, number)
        # The last norm works row by row: only rows that predict a target need it.
        predicting = hidden.index_select(0, row.predict_at)
        normed = _LastNorm.apply(predicting, self._model.norm.weight, self._eps)
        loss: torch.Tensor = HeadLoss.apply(normed, self._head.weight, row.targets)
        return loss

    def _through(
        self, layer: FusedLayer, hidden: torch.Tensor, passed: Pass, number: int
    ) -> torch.Tensor:
        if self._sharded is None:
            return layer(hidden, passed, number)
        self._sharded.use(number)
        hidden = layer(hidden, passed, number)
        self._sharded.follow(number, hidden)
        return hidden


def _level(execution: Execution, number: int) -> Recompute:
    """The first layers are recomputed first: what they keep is kept longest."""
    if number < execution.recompute_layers:
        return Recompute.LAYER
    if number < execution.recompute_layers + execution.recompute_mlps:
        return Recompute.MLP
    return Recompute.ELEMENTWISE


class _LastNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, eps: float) -> torch.Tensor:
        y = torch.empty_like(x)
        ctx.save_for_backward(x, w, norm(x, w, eps, y))
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, w, rstd = ctx.saved_tensors
        dx = torch.empty_like(x)
        norm_back(dy, x, w, rstd, None, dx)
        return dx, None, None
