"""What somebody else published of a job: the figures that a run is set beside.

One YAML file each, `jobs/references/NAME.yaml`. `thinktune.recipes.references` reads them.
"""

from typing import Annotated, Literal

from pydantic import Field

from thinktune.schema.catalog import Count, Name
from thinktune.schema.closed import Closed
from thinktune.schema.manifest import MetricValue


class ReferenceFigure(Closed):
    """One row of the table."""

    label: str
    """What people read."""
    metric: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The run's figure: the manifest of its evaluation has it as `base_<metric>` and
    `tuned_<metric>`."""
    unit: Literal["share", "rating", "tokens", "rate", "perplexity"]
    """How it is shown; a share is a fraction of 1."""
    base: float | None = None
    """The published figure of the base model. Null where none was."""
    tuned: float | None = None
    """The published figure of the tuned model. Null where none was."""
    note: str | None = None
    """What there is to know of the published figure."""


class Reference(Closed):
    """A published job and its figures."""

    title: str
    """What it is, in a few words."""
    recipe: Name
    """The recipe that repeats it."""
    model: str
    """The base model, `owner/name` on the hub."""
    source: str
    """Where the figures are from."""
    questions: Count | None = None
    """Number of questions that were asked. Null where it is not known."""
    setting: dict[str, str]
    """How it was done: hardware, data, training."""
    figures: Annotated[tuple[ReferenceFigure, ...], Field(min_length=1)]
    """The table, in the order in which people read it."""
    differences: tuple[str, ...]
    """What the recipe is known to do otherwise, in sentences."""


class ComparedFigure(Closed):
    """One row of the table beside a run's."""

    label: str
    """What people read."""
    unit: Literal["share", "rating", "tokens", "rate", "perplexity"]
    """As in `ReferenceFigure`."""
    reference: tuple[float | None, float | None]
    """The published figures of base and tuned model."""
    run: tuple[MetricValue, MetricValue]
    """The run's figures of base and tuned model; null where it has none."""
    p: MetricValue
    """P-value of the run's test of tuned against base, before Holm's adjustment; null where none
    was made."""
    note: str | None
    """What there is to know of the published figure."""


class ComparedReference(Closed):
    """A reference beside a run, as `thinktune compare RUN --reference NAME --output json` says
    it."""

    reference: str
    """Name of the reference."""
    run: str
    """Id of the run."""
    figures: tuple[ComparedFigure, ...]
    """The table."""
    differences: tuple[str, ...]
    """What is known to differ, what was found to differ included."""
