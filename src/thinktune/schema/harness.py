"""What `thinktune evaluate lm-eval` asks of lm-evaluation-harness, and what comes back.

The command line writes an `LmEvalRequest` for a process of `thinktune.tasks.evaluate.harness`,
which prints an `LmEvalReport`.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed


class LmEvalRequest(Closed):
    """Which tasks are asked of which run's model."""

    store: str
    """URL of the store that holds the run."""
    run: str
    """Id of the run."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the tasks or groups."""
    include_path: str
    """Folder of the task files."""
    base: Literal["nf4", "16bit"] | None
    """Precision of the base under the adapter; null takes that of the training."""
    batch_size: Count
    """Requests that are computed at once."""
    limit: Count | None = None
    """Ask this many documents of each task alone, to try it out. Null asks all."""


class LmEvalFigure(Closed):
    """One metric of one task, as lm-evaluation-harness gives it."""

    base: float | None
    """The base model's."""
    base_stderr: float | None
    """Its standard error. Null where the task gives none."""
    tuned: float | None
    """The tuned model's."""
    tuned_stderr: float | None
    """Its standard error. Null where the task gives none."""
    higher_is_better: bool | None
    """Which way is better. Null where the task does not say."""


class LmEvalTask(Closed):
    """One task."""

    documents: int
    """Number of documents that were asked."""
    kind: str
    """What the model did: `multiple_choice` and `loglikelihood` compare likelihoods of given texts,
    `generate_until` generates."""
    version: str
    """Version of the task, as its file says."""
    figures: dict[str, LmEvalFigure]
    """By metric and filter, such as `acc,none`."""


class LmEvalReport(Closed):
    """What all tasks come to."""

    run: str
    """Id of the run."""
    model: str
    """The base model, `owner/name` on the hub."""
    base: Literal["nf4", "16bit"]
    """Precision of the base under the adapter."""
    lm_eval: str
    """Version of lm-evaluation-harness."""
    tasks: dict[str, LmEvalTask]
    """Results by the task's name."""
    note: str
    """What these figures do not compare with."""
