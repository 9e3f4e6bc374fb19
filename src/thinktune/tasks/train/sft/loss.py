"""The loss of a packed row: the sum of cross-entropy over its targets, and nothing else computed.

Called by `objective`. The sum is divided by the step's target count in `lifecycle`, over all rows
and ranks, so that neither packing nor the number of GPUs can change it. This is the plain path,
transformers and PEFT as they are; the fast one is `thinktune.tasks.model.fused`. `choose_path`
takes the fast one wherever it is exact.
"""

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from thinktune.schema.stages import TrainTask
from thinktune.tasks.model import fused
from thinktune.tasks.model.base import recompute_layers
from thinktune.tasks.model.packed_row import PackedRow, RowLoss
from thinktune.tasks.model.sharded import ShardedBase
from thinktune.tasks.runtime.entry import Context

CHUNK_TARGETS = 4096
"""Targets whose logits exist at once: with a vocabulary of 150,000, 4,096 of them take 2.4 GB in
fp32."""


def choose_path(
    model: PeftModel,
    task: TrainTask,
    dtype: torch.dtype,
    context: Context,
    sharded: ShardedBase | None = None,
) -> RowLoss:
    """The fused path where it is right, else the plain one; the log says which and why."""
    execution = task.execution
    reason = fused.why_not(model, dtype)
    if reason is None:
        no_fp8 = fused.why_not_fp8(model) if task.train.fp8 else None
        fp8 = task.train.fp8 and no_fp8 is None
        note = ", FP8 products" if fp8 else f" without FP8 ({no_fp8})" if no_fp8 else ""
        context.reporter.say(f"fused path{note}")
        dropout = task.train.dropout
        return fused.fuse(model, execution, dtype, dropout=dropout, fp8=fp8, sharded=sharded)
    context.reporter.say(f"plain path ({reason})")
    if sharded is not None:
        sharded.watch(model.get_base_model().model.layers)
    recompute_layers(model, execution.recompute_layers + execution.recompute_mlps)
    return PlainLoss(model, dtype)


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
