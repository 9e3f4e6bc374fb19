"""The loss of a packed row: the sum of cross-entropy over its targets, and nothing else computed.

Called by `loop`. Division by the step's target count happens there, over all rows and ranks, so
that packing and the number of GPUs cannot change it. This is the plain path, transformers and PEFT
as they are; the fast one is `fused`.
"""

from collections.abc import Callable

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from thinktune.tasks.train.batches import PackedRow

RowLoss = Callable[[PackedRow], torch.Tensor]
"""A packed row to the sum of the cross-entropy over its targets: float32, a scalar."""

CHUNK_TARGETS = 4096
"""Targets whose logits exist at once: 4,096 × 150,000 words in fp32 are 2.4 GB."""


class PlainLoss:
    """The model's own forward pass, in half precision around the fp32 adapter on a GPU.

    The head is applied only where there is a target, and long rows in chunks whose logits are
    computed again in the backward pass.
    """

    def __init__(self, model: PeftModel, dtype: torch.dtype) -> None:
        self._causal = model.get_base_model()
        self._dtype = dtype

    def __call__(self, row: PackedRow) -> torch.Tensor:
        """The row's loss."""
        kind = row.ids.device.type
        half = self._dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(kind, self._dtype, enabled=half and kind == "cuda"):
            return self._loss(row)

    def _loss(self, row: PackedRow) -> torch.Tensor:
        hidden = self._causal.model(
            input_ids=row.ids,
            position_ids=row.positions,
            use_cache=False,
            document_lengths=row.lengths,
            document_boundaries=row.boundaries,
        ).last_hidden_state
        predicting = hidden[0].index_select(0, row.predict_at)
        head = self._causal.lm_head
        if len(row.targets) <= CHUNK_TARGETS:
            return _chunk_loss(head, predicting, row.targets)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for states, targets in zip(
            torch.split(predicting, CHUNK_TARGETS),
            torch.split(row.targets, CHUNK_TARGETS),
            strict=True,
        ):
            total = total + checkpoint(_chunk_loss, head, states, targets, use_reentrant=False)
        return total


def _chunk_loss(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(states).float(), targets, reduction="sum")
