"""Share of the answers whose think part never ends."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged


def _passes(judged: Judged) -> bool:
    return not judged.parsed.closed


METRIC = share_metric(
    _passes,
    name="thinking_truncated",
    order=30,
    direction="lower",
    description=Description(
        label="Thinking never ends",
        rule="Share of the answers whose think part is opened and never closed.",
    ),
)
