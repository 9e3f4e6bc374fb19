"""F1 of the labels that answers name, over all labels together (micro)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.registry import (
    Answers,
    Description,
    Metric,
    Pooled,
    Setup,
)
from thinktune.tasks.evaluate.samples import LabelVerdict
from thinktune.tasks.evaluate.statistics import ratio
from thinktune.text.labels import LABEL_RULE

NO_LABELS = "no reference answer has a line of labels that the recipe knows"


def counts(verdict: LabelVerdict) -> tuple[int, int, int]:
    """Labels that are named rightly, named wrongly (unknown names included), and left out."""
    named, expected = verdict.said.named, verdict.expected
    wrong = len(named - expected) + len(verdict.said.unknown)
    return len(named & expected), wrong, len(expected - named)


def pooled_counts(answers: Answers) -> Sequence[float] | None:
    """True positives, false positives and false negatives of one question's answers."""
    verdicts = [judged.labels for judged in answers]
    if not verdicts or any(verdict is None for verdict in verdicts):
        return None
    found = np.asarray([counts(verdict) for verdict in verdicts if verdict is not None])
    return [float(n) for n in found.mean(axis=0)]


def f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """From sums of the three counts; 0 where nothing is expected and nothing named."""
    right, wrong, left = sums[..., 0], sums[..., 1], sums[..., 2]
    below = 2 * right + wrong + left
    return np.divide(2 * right, below, out=np.zeros_like(right), where=below != 0)


def label_score(answers: Answers) -> float | None:
    """F1 of one question."""
    found = pooled_counts(answers)
    return None if found is None else float(f1(np.asarray(found)))


def has_labels(setup: Setup) -> bool:
    """Whether the recipe has labels."""
    return setup.spec.labels is not None


def f1_by_label(questions: Sequence[Answers]) -> dict[str, float | None]:
    """F1 of each label that is expected or named somewhere."""
    found: dict[str, NDArray[np.float64]] = {}
    for answers in questions:
        for judged in answers:
            if judged.labels is None:
                continue
            named, expected = judged.labels.said.named, judged.labels.expected
            for label in named | expected:
                one = (label in named, label in expected)
                kind = {(True, True): 0, (True, False): 1, (False, True): 2}[one]
                found.setdefault(label, np.zeros(3))[kind] += 1
    return {label: float(f1(sums)) for label, sums in sorted(found.items())}


def label_share(name: str, order: int, label: str, missed: int) -> Metric:
    """A metric of the share of right labels: among those and the count at place `missed` of the
    three, which are named wrongly (precision) or left out (recall)."""

    def parts(answers: Answers) -> tuple[float, float] | None:
        found = pooled_counts(answers)
        return None if found is None else (found[0], found[0] + found[missed])

    def score(answers: Answers) -> float | None:
        found = parts(answers)
        return found[0] / found[1] if found and found[1] else None

    return Metric(
        name=name,
        order=order,
        direction="higher",
        unit=SHARE,
        source="the labels of the reference answers",
        description=Description(label, LABEL_RULE, NO_LABELS),
        score=score,
        pooled=Pooled(parts, ratio),
        tested=True,
        in_headline=False,
        applies=has_labels,
    )


METRIC = Metric(
    name="label_f1",
    order=12,
    direction="higher",
    unit=SHARE,
    source="the labels of the reference answers",
    description=Description("F1 of labels, micro", LABEL_RULE, NO_LABELS),
    score=label_score,
    pooled=Pooled(pooled_counts, f1),
    details=f1_by_label,
    tested=True,
    applies=has_labels,
)
