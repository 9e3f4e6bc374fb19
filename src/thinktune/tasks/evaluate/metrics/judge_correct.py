"""Share of the answers that a language model finds to agree with the reference."""

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup, share


def judges_correctness(setup: Setup) -> bool:
    """Whether the recipe has a judge of correctness."""
    return setup.spec.judge is not None and setup.spec.judge.correct


def _describe(setup: Setup) -> Description:
    judge = setup.spec.judge
    name = judge.llm.model if judge else "no model"
    return Description(
        "Correct by judge",
        f"{name} is asked twice whether an answer agrees with the reference, once with the answer "
        "first and once with the reference first. Where the two replies differ, or one of them is "
        "neither of the two that are allowed, the answer has no score. An answer that says nothing "
        "outside of its think part is wrong.",
        why_none="the judge gave no usable verdict",
    )


def _score(answers: Answers) -> float | None:
    return share([judged.judge.correct if judged.judge else None for judged in answers])


METRIC = Metric(
    name="judge_correct",
    order=25,
    direction="higher",
    unit=SHARE,
    source="a language model's verdicts",
    description=_describe,
    score=_score,
    tested=True,
    applies=judges_correctness,
)
