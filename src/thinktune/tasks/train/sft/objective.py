"""Supervised fine-tuning as an objective: cross-entropy over the target tokens of prep's examples.

Made by `thinktune.tasks.train.stage`, called by `lifecycle`.
"""

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from thinktune.schema.errors import DataInvalid
from thinktune.schema.stages import TrainTask
from thinktune.tasks.model.packed_row import PackedRow, RowLoss
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.train.objective import VALIDATION_LOSS, BatchLoss, StepBatches, Validation
from thinktune.tasks.train.sft.batches import BatchOrder, balance, pack
from thinktune.tasks.train.sft.examples import Data, TrainExample

Row = PackedRow | None
"""One forward pass; None where this rank has no example for it and others do."""


class SftObjective:
    """`Objective` for examples with target tokens."""

    prepares_ahead = True

    def __init__(
        self,
        task: TrainTask,
        context: Context,
        accelerator: Accelerator,
        data: Data,
        row_loss: RowLoss,
    ) -> None:
        self._task = task
        self._context = context
        self._accelerator = accelerator
        self._data = data
        self._row_loss = row_loss
        self._order = BatchOrder(len(data.train), task.train.batch_size, task.train.seed)
        self.name = f"SFT, {task.train.batch_size} examples per step"
        self.steps = self._order.steps(task.train.epochs, task.train.max_steps)
        self.validates = bool(data.validation)
        row_tokens = task.execution.micro_batch_tokens
        longest = max((e.tokens for e in (*data.train, *data.validation)), default=0)
        if longest > row_tokens:
            raise _too_long(longest, row_tokens)
        self.batch_limits = f"rows of {row_tokens} tokens (longest example {longest})"

    def batches(self, step: int) -> StepBatches[Row]:
        """As `Objective.batches`: packed rows of the step's examples."""
        chosen = [self._data.train[i] for i in self._order.step(step)]
        return self.batches_of(chosen, step)

    def batches_of(self, chosen: Sequence[TrainExample], step: int = 0) -> StepBatches[Row]:
        """This rank's rows of a step that takes these examples."""
        return StepBatches(
            batches=self._rows(chosen),
            weight=sum(example.targets for example in chosen),
            tokens=sum(example.tokens for example in chosen),
            examples=[example.id for example in chosen],
            figures={"epoch": self._order.epoch(step + 1)},
        )

    def loss(self, batch: Row) -> BatchLoss:
        """As `Objective.loss`: the cross-entropy summed over the row's targets.

        A rank without examples computes two tokens and multiplies their loss by zero: the others
        wait for it wherever gradients are added up or layers are gathered, and need it to take the
        same path through the model.
        """
        if batch is not None:
            return BatchLoss(self._row_loss(batch))
        some = self._data.train[0]
        two = TrainExample(some.id, some.ids[[0, 0]], 1)
        return BatchLoss(self._row_loss(pack([two]).to(self._accelerator.device)) * 0)

    def validate(self) -> Validation:
        """As `Objective.validate`: the mean loss over the validation examples' targets."""
        examples = self._data.validation
        total = torch.zeros((), device=self._accelerator.device)
        for row in self._rows(examples):
            total += self.loss(row).loss
            self._context.reporter.heartbeat()
        targets = sum(example.targets for example in examples)
        loss = float(self._accelerator.reduce(total, reduction="sum")) / targets
        return Validation({VALIDATION_LOSS: loss}, [example.id for example in examples])

    def _rows(self, chosen: Sequence[TrainExample]) -> list[Row]:
        """This rank's rows, as many as every other rank has."""
        # Without packing every example is a row of its own, which needs no padding either.
        limit = self._task.execution.micro_batch_tokens if self._task.train.packing else 1
        ranks, rank = self._accelerator.num_processes, self._accelerator.process_index
        mine = balance([example.tokens for example in chosen], ranks, limit)[rank]
        device = self._accelerator.device
        return [pack([chosen[i] for i in row]).to(device) if row else None for row in mine]


def _too_long(longest: int, rows: int) -> DataInvalid:
    fault = f"an example has {longest:,} tokens, and a micro-batch takes {rows:,}"
    remedy = "lower data.max_tokens and run prep again, or plan for longer rows"
    return DataInvalid("train", fault, remedy)
