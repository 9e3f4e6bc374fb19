"""Share of the answers without a usable verdict of the judge."""

from thinktune.tasks.evaluate.metrics.judge_correct import judges_correctness
from thinktune.tasks.evaluate.metrics.registry import Description, share_metric
from thinktune.tasks.evaluate.samples import Judged


def _passes(judged: Judged) -> bool:
    return judged.judge is None or judged.judge.correct is None


METRIC = share_metric(
    _passes,
    name="judge_unscored",
    order=26,
    direction="lower",
    description=Description(
        label="No verdict by judge",
        rule="Share of the answers of which the judge's two replies differ, or are not among those "
        "that are allowed. They are left out of the judge's figures.",
    ),
    applies=judges_correctness,
)
