"""Share of the questions whose most frequent answer is right (maj@k)."""

from collections import Counter

from thinktune.schema.report import SHARE
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Setup
from thinktune.text.numbers import NUMBER, last_number, plain_numbers


def _describe(setup: Setup) -> Description:
    return Description(
        f"Majority of {setup.spec.samples} right",
        "What most of a question's answers come to is its answer; of two that are equally "
        "frequent, the one that was given first. Answers with nothing to compare are left out.",
    )


def _score(answers: Answers) -> float | None:
    if any(judged.correct is None for judged in answers):
        return None
    said = [judged for judged in answers if judged.extracted]
    if not said:
        return 0.0
    counts = Counter(_alike(judged.extracted or "") for judged in said)
    most, _ = counts.most_common(1)[0]
    return float(next(bool(j.correct) for j in said if _alike(j.extracted or "") == most))


def _alike(extracted: str) -> str:
    """Equal for answers that are the same: numbers by value, others without case and spacing."""
    plain = plain_numbers(extracted).strip()
    number = last_number(plain) if NUMBER.fullmatch(plain) else None
    if number is not None:
        return str(number.value / 100 if number.percent else number.value)
    return "".join(extracted.split()).casefold()


METRIC = Metric(
    name="accuracy_majority",
    order=22,
    direction="higher",
    unit=SHARE,
    source="the reference answers",
    description=_describe,
    score=_score,
    tested=True,
    in_headline=False,
    applies=lambda setup: setup.spec.samples > 1 and setup.verifier != "none",
)
