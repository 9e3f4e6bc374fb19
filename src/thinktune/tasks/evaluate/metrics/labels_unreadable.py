"""Share of the answers whose labels cannot be read: no line, none beside labels, unknown names."""

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.label_f1 import NO_LABELS, has_labels
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, share
from thinktune.tasks.evaluate.samples import Judged


def _unreadable(judged: Judged) -> bool | None:
    labels = judged.labels
    if labels is None:
        return None
    return labels.said.problem is not None or bool(labels.said.unknown)


def _score(answers: Answers) -> float | None:
    return share([_unreadable(judged) for judged in answers])


METRIC = Metric(
    name="labels_unreadable",
    order=16,
    direction="lower",
    unit=SHARE,
    source="the generated text",
    description=Description(
        "Labels unreadable",
        "Share of the answers whose line of labels is missing, says none beside labels, or holds a "
        "name that is no label; over the questions whose reference has labels.",
        NO_LABELS,
    ),
    score=_score,
    applies=has_labels,
)
