"""Share of the questions that some answer gets right (pass@k)."""

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup
from thinktune.tasks.evaluate.statistics import pass_at_k


def drawn(samples: int) -> int:
    """How many answers are drawn: half of them, since a draw of all has no spread."""
    return max(1, samples // 2)


def _describe(setup: Setup) -> Description:
    k = drawn(setup.spec.samples)
    return Description(
        f"pass@{k}",
        f"The chance that one of {k} answers is right, estimated without bias from all answers to "
        "the question (arXiv:2107.03374).",
    )


def _score(answers: Answers) -> float | None:
    verdicts = [judged.correct for judged in answers]
    if None in verdicts:
        return None
    return pass_at_k(sum(map(bool, verdicts)), len(verdicts), drawn(len(verdicts)))


METRIC = Metric(
    name="accuracy_pass_at_k",
    order=24,
    direction="higher",
    unit=SHARE,
    source="the reference answers",
    description=_describe,
    score=_score,
    applies=lambda setup: setup.spec.samples > 1 and setup.verifier != "none",
)
