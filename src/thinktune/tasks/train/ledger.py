"""The figures of each step, read from the GPU one step late so that no step waits for it.

Called by `loop`. A step enters its figures as a copy under way; settling waits for that copy,
writes them down and ends the training where they are not to be trained on.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thinktune.schema.errors import LossNotFinite
from thinktune.schema.keys import stage_prefix
from thinktune.schema.stages import TrainTask
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.train.examples import TrainExample
from thinktune.tasks.train.guard import SpikeGuard
from thinktune.tasks.train.metrics import Metrics

SHOWN_IDS = 8


@dataclass(frozen=True)
class Entry:
    """What the host knows of a step."""

    step: int
    """Counted from 0."""
    epoch: float
    rate: float
    chosen: Sequence[TrainExample]

    @property
    def tokens(self) -> int:
        """Of all its examples."""
        return sum(example.tokens for example in self.chosen)


class Instant:
    """A point in a device's work: a GPU gets there later than the host asks."""

    def __init__(self, device: torch.device) -> None:
        self._time = time.monotonic()
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def on_gpu(self) -> bool:
        """Whether the host may be ahead of it."""
        return self._event is not None

    def wait(self) -> None:
        """Until the device is there."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Instant") -> float:
        """Of the device's work between two instants that it has passed."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


class Ledger:
    """At most one step is entered and not settled."""

    def __init__(
        self, task: TrainTask, context: Context, metrics: Metrics, device: torch.device
    ) -> None:
        self._task, self._context, self._metrics = task, context, metrics
        self._device = device
        self._open: tuple[Entry, torch.Tensor, Instant, Instant] | None = None
        self._began: Instant | None = None
        self.stopping = False
        """Whether any rank was asked to stop, as of the last settled step."""

    def begin(self, *, again: bool = False) -> None:
        """Starts the clock of the next step, once; `again` after a pause between steps."""
        if self._began is None or again:
            self._began = Instant(self._device)

    def enter(
        self,
        entry: Entry,
        loss: torch.Tensor,
        norm: torch.Tensor,
        skip: torch.Tensor,
        guard: SpikeGuard,
        stop: torch.Tensor,
    ) -> None:
        """Starts the copy of a step's figures to the host."""
        figures = [loss, norm, guard.usual(), skip, guard.skipped, stop]
        values = torch.stack([figure.float() for figure in figures])
        values = values.to("cpu", non_blocking=True)  # into pinned memory
        assert self._began is not None
        ended = Instant(self._device)
        self._open = (entry, values, self._began, ended)
        self._began = ended
        if not ended.on_gpu:
            self.settle()

    def settle(self) -> None:
        """Writes down what was entered. Raises LossNotFinite."""
        if self._open is None:
            return
        (entry, values, began, ended), self._open = self._open, None
        ended.wait()
        loss, norm, usual, skip, skipped, stop = values.tolist()
        self.stopping = stop > 0
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise self.not_finite(entry.step, entry.chosen, name, value)
        if skip:
            self._say_skipped(entry, norm, usual, int(skipped))
        seconds = ended.seconds_since(began)
        row = {
            "epoch": entry.epoch,
            "loss": loss,
            "lr": entry.rate,
            "grad_norm": norm,
            "skipped": int(skipped),
            "tokens": entry.tokens,
            "seconds": seconds,
            "tokens_per_s": entry.tokens / seconds,
        }
        self._metrics.add(entry.step + 1, row)
        self._context.reporter.advance(loss=loss, **{"tok/s": round(entry.tokens / seconds)})

    def not_finite(
        self, step: int, examples: Sequence[TrainExample], what: str, value: float
    ) -> LossNotFinite:
        """The error, after writing down all the examples; `step` counts from 0."""
        key = f"{stage_prefix(self._task.run, 'train')}/not-finite-step-{step + 1:06}.json"
        ids = [example.id for example in examples]
        document = {"step": step + 1, "what": what, "value": str(value), "examples": ids}
        self._context.store.put(key, json.dumps(document).encode())
        names = ", ".join(ids[:SHOWN_IDS])
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        place = self._context.store.location(key)
        fault = f"the {what} is {value} with the examples {names}{more} (all in {place})"
        remedy = "look at those examples, lower train.lr, or raise train.warmup"
        return LossNotFinite(f"train step {step + 1}", fault, remedy)

    def _say_skipped(self, entry: Entry, norm: float, usual: float, skipped: int) -> None:
        fault = f"gradient norm {norm:.3g} against {usual:.3g} in the steps before"
        if skipped >= self._task.train.max_skipped:
            remedy = "look at the data, lower train.lr, or set train.spike_factor=null"
            place = f"train step {entry.step + 1}"
            raise LossNotFinite(place, f"{fault}; {skipped} steps skipped so far", remedy)
        self._context.reporter.say(f"step {entry.step + 1} skipped: {fault}")
