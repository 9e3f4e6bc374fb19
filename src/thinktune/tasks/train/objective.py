"""What a training teaches, as `lifecycle` sees it: batches, their loss, and a validation.

Implemented by `sft.objective`. Everything else about a training (which step comes next, gradients,
the optimizer, checkpoints, resuming, stopping) is the same for every objective.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch

from thinktune.schema.manifest import MetricValue

VALIDATION_LOSS = "validation_loss"
"""The figure of a validation by which `train.select` and early stopping go; lower is better."""
Batch = TypeVar("Batch")
"""Whatever an objective computes one loss from: one forward and backward pass."""


@dataclass(frozen=True)
class StepBatches(Generic[Batch]):
    """What one optimizer step takes on this rank, and what is known of the step as a whole."""

    batches: Sequence[Batch]
    """This rank's share, on its device. Every rank has the same number of batches."""
    weight: float
    """What the sum of the losses over all batches of all ranks is divided by, such as the step's
    number of target tokens. Every rank gives the same number."""
    tokens: int
    """Tokens of the step over all ranks, for the speed."""
    examples: Sequence[str]
    """Ids of what the step is made of, over all ranks, for an error to name."""
    figures: Mapping[str, MetricValue] = field(default_factory=dict)
    """What the host already knows and the step's row of `metrics.jsonl` shall say, under names that
    neither the row's own fields (`step_log.OWN_FIELDS`) nor `BatchLoss.figures` have."""


@dataclass(frozen=True)
class BatchLoss:
    """What came of one batch: scalars on the device, which nobody has waited for."""

    loss: torch.Tensor
    """The sum over the batch's targets, float32, to be differentiated."""
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further sums over the batch, without gradients, under the same names on every rank and in
    every batch. Like the loss they are added up over batches and ranks and divided by the step's
    weight, and the result is a field of the step's row of `metrics.jsonl`."""


@dataclass(frozen=True)
class Validation:
    """What came of one validation; the same on every rank."""

    figures: Mapping[str, float]
    """Fields of a row of `metrics.jsonl`, `VALIDATION_LOSS` among them where the recipe goes by it.
    One that is not finite ends the training."""
    examples: Sequence[str]
    """Ids of what was validated on, for an error to name."""


class Objective(Protocol[Batch]):
    """What a training teaches.

    An objective promises:

    - The result does not depend on the number of ranks. The sum of `loss` over all batches of all
      ranks, divided by the step's weight, is the same however the step is divided. Where there is
      randomness, it comes from the recipe's seed, the step and the example, or from torch's
      generator inside `loss`, which `lifecycle` seeds for each step and rank.
    - `batches(step)` is a function of the step, of the adapter before it, and of what is in the
      store. There is no other state: a training that resumes asks for the step after its
      checkpoint and must get what it would have got. An objective whose batches are expensive or
      random, such as generated answers, commits them to the store and reads them from there.
    - All ranks call everything in the same order, for there may be collective operations inside:
      every rank has the same number of batches, one that has no example computes something whose
      loss and gradient are zero, and figures have the same names everywhere.
    - `loss` does not make the host wait for the device: no `.item()`, no `float(tensor)`, no
      copies to the host. Nor does `batches`, unless `prepares_ahead` is false.
    - `loss` may be called twice for the same batch (float16 gradients that overflowed), and each
      call gives the same loss but for dropout's draw.
    - Work that takes long tells the reporter's heartbeat, or the watchdog ends the process.
    """

    name: str
    """For log lines, such as `SFT, 4 examples per step`."""
    steps: int
    """Optimizer steps of the whole training."""
    prepares_ahead: bool
    """Whether a step's batches are made while the device still works on the step before, whose
    figures are not read yet. False where making them waits for the device or takes long, as
    generating answers does: they are then made once the step before is written down, validated
    and saved."""
    validates: bool
    """Whether there is anything to validate on."""
    batch_limits: str
    """How large a batch can be, for the error when memory runs out, such as `rows of 4096 tokens
    (longest example 812)`."""

    def batches(self, step: int) -> StepBatches[Batch]:
        """What step `step`, counted from 0, takes on this rank."""

    def loss(self, batch: Batch) -> BatchLoss:
        """The loss of one batch, to be differentiated with respect to the adapter."""

    def validate(self) -> Validation:
        """Measures how far the training is. The model is in eval mode, gradients are off."""
