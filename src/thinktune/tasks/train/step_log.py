"""A deferred step log: each step's figures are read from the device one step late, so that no step
waits for its own.

Called by `lifecycle`. `record` starts copying a step's figures to the host; `flush` waits for that
copy, writes the figures down, and ends the training where they must not be trained on.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from thinktune.schema.errors import LossNotFinite
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import MetricValue
from thinktune.schema.stages import TrainTask
from thinktune.tasks.runtime.entry import Context
from thinktune.tasks.train.metrics import Metrics

SHOWN_IDS = 8
OWN_FIELDS = frozenset(
    {"step", "loss", "lr", "grad_norm", "skipped", "tokens", "seconds", "tokens_per_s"}
)
"""What the log itself writes into a step's row; an objective's figures have other names."""


@dataclass(frozen=True)
class StepRecord:
    """What the host knows of a step, over all ranks."""

    step: int
    """Counted from 0."""
    rate: float
    tokens: int
    examples: Sequence[str]
    """Ids of what the step was made of."""
    figures: Mapping[str, MetricValue]
    """The objective's own, as `StepBatches.figures`."""


@dataclass(frozen=True)
class DeviceFigures:
    """What only the device knows of a step, over all ranks: scalars there."""

    loss: torch.Tensor
    norm: torch.Tensor
    usual_norm: torch.Tensor
    """The running mean of the steps before."""
    skip: torch.Tensor
    """1 where the step changed nothing."""
    skipped: torch.Tensor
    """Steps skipped so far."""
    stop: torch.Tensor
    """Ranks that were asked to stop."""
    more: Mapping[str, torch.Tensor]
    """The objective's own, as `BatchLoss.figures`."""

    def start_copy(self) -> torch.Tensor:
        """All of them in one tensor on the host, which a GPU fills later."""
        own = [self.loss, self.norm, self.usual_norm, self.skip, self.skipped, self.stop]
        values = torch.stack([figure.float() for figure in (*own, *self.more.values())])
        return values.to("cpu", non_blocking=True)  # into pinned memory


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
        """Waits until the device is there."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Instant") -> float:
        """How long the device worked between two instants that it has passed."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return float(earlier._event.elapsed_time(self._event)) / 1000


@dataclass(frozen=True)
class _Pending:
    """A step that is recorded and not written down yet."""

    record: StepRecord
    names: Sequence[str]
    """Of the objective's figures, which come last in `values`."""
    values: torch.Tensor
    began: Instant
    ended: Instant


class StepLog:
    """At most one step is recorded and not flushed."""

    def __init__(
        self, task: TrainTask, context: Context, metrics: Metrics, device: torch.device
    ) -> None:
        self._task = task
        self._context = context
        self._metrics = metrics
        self._device = device
        self._pending: _Pending | None = None
        self._began: Instant | None = None
        self.stopping = False
        """Whether any rank was asked to stop, as of the last step that was flushed."""

    def begin(self, *, again: bool = False) -> None:
        """Starts the clock of the next step, once; `again` after a pause between steps."""
        if self._began is None or again:
            self._began = Instant(self._device)

    def record(self, record: StepRecord, figures: DeviceFigures) -> None:
        """Starts the copy of a step's figures to the host. Raises ValueError where two figures of
        the step have one name: a row would silently lose one of them."""
        taken = [name for name in figures.more if name in OWN_FIELDS or name in record.figures]
        taken += [name for name in record.figures if name in OWN_FIELDS]
        if taken:
            fault = f"the objective's figures {', '.join(sorted(taken))} have names already in use"
            raise ValueError(f"train step {record.step + 1}: {fault}; give them other names")
        values = figures.start_copy()
        assert self._began is not None
        ended = Instant(self._device)
        self._pending = _Pending(record, list(figures.more), values, self._began, ended)
        self._began = ended
        if not ended.on_gpu:
            self.flush()

    def flush(self) -> None:
        """Writes down the step that was recorded. Raises LossNotFinite."""
        pending = self._pending
        if pending is None:
            return
        self._pending = None
        pending.ended.wait()
        loss, norm, usual, skip, skipped, stop, *more = pending.values.tolist()
        record = pending.record
        self.stopping = stop > 0
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise self.not_finite(record.step, record.examples, name, value)
        if skip:
            self._say_skipped(record, norm, usual, int(skipped))
        seconds = pending.ended.seconds_since(pending.began)
        row = {
            **record.figures,
            "loss": loss,
            "lr": record.rate,
            "grad_norm": norm,
            "skipped": int(skipped),
            "tokens": record.tokens,
            "seconds": seconds,
            "tokens_per_s": record.tokens / seconds,
            **dict(zip(pending.names, more, strict=True)),
        }
        self._metrics.add(record.step + 1, row)
        self._context.reporter.advance(loss=loss, **{"tok/s": round(record.tokens / seconds)})

    def not_finite(
        self, step: int, examples: Sequence[str], what: str, value: float
    ) -> LossNotFinite:
        """The error, after writing down the ids of all the examples; `step` counts from 0."""
        key = f"{stage_prefix(self._task.run, 'train')}/not-finite-step-{step + 1:06}.json"
        document = {"step": step + 1, "what": what, "value": str(value), "examples": list(examples)}
        self._context.store.put(key, json.dumps(document).encode())
        names = ", ".join(examples[:SHOWN_IDS])
        more = f" and {len(examples) - SHOWN_IDS} more" if len(examples) > SHOWN_IDS else ""
        location = self._context.store.location(key)
        fault = f"the {what} is {value} with the examples {names}{more} (all in {location})"
        remedy = "look at those examples, lower train.lr, or raise train.warmup"
        return LossNotFinite(f"train step {step + 1}", fault, remedy)

    def _say_skipped(self, record: StepRecord, norm: float, usual: float, skipped: int) -> None:
        fault = f"gradient norm {norm:.3g} against {usual:.3g} in the steps before"
        if skipped >= self._task.train.max_skipped:
            remedy = "look at the data, lower train.lr, or set train.spike_factor=null"
            place = f"train step {record.step + 1}"
            raise LossNotFinite(place, f"{fault}; {skipped} steps skipped so far", remedy)
        self._context.reporter.say(f"step {record.step + 1} skipped: {fault}")
