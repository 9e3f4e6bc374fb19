"""Which step's adapter a training gives, and when it ends early: both by the validation loss.

Called by `lifecycle` and `stage`. All of it follows from the measurements in `metrics.jsonl`, which
is part of a checkpoint: a training that resumes reads them again and decides as before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from thinktune.schema.manifest import MetricValue
from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.train.objective import VALIDATION_LOSS


@dataclass(frozen=True)
class Measurement:
    """The validation loss after a step."""

    step: int
    """Steps done."""
    loss: float


class Selection:
    """The measurements of one training, and what follows from them."""

    def __init__(self, train: TrainSpec, steps: int) -> None:
        """`steps` are those of the whole training."""
        self._train = train
        self._measured: list[Measurement] = []
        self.steps = steps

    @property
    def takes_best(self) -> bool:
        """Whether the training gives the best adapter, not the last one."""
        return self._train.select == "best"

    def add(self, step: int, figures: Mapping[str, float]) -> bool:
        """Takes over the figures of a validation; whether it is the best so far."""
        if not self._train.chooses:
            return False
        self._measured.append(Measurement(step, figures[VALIDATION_LOSS]))
        return self.best is self._measured[-1]

    def replay(self, rows: Iterable[Mapping[str, MetricValue]]) -> None:
        """Takes over the measurements in the rows of a checkpoint's `metrics.jsonl`."""
        self._measured = []
        for row in rows:
            step, loss = row.get("step"), row.get(VALIDATION_LOSS)
            if isinstance(step, int) and isinstance(loss, float):
                self.add(step, {VALIDATION_LOSS: loss})

    @property
    def best(self) -> Measurement | None:
        """The measurement with the lowest loss, of equal ones the first; None before there is
        one."""
        return min(self._measured, key=lambda one: one.loss, default=None)

    @property
    def stopped_early(self) -> bool:
        """Whether patience is at its end while steps are left."""
        patience, best = self._train.early_stopping_patience, self.best
        if patience is None or best is None or self._measured[-1].step >= self.steps:
            return False
        return len(self._measured) - 1 - self._measured.index(best) >= patience

    def describe(self) -> str:
        """Which measurement is the best and what the last one is, for the log."""
        best, last = self.best, self._measured[-1]
        assert best is not None
        said = (
            f"step {best.step} has the lowest validation loss of {len(self._measured)},"
            f" {best.loss:.4f}"
        )
        if best is last:
            return said
        return f"{said}; that of step {last.step}, the last one, is {last.loss:.4f}"
