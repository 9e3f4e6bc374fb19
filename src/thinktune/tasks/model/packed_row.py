"""What the model takes: documents end to end in one row.

Made by whoever has documents (`train.sft.batches`), read by both paths through the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Documents one after the other in one row, for one forward pass.

    Shapes: `ids`, `positions` (1, T) int64; `boundaries` (documents + 1,) int32, the cumulative
    lengths; `predict_at` and `targets` (N,) int64: the row's positions whose next token counts,
    and that token.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    boundaries: torch.Tensor
    lengths: tuple[int, ...]
    predict_at: torch.Tensor
    targets: torch.Tensor

    def to(self, device: torch.device) -> "PackedRow":
        """The row on a device, through pinned memory. Lengths stay numbers, and the host does not
        wait for the copies."""
        if device.type == "cpu":
            return self
        tensors = (self.ids, self.positions, self.boundaries, self.predict_at, self.targets)
        ids, positions, boundaries, predict_at, targets = (
            tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors
        )
        return PackedRow(ids, positions, boundaries, self.lengths, predict_at, targets)


RowLoss = Callable[[PackedRow], torch.Tensor]
"""A packed row to the sum of the cross-entropy over its targets: float32, a scalar."""
