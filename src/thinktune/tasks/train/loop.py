"""The training loop: steps, validation, checkpoints, and what ends it early.

Called by `stage`. accelerate supplies the process group and the trackers; the order of examples,
the loss and the gradient are ours, because they must not depend on the number of ranks.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from peft import PeftModel

from thinktune.schema.errors import DataInvalid, OutOfGpuMemory, Preempted, SpecInvalid
from thinktune.schema.stages import TrainTask
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.train.adapter import trainable
from thinktune.tasks.train.batches import Order, PackedRow, pack, spread
from thinktune.tasks.train.checkpoint import Checkpoints, State, restore
from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.ledger import Entry, Ledger
from thinktune.tasks.train.loss import RowLoss
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.optimizer import learning_rate
from thinktune.tasks.train.update import OneRank, Update

FP16_SCALE = 2.0**14


@dataclass(frozen=True)
class Data:
    """Both sides that training sees."""

    train: Sequence[TrainExample]
    validation: Sequence[TrainExample]


class Loop:
    """One training, from its newest checkpoint to its last step."""

    def __init__(
        self,
        task: TrainTask,
        context: Context,
        accelerator: Accelerator,
        model: PeftModel,
        data: Data,
        checkpoints: Checkpoints,
        metrics: Metrics,
        *,
        row_loss: RowLoss,
        dtype: torch.dtype,
    ) -> None:
        self._task, self._context, self._accelerator = task, context, accelerator
        self._model, self._data = model, data
        self._checkpoints, self._metrics = checkpoints, metrics
        self._order = Order(len(data.train), task.train.batch_size, task.train.seed)
        self._steps = self._order.steps(task.train.epochs, task.train.max_steps)
        self._device = accelerator.device
        self._row_loss = row_loss
        longest = max((e.tokens for e in (*data.train, *data.validation)), default=0)
        if longest > task.execution.micro_batch_tokens:
            raise _too_long(longest, task.execution.micro_batch_tokens)
        # fp16 gradients vanish below 6e-8: they are computed larger and divided afterwards.
        self._scale = FP16_SCALE if dtype == torch.float16 else 1.0
        guard = SpikeGuard(task.train.spike_factor, self._device)
        self._update = self._make_update(list(trainable(model).values()), guard)
        self._state = State(trainable(model), self._update, guard)
        self._ledger = Ledger(task, context, metrics, self._device)
        self._next: tuple[int, list[TrainExample], list[PackedRow | None]] | None = None
        name, size = self._update.name, task.train.batch_size
        context.reporter.say(f"{name}; {self._steps} steps of {size} examples")

    def _make_update(self, parameters: list[torch.nn.Parameter], guard: SpikeGuard) -> Update:
        train, stage = self._task.train, self._task.execution.zero_stage
        if self._accelerator.num_processes == 1:
            return OneRank(train, parameters, self._device, guard)
        from thinktune.tasks.train.zero import Zero  # DeepSpeed takes seconds to import

        if stage == 2 and self._scale != 1.0:
            fault = "ZeRO 2 divides gradients, which in float16 are looked at whole"
            raise SpecInvalid("train", fault, "plan again, or with another ZeRO stage")
        return Zero(train, parameters, self._device, guard, stage)

    def run(self) -> None:
        """Trains to the end. Raises Preempted after a committed checkpoint when asked to stop,
        LossNotFinite, OutOfGpuMemory."""
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error

    def _run(self) -> None:
        done = self._resume()
        self._context.reporter.phase("train", self._steps, "steps", done=done)
        every = self._task.train.evaluate_every_steps
        for step in range(done, self._steps):
            self.step(step)
            now = step + 1
            if now == self._steps or (every and now % every == 0):
                self._validate(now)
            stopping = self._stop_requested()
            if stopping or now == self._steps or self._checkpoint_is_due(now):
                self._save(now)
            if stopping and now < self._steps:
                fault = f"stopped on request; step {now} of {self._steps} is committed"
                raise Preempted("train", fault, "run the same command again to go on")

    def _resume(self) -> int:
        # One rank first: it alone removes what is damaged, the others then see the same.
        with self._accelerator.main_process_first(), self._checkpoints.newest() as found:
            if found is None:
                return 0
            step, folder = found
            restore(folder, self._state)
            self._metrics.resume(folder / "metrics.jsonl")
        self._context.reporter.say(f"resumes after step {step} of {self._steps}")
        return step

    def step(self, step: int) -> int:
        """One optimizer step, counted from 0: gradient, clipping, update. Returns its tokens.

        Nothing in it waits for its own work on the GPU: whether to skip is decided there. The
        figures of the step before are read once this one is launched.
        """
        self._ledger.begin()
        chosen, rows = self._prepare(step)
        loss = self._gradients(rows, chosen, step)
        rate = learning_rate(self._task.train, step, self._steps)
        norm, skip = self._update.step(loss, rate)
        # While the GPU works on this step: the next one's rows, packed and on their way.
        if step + 1 < self._steps:
            self._next = (step + 1, *self._prepare(step + 1))
        # One step late, and before anything is saved: what must not be trained on never is.
        self._ledger.settle()
        epoch = self._order.epoch(step + 1)
        entry = Entry(step, epoch, rate, chosen)
        self._ledger.enter(entry, loss, norm, skip, self._state.guard, self._stop())
        return sum(example.tokens for example in chosen)

    def _prepare(self, step: int) -> tuple[list[TrainExample], list[PackedRow | None]]:
        """The examples of a step and this rank's rows of them."""
        if self._next is not None and self._next[0] == step:
            (_, chosen, rows), self._next = self._next, None
            return chosen, rows
        chosen = [self._data.train[i] for i in self._order.step(step)]
        return chosen, self._rows(chosen)

    def finish(self) -> None:
        """Writes down the figures of the last step."""
        self._ledger.settle()

    def gradients(self, chosen: Sequence[TrainExample], step: int = 0) -> torch.Tensor:
        """Sets the gradient of one optimizer step on a rank that is alone; gives its mean loss."""
        return self._gradients(self._rows(chosen), chosen, step)

    def _gradients(
        self, rows: Sequence[PackedRow | None], chosen: Sequence[TrainExample], step: int
    ) -> torch.Tensor:
        """As `gradients`.

        The loss is the sum over target tokens divided by the step's target tokens over all ranks,
        so rows and ranks may hold any share of the examples. Dropout is a function of seed, step
        and rank: a resume needs no random state.
        """
        self._model.train()
        targets = sum(example.targets for example in chosen)
        while True:
            self._update.clear()
            torch.manual_seed(self._seed(step))
            total = torch.zeros((), device=self._device)
            for row in rows:
                self._context.reporter.heartbeat()
                loss = self._loss(row) / targets
                self._update.backward(loss * self._scale)
                total += loss.detach()
            total = self._sum(total)
            if self._unscaled() or not math.isfinite(float(total)):
                return total

    def _loss(self, row: PackedRow | None) -> torch.Tensor:
        """Summed over the row's targets. A rank without examples computes two tokens for nothing:
        the others wait for it wherever gradients are added up or layers are gathered, and expect
        it to get there by the same way."""
        if row is not None:
            return self._row_loss(row)
        some = self._data.train[0]
        two = TrainExample(some.id, some.ids[[0, 0]], 1)
        return self._row_loss(pack([two]).to(self._device)) * 0

    def _seed(self, step: int) -> int:
        name = f"{self._task.train.seed}/{step}/{self._accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1

    def _unscaled(self) -> bool:
        """Takes the fp16 scale out of the gradients. Where they overflowed, halves the scale for
        the same examples again: no step is skipped."""
        if self._scale == 1.0:
            return True
        gradients = [p.grad for p in self._state.parameters.values() if p.grad is not None]
        finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).all()
        if float(self._sum((~finite).float())) == 0:
            torch._foreach_div_(gradients, self._scale)
            return True
        self._scale /= 2
        return False

    def _rows(self, chosen: Sequence[TrainExample]) -> list[PackedRow | None]:
        """This rank's, as many as every other one has; None where there is no example for it."""
        execution = self._task.execution
        # Without packing every example is a row of its own, which needs no padding either.
        limit = execution.micro_batch_tokens if self._task.train.packing else 1
        ranks = self._accelerator.num_processes
        mine = spread([e.tokens for e in chosen], ranks, limit)[self._accelerator.process_index]
        return [pack([chosen[i] for i in row]).to(self._device) if row else None for row in mine]

    def _validate(self, step: int) -> None:
        if not self._data.validation:
            return
        self.finish()
        self._model.eval()
        total = torch.zeros((), device=self._device)
        with torch.no_grad():
            for row in self._rows(self._data.validation):
                total += self._loss(row)
                self._context.reporter.heartbeat()
        targets = sum(example.targets for example in self._data.validation)
        loss = float(self._accelerator.reduce(total, reduction="sum")) / targets
        if not math.isfinite(loss):
            examples = self._data.validation
            raise self._ledger.not_finite(step - 1, examples, "validation loss", loss)
        self._metrics.add(step, {"validation_loss": loss})
        self._context.reporter.say(f"step {step}: validation loss {loss:.4f}")
        self._ledger.begin(again=True)

    def _checkpoint_is_due(self, step: int) -> bool:
        return step % self._task.train.checkpoint_every_steps == 0

    def _save(self, step: int) -> None:
        self.finish()
        began = time.monotonic()
        moments = self._update.moments()
        if self._accelerator.is_main_process:
            self._checkpoints.save(step, self._state, moments, self._metrics.path)
        self._accelerator.wait_for_everyone()
        took = time.monotonic() - began
        self._context.reporter.say(f"checkpoint of step {step} committed in {took:.1f} s")
        self._ledger.begin(again=True)

    def _stop(self) -> torch.Tensor:
        """How many ranks were asked to stop."""
        mine = torch.full((), float(self._context.stop.requested), device=self._device)
        return self._sum(mine)

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """Over all ranks."""
        total: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return total

    def _stop_requested(self) -> bool:
        """Whether to stop after this step. Several ranks must save the same one: they learn of each
        other's requests with the figures of the step before."""
        if self._accelerator.num_processes == 1:
            return self._context.stop.requested
        return self._ledger.stopping

    def _out_of_memory(self) -> OutOfGpuMemory:
        longest = max(example.tokens for example in self._data.train)
        plan = self._task.execution
        fault = (
            f"out of memory with rows of {plan.micro_batch_tokens} tokens (longest example"
            f" {longest}), {plan.recompute_layers} layers and {plan.recompute_mlps} MLPs recomputed"
        )
        remedy = "lower data.max_tokens or train.rank, or choose larger hardware"
        return OutOfGpuMemory("GPU", fault, remedy)


def _too_long(longest: int, rows: int) -> DataInvalid:
    fault = f"an example has {longest:,} tokens, and a micro-batch takes {rows:,}"
    remedy = "lower data.max_tokens and run prep again, or plan for longer rows"
    return DataInvalid("train", fault, remedy)
