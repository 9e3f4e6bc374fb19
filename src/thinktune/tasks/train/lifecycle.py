"""The life of a training: steps, validation, checkpoints, and what resumes it or ends it early.

Called by `stage`. What is learned is the `objective`'s business; nothing here knows what a batch
is. accelerate supplies the process group and the trackers; gradients and their order are ours,
because they must not depend on the number of ranks.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from peft import PeftModel

from thinktune.schema.errors import OutOfGpuMemory, Preempted, SpecInvalid
from thinktune.schema.stages import TrainTask
from thinktune.tasks.model.adapter import ADAPTER, trainable
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.train.adapter_optimizer import AdapterOptimizer, SingleRank
from thinktune.tasks.train.checkpoint import Checkpoints, State, copied, load_weights, restore
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.learning_rate import learning_rate
from thinktune.tasks.train.metrics import Metrics
from thinktune.tasks.train.objective import Batch, Objective, StepBatches
from thinktune.tasks.train.selection import Selection
from thinktune.tasks.train.step_log import DeviceFigures, StepLog, StepRecord

FP16_SCALE = 2.0**14
LEAST_SCALE = 1.0
"""A gradient that is not finite at this scale is not finite at all."""


@dataclass(frozen=True)
class _StepLoss:
    """What came of one optimizer step's batches, over all ranks: scalars on the device."""

    loss: torch.Tensor
    """The sum of the batches' losses, divided by the step's weight."""
    figures: Mapping[str, torch.Tensor]
    """The same of each of the objective's figures."""


class Lifecycle(Generic[Batch]):
    """One training, from its newest checkpoint to its last step."""

    def __init__(
        self,
        task: TrainTask,
        context: Context,
        accelerator: Accelerator,
        model: PeftModel,
        objective: Objective[Batch],
        checkpoints: Checkpoints,
        metrics: Metrics,
        *,
        dtype: torch.dtype,
    ) -> None:
        self._task = task
        self._context = context
        self._accelerator = accelerator
        self._model = model
        self._objective = objective
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._device = accelerator.device
        # fp16 gradients vanish below 6e-8: they are computed larger and divided afterwards.
        self._scale = FP16_SCALE if dtype == torch.float16 else LEAST_SCALE
        guard = SpikeGuard(task.train.spike_factor, self._device)
        self._optimizer = self._make_optimizer(list(trainable(model).values()), guard)
        self._state = State(trainable(model), self._optimizer, guard, model.peft_config[ADAPTER])
        self.selection = Selection(task.train, objective.steps)
        """Which step's adapter is taken, once `run` is over."""
        self._log = StepLog(task, context, metrics, self._device)
        self._ahead: tuple[int, StepBatches[Batch]] | None = None
        context.reporter.say(f"{objective.name}; {objective.steps} steps; {self._optimizer.name}")

    def _make_optimizer(
        self, parameters: list[torch.nn.Parameter], guard: SpikeGuard
    ) -> AdapterOptimizer:
        train = self._task.train
        zero_stage = self._task.execution.zero_stage
        if self._accelerator.num_processes == 1:
            return SingleRank(train, parameters, self._device, guard)
        from thinktune.tasks.train.zero import ZeroOptimizer  # DeepSpeed takes seconds to import

        if zero_stage == 2 and self._scale != LEAST_SCALE:
            fault = "ZeRO 2 divides gradients, which in float16 are looked at whole"
            raise SpecInvalid("train", fault, "plan again, or with another ZeRO stage")
        return ZeroOptimizer(train, parameters, self._device, guard, zero_stage)

    def run(self) -> None:
        """Trains to the end, after which the model has the adapter that the recipe selects. Raises
        Preempted after a committed checkpoint when asked to stop, LossNotFinite, OutOfGpuMemory."""
        try:
            self._run()
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error

    def _run(self) -> None:
        steps = self._objective.steps
        done = self._resume()
        self._context.reporter.phase("train", steps, "steps", done=done)
        every = self._task.train.evaluate_every_steps
        while done < steps and not self.selection.stopped_early:
            self.step(done)
            done += 1
            if done == steps or (every and done % every == 0):
                self._validate(done)
            stopping = self._stop_requested()
            over = done == steps or self.selection.stopped_early
            if stopping or over or self._checkpoint_is_due(done):
                self._save(done)
            if stopping and not over:
                fault = f"stopped on request, step {done} of {steps} is committed"
                raise Preempted("train", fault, "run the same command again to go on")
        self._select(done)

    def _resume(self) -> int:
        # One rank first: it alone removes what is damaged, the others then see the same.
        with self._accelerator.main_process_first(), self._checkpoints.newest() as found:
            if found is None:
                return 0
            step, folder = found
            restore(folder, self._state, best=self._accelerator.is_main_process)
            self._metrics.resume(folder / "metrics.jsonl")
            self.selection.replay(self._metrics.rows())
        self._context.reporter.say(f"resumes after step {step} of {self._objective.steps}")
        return step

    def step(self, step: int) -> int:
        """One optimizer step, counted from 0: gradient, clipping, update. Returns its tokens.

        The host never waits for the device's work on this step: whether to skip it is decided on
        the device, and the figures of the step before are read once this one is launched.
        """
        self._log.begin()
        taken = self._batches(step)
        losses = self._gradients(taken, step)
        rate = learning_rate(self._task.train, step, self._objective.steps)
        norm, skip = self._optimizer.step(losses.loss, rate)
        # While the device works on this step: the next one's batches, made and on their way.
        if self._objective.prepares_ahead and step + 1 < self._objective.steps:
            self._ahead = (step + 1, self._objective.batches(step + 1))
        # One step late, and before anything is saved: what must not be trained on never is.
        self._log.flush()
        record = StepRecord(step, rate, taken.tokens, taken.examples, taken.figures)
        guard = self._state.guard
        figures = DeviceFigures(
            losses.loss, norm, guard.usual(), skip, guard.skipped, self._stop(), losses.figures
        )
        self._log.record(record, figures)
        return taken.tokens

    def _batches(self, step: int) -> StepBatches[Batch]:
        """What a step takes: made ahead, or now, once the step before is written down."""
        if not self._objective.prepares_ahead:
            self._log.flush()
        ahead = self._ahead
        self._ahead = None
        if ahead is not None and ahead[0] == step:
            return ahead[1]
        return self._objective.batches(step)

    def finish(self) -> None:
        """Writes down the figures of the last step."""
        self._log.flush()

    def _gradients(self, taken: StepBatches[Batch], step: int) -> _StepLoss:
        """Sets the gradient of one optimizer step; gives the mean loss and figures of all ranks.

        The loss is the sum over all batches divided by the step's weight, so batches and ranks may
        hold any share of the examples. Dropout is a function of seed, step and rank: a resume
        needs no random state.
        """
        self._model.train()
        while True:
            self._optimizer.clear()
            torch.manual_seed(self._seed(step))
            total = torch.zeros((), device=self._device)
            figures: dict[str, torch.Tensor] = {}
            for batch in taken.batches:
                self._context.reporter.heartbeat()
                found = self._objective.loss(batch)
                loss = found.loss / taken.weight
                self._optimizer.backward(loss * self._scale)
                total += loss.detach()
                for name, value in found.figures.items():
                    figures[name] = figures.get(name, 0) + value.detach() / taken.weight
            total = self._sum(total)
            if self._unscaled() or not math.isfinite(float(total)):
                return _StepLoss(total, {name: self._sum(v) for name, v in figures.items()})

    def _seed(self, step: int) -> int:
        name = f"{self._task.train.seed}/{step}/{self._accelerator.process_index}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1

    def _unscaled(self) -> bool:
        """Takes the fp16 scale out of the gradients. Where they overflowed, halves the scale for
        the same examples again: no step is skipped. What is not finite at the least scale stays so,
        and the guard skips the step."""
        if self._scale <= LEAST_SCALE:
            return True
        gradients = [p.grad for p in self._state.parameters.values() if p.grad is not None]
        finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).all()
        if float(self._sum((~finite).float())) == 0:
            torch._foreach_div_(gradients, self._scale)
            return True
        self._scale = max(self._scale / 2, LEAST_SCALE)
        return False

    def _validate(self, step: int) -> None:
        if not self._objective.validates:
            return
        self.finish()
        self._model.eval()
        with torch.no_grad():
            found = self._objective.validate()
        for name, value in found.figures.items():
            if not math.isfinite(value):
                what = name.replace("_", " ")
                raise self._log.not_finite(step - 1, found.examples, what, value)
        # All ranks go by the same bits: they must stop at the same step.
        figures = broadcast_object_list([dict(found.figures)])[0]
        self._metrics.add(step, figures)
        best = self.selection.add(step, figures)
        if best and self.selection.takes_best and self._accelerator.is_main_process:
            self._state.best = copied(self._state.parameters)
        said = ", ".join(f"{n.replace('_', ' ')} {v:.4f}" for n, v in figures.items())
        self._context.reporter.say(f"step {step}: {said}")
        self._log.begin(again=True)

    def _select(self, done: int) -> None:
        """Ends a training of `done` steps: the model gets the adapter that is taken."""
        reporter, selection = self._context.reporter, self.selection
        if selection.stopped_early:
            patience = self._task.train.early_stopping_patience
            reporter.end_early()
            reporter.say(
                f"stopped early after step {done} of {selection.steps}: no lower validation loss in"
                f" {patience} measurement{'' if patience == 1 else 's'}; the learning rate was"
                f" planned for all {selection.steps} steps"
            )
        if not self._task.train.chooses:
            return
        reporter.say(selection.describe())
        if not selection.takes_best:
            return
        if self._state.best is not None:  # the main rank alone keeps it
            load_weights(self._state.best, self._state.parameters)
        broadcast([parameter.data for parameter in self._state.parameters.values()])

    def _checkpoint_is_due(self, step: int) -> bool:
        return step % self._task.train.checkpoint_every_steps == 0

    def _save(self, step: int) -> None:
        self.finish()
        began = time.monotonic()
        moments = self._optimizer.moments()
        if self._accelerator.is_main_process:
            self._checkpoints.save(step, self._state, moments, self._metrics.path)
        self._accelerator.wait_for_everyone()
        took = time.monotonic() - began
        self._context.reporter.say(f"checkpoint of step {step} committed in {took:.1f} s")
        self._log.begin(again=True)

    def _stop(self) -> torch.Tensor:
        """How many ranks were asked to stop."""
        mine = torch.full((), float(self._context.stop.requested), device=self._device)
        return self._sum(mine)

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        total: torch.Tensor = self._accelerator.reduce(value, reduction="sum")
        return total

    def _stop_requested(self) -> bool:
        """Whether to stop after this step. Several ranks must save the same one: they learn of each
        other's requests with the figures of the step before."""
        if self._accelerator.num_processes == 1:
            return self._context.stop.requested
        return self._log.stopping

    def _out_of_memory(self) -> OutOfGpuMemory:
        plan = self._task.execution
        fault = (
            f"out of memory with {self._objective.batch_limits}, {plan.recompute_layers} layers"
            f" and {plan.recompute_mlps} MLPs recomputed"
        )
        remedy = "lower data.max_tokens or train.rank, or choose larger hardware"
        return OutOfGpuMemory("GPU", fault, remedy)
