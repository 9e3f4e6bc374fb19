"""Median length of the think part."""

from collections.abc import Sequence

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric

LENGTH_RULE = (
    "Thinking tokens are counted over answers with a think part; one cut off by the limit counts "
    "with the length it had."
)


def thinking_lengths(answers: Answers) -> list[int]:
    """Thinking tokens of each answer that has a think part."""
    return [judged.thinking_tokens for judged in answers if judged.parsed.opened]


def _score(answers: Answers) -> float | None:
    lengths = thinking_lengths(answers)
    return float(np.median(lengths)) if lengths else None


def _value(questions: Sequence[Answers]) -> float | None:
    lengths = [length for answers in questions for length in thinking_lengths(answers)]
    return float(np.median(lengths)) if lengths else None


METRIC = Metric(
    name="thinking_tokens_median",
    order=70,
    direction="neither",
    unit="tokens",
    source="the generated text",
    description=Description(label="Thinking tokens, median", rule=LENGTH_RULE),
    score=_score,
    value=_value,
)
