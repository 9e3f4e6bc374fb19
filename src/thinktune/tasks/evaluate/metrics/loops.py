"""Share of the answers that repeat themselves."""

from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged
from thinktune.text.doubt_loops import LOOP_RULE, loops


def _passes(judged: Judged) -> bool:
    return loops(f"{judged.parsed.thinking}\n{judged.parsed.answer}")


METRIC = share_metric(
    _passes,
    name="loops",
    order=60,
    direction="lower",
    description=Description(label="Loops", rule=LOOP_RULE),
)
