"""What `thinktune evaluate checkpoints` asks, and what it is answered.

The command line writes a `CheckpointsRequest` for a process of
`thinktune.tasks.evaluate.checkpoints`, which prints a `CheckpointsReport`.
"""

from typing import Annotated

from pydantic import Field

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed
from thinktune.schema.report import Tally, Verifier
from thinktune.schema.stages import EvaluateTask


class CheckpointsRequest(Closed):
    """A run whose checkpoints are to answer its held-out questions."""

    task: EvaluateTask
    """Says what is asked and how, as an evaluation of the run does."""
    steps: tuple[Count, ...]
    """Steps of the checkpoints. None at all means all that are kept."""
    train_sha256: str | None
    """Result digest of the training's task, where a recipe gives it."""


class Figure(Closed):
    """One metric of one checkpoint."""

    value: float | None
    """The figure; null where no answer has a score."""
    ci95: tuple[float, float] | None
    """95% interval over the questions (bootstrap, percentiles); null for a metric that is not
    tested."""


class CheckpointScore(Closed):
    """The answers of one checkpoint's adapter."""

    step: Count
    """Optimizer steps after which the checkpoint was saved."""
    selected: bool
    """Whether the run's artifact has the adapter of this step."""
    validation_loss: float | None
    """Validation loss after this step; null where it was not measured."""
    metrics: dict[str, Figure]
    """The figures by metric, under the names that a report has."""


class CheckpointsReport(Closed):
    """A curve over the checkpoints of a run."""

    run: str
    """Id of the run."""
    questions: Tally
    """Questions that each checkpoint was asked."""
    samples: Annotated[int, Field(ge=1)]
    """Answers to each question."""
    verifier: Verifier
    """How answers are compared with the references."""
    engine: str
    """What generated the answers."""
    checkpoints: tuple[CheckpointScore, ...]
    """In the order of the steps."""
