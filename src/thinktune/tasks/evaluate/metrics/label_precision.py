"""Share of the labels that answers name which the reference names too (micro)."""

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.label_f1 import NO_LABELS, has_labels, pooled_counts
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Pooled
from thinktune.tasks.evaluate.statistics import ratio
from thinktune.text.labels import LABEL_RULE


def _parts(answers: Answers) -> tuple[float, float] | None:
    found = pooled_counts(answers)
    return None if found is None else (found[0], found[0] + found[1])


def _score(answers: Answers) -> float | None:
    found = _parts(answers)
    return found[0] / found[1] if found and found[1] else None


METRIC = Metric(
    name="label_precision",
    order=13,
    direction="higher",
    unit=SHARE,
    source="the labels of the reference answers",
    description=Description("Precision of labels, micro", LABEL_RULE, NO_LABELS),
    score=_score,
    pooled=Pooled(_parts, ratio),
    tested=True,
    in_headline=False,
    applies=has_labels,
)
