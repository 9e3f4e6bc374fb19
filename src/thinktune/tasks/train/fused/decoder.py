"""The whole model over fused layers: a packed row in, its loss out.

Made by `fused.fuse`, called by `thinktune.tasks.train.loop`.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from thinktune.tasks.train.batches import PackedRow
from thinktune.tasks.train.fused.head import HeadLoss
from thinktune.tasks.train.fused.kernels import RmsNorm
from thinktune.tasks.train.fused.layer import FusedLayer


class FusedLoss:
    """Embedding, layers, last norm, head; the first `recompute` layers keep only their input."""

    def __init__(self, causal: Any, recompute: int) -> None:
        self._model, self._head = causal.model, causal.lm_head
        self._eps = causal.config.rms_norm_eps
        self._layers = [FusedLayer(layer, causal.config) for layer in causal.model.layers]
        self._recompute = recompute

    def __call__(self, row: PackedRow) -> torch.Tensor:
        """The sum of the cross-entropy over the row's targets."""
        hidden = self._model.embed_tokens(row.ids)
        cos, sin = self._model.rotary_emb(hidden, row.positions)
        cos, sin = cos[0].contiguous(), sin[0].contiguous()
        hidden = hidden[0]
        for number, layer in enumerate(self._layers):
            if number < self._recompute and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, cos, sin, row, use_reentrant=False)
            else:
                hidden = layer(hidden, cos, sin, row)
        # The last norm works row by row: only rows that predict a target need it.
        predicting = hidden.index_select(0, row.predict_at)
        normed = RmsNorm.apply(predicting, self._model.norm.weight, self._eps)
        loss: torch.Tensor = HeadLoss.apply(normed, self._head.weight, row.targets)
        return loss
