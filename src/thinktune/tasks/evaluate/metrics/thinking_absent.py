"""Share of the answers without any think part."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged


def _passes(judged: Judged) -> bool:
    return not judged.parsed.opened


METRIC = share_metric(
    _passes,
    name="thinking_absent",
    order=50,
    direction="lower",
    description=Description(
        label="No think part",
        rule="Share of the answers without any think part.",
    ),
)
