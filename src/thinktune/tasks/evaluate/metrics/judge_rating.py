"""Mean rating of the answers by a language model, from 1 to 5."""

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup


def _describe(setup: Setup) -> Description:
    judge = setup.spec.judge
    asked = judge.rating if judge and judge.rating else ""
    return Description(
        "Rating by judge, 1 to 5",
        f"The judge rates each answer from 1 to 5 by: {asked.rstrip('.?!')}. Another reply is no "
        "rating. An answer that says nothing outside of its think part is rated 1.",
        why_none="the judge gave no rating",
    )


def _score(answers: Answers) -> float | None:
    ratings = [judged.judge.rating for judged in answers if judged.judge]
    given = [rating for rating in ratings if rating is not None]
    return float(np.mean(given)) if given else None


METRIC = Metric(
    name="judge_rating",
    order=27,
    direction="higher",
    unit="points of 5",
    source="a language model's verdicts",
    description=_describe,
    score=_score,
    tested=True,
    applies=lambda setup: setup.spec.judge is not None and setup.spec.judge.rating is not None,
)
