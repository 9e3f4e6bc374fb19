"""Share of the answers whose think part is opened and closed with nothing in between."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged


def _passes(judged: Judged) -> bool:
    parsed = judged.parsed
    return parsed.opened and parsed.closed and not parsed.thinking.strip()


METRIC = share_metric(
    _passes,
    name="thinking_empty",
    order=40,
    direction="lower",
    description=Description(
        label="Empty think part",
        rule="Share of the answers whose think part has nothing in it.",
    ),
)
