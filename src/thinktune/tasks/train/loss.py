"""The loss of a packed row: the sum of cross-entropy over its targets, and nothing else computed.

Called by `loop`. Division by the step's target count happens there, over all rows and ranks, so
that packing and the number of GPUs cannot change it.
"""

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from thinktune.tasks.train.batches import PackedRow

CHUNK_TARGETS = 4096
"""Targets whose logits exist at once: 4,096 × 150,000 words in fp32 are 2.4 GB."""


def row_loss(model: PeftModel, row: PackedRow) -> torch.Tensor:
    """Sum of the cross-entropy over the row's targets, float32, a scalar.

    The head is applied only where there is a target, and long rows in chunks whose logits are
    computed again in the backward pass.
    """
    causal = model.get_base_model()
    hidden = causal.model(
        input_ids=row.ids,
        position_ids=row.positions,
        use_cache=False,
        document_lengths=row.lengths,
        document_boundaries=row.boundaries,
    ).last_hidden_state
    predicting = hidden[0].index_select(0, row.predict_at)
    if len(row.targets) <= CHUNK_TARGETS:
        return _chunk_loss(causal.lm_head, predicting, row.targets)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for states, targets in zip(
        torch.split(predicting, CHUNK_TARGETS),
        torch.split(row.targets, CHUNK_TARGETS),
        strict=True,
    ):
        total = total + checkpoint(
            _chunk_loss, causal.lm_head, states, targets, use_reentrant=False
        )
    return total


def _chunk_loss(head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(states).float(), targets, reduction="sum")
