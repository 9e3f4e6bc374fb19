"""Mean of the labels' own F1 (macro), so that rare labels count as much as frequent ones."""

from collections.abc import Sequence

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.label_f1 import (
    NO_LABELS,
    f1_by_label,
    has_labels,
    label_score,
)
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric


def _macro(questions: Sequence[Answers]) -> float | None:
    found = [value for value in f1_by_label(questions).values() if value is not None]
    return sum(found) / len(found) if found else None


METRIC = Metric(
    name="label_f1_macro",
    order=15,
    direction="higher",
    unit=SHARE,
    source="the labels of the reference answers",
    description=Description(
        "F1 of labels, macro",
        "The mean of the F1 of each label that is expected or named somewhere.",
        NO_LABELS,
    ),
    score=label_score,
    value=_macro,
    applies=has_labels,
)
