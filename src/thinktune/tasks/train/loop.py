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

from thinktune.spec.errors import LossNotFinite, OutOfGpuMemory, Preempted
from thinktune.spec.task import TrainTask
from thinktune.tasks.entry import Context
from thinktune.tasks.train.adapter import trainable
from thinktune.tasks.train.batches import Order, PackedRow, pack, spread
from thinktune.tasks.train.checkpoint import Checkpoints, State, restore
from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.loss import RowLoss
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.optimizer import learning_rate, make_optimizer

SHOWN_IDS = 8
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
        # fp16 gradients vanish below 6e-8: they are computed larger and divided afterwards.
        self._scale = FP16_SCALE if dtype == torch.float16 else 1.0
        optimizer, named = make_optimizer(task.train, list(trainable(model).values()), self._device)
        self._state = State(trainable(model), optimizer)
        context.reporter.say(f"{named}; {self._steps} steps of {task.train.batch_size} examples")

    def run(self) -> None:
        """Trains to the end. Raises Preempted after a committed checkpoint when asked to stop."""
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

    def step(self, step: int) -> None:
        """One optimizer step, counted from 0: gradient, clipping, update, figures."""
        began = time.monotonic()
        chosen = [self._data.train[i] for i in self._order.step(step)]
        try:
            loss = self.gradients(chosen, step)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(chosen) from error
        parameters = list(self._state.parameters.values())
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._task.train.max_grad_norm))
        # Before the update: a checkpoint must never hold what cannot be trained on.
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise self._not_finite(step, name, value, chosen)
        rate = learning_rate(self._task.train, step, self._steps)
        for group in self._state.optimizer.param_groups:
            group["lr"] = rate
        self._state.optimizer.step()
        seconds = time.monotonic() - began
        tokens = sum(example.tokens for example in chosen)
        row = {
            "epoch": self._order.epoch(step + 1),
            "loss": loss,
            "lr": rate,
            "grad_norm": norm,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds,
        }
        self._metrics.add(step + 1, row)
        self._context.reporter.advance(loss=loss, **{"tok/s": round(tokens / seconds)})

    def gradients(self, chosen: Sequence[TrainExample], step: int = 0) -> float:
        """Sets the gradient of one optimizer step over all ranks; gives the step's mean loss.

        The loss is the sum over target tokens divided by the step's target tokens over all ranks,
        so rows and ranks may hold any share of the examples. Dropout is a function of seed, step
        and rank: a resume needs no random state.
        """
        self._model.train()
        targets = sum(example.targets for example in chosen)
        while True:
            self._state.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(self._seed(step))
            total = torch.zeros((), device=self._device)
            for row in self._rows(chosen):
                loss = self._row_loss(row) / targets
                (loss * self._scale).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            self._reduce()
            loss_value = float(self._accelerator.reduce(total, reduction="sum"))
            if self._unscaled() or not math.isfinite(loss_value):
                return loss_value

    def _seed(self, step: int) -> int:
        name = f"{self._task.train.seed}/{step}/{self._accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1

    def _unscaled(self) -> bool:
        """Takes the fp16 scale out of the gradients. Where they overflowed, halves the scale for
        the same examples again: no step is skipped."""
        if self._scale == 1.0:
            return True
        gradients = [p.grad for p in self._state.parameters.values() if p.grad is not None]
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            torch._foreach_div_(gradients, self._scale)
            return True
        self._scale /= 2
        return False

    def _rows(self, chosen: Sequence[TrainExample]) -> list[PackedRow]:
        execution = self._task.execution
        # Without packing every example is a row of its own, which needs no padding either.
        limit = execution.micro_batch_tokens if self._task.train.packing else 1
        ranks = self._accelerator.num_processes
        mine = spread([e.tokens for e in chosen], ranks, limit)[self._accelerator.process_index]
        return [pack([chosen[i] for i in row]).to(self._device) for row in mine if row]

    def _reduce(self) -> None:
        """Adds the ranks' gradients, all in one flat bucket."""
        if self._accelerator.num_processes == 1:
            return
        parameters = list(self._state.parameters.values())
        flat = torch.cat(
            [
                (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).float()
                for p in parameters
            ]
        )
        flat = self._accelerator.reduce(flat, reduction="sum")
        offset = 0
        for parameter in parameters:
            count = parameter.numel()
            parameter.grad = flat[offset : offset + count].view_as(parameter).to(parameter.dtype)
            offset += count

    def _validate(self, step: int) -> None:
        if not self._data.validation:
            return
        self._model.eval()
        total = torch.zeros((), device=self._device)
        with torch.no_grad():
            for row in self._rows(self._data.validation):
                total += self._row_loss(row)
        targets = sum(example.targets for example in self._data.validation)
        loss = float(self._accelerator.reduce(total, reduction="sum")) / targets
        if not math.isfinite(loss):
            raise self._not_finite(step - 1, "validation loss", loss, self._data.validation)
        self._metrics.add(step, {"validation_loss": loss})
        self._context.reporter.say(f"step {step}: validation loss {loss:.4f}")

    def _checkpoint_is_due(self, step: int) -> bool:
        return step % self._task.train.checkpoint_every_steps == 0

    def _save(self, step: int) -> None:
        if self._accelerator.is_main_process:
            self._checkpoints.save(step, self._state, self._metrics.path)
        self._accelerator.wait_for_everyone()

    def _stop_requested(self) -> bool:
        """Whether any rank was asked to stop: all of them must save the same step."""
        mine = torch.tensor(float(self._context.stop.requested), device=self._device)
        return float(self._accelerator.reduce(mine, reduction="sum")) > 0

    def _not_finite(
        self, step: int, what: str, value: float, chosen: Sequence[TrainExample]
    ) -> LossNotFinite:
        names = ", ".join(example.id for example in chosen[:SHOWN_IDS])
        more = f" and {len(chosen) - SHOWN_IDS} more" if len(chosen) > SHOWN_IDS else ""
        fault = f"the {what} is {value} with the examples {names}{more}"
        remedy = "look at those examples, lower train.lr, or raise train.warmup"
        return LossNotFinite(f"train step {step + 1}", fault, remedy)

    def _out_of_memory(self, chosen: Sequence[TrainExample]) -> OutOfGpuMemory:
        longest = max(example.tokens for example in chosen)
        rows = self._task.execution.micro_batch_tokens
        fault = f"out of memory with rows of {rows} tokens (longest example {longest})"
        remedy = "lower data.max_tokens or train.rank, or choose larger hardware"
        return OutOfGpuMemory("GPU", fault, remedy)
