"""Share of the answers whose labels cannot be read: no line, none beside labels, unknown names."""

from thinktune.tasks.evaluate.metrics.label_f1 import has_labels
from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged


def _passes(judged: Judged) -> bool:
    labels = judged.labels
    return labels is not None and (labels.said.problem is not None or bool(labels.said.unknown))


METRIC = share_metric(
    _passes,
    name="labels_unreadable",
    order=16,
    direction="lower",
    description=Description(
        label="Labels unreadable",
        rule="Share of the answers whose line of labels is missing, says none beside labels, or "
        "holds a name that is no label.",
    ),
    applies=has_labels,
)
