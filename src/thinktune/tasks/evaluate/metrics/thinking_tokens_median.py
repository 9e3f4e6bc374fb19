"""Median length of the think part."""

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, length_metric

LENGTH_RULE = (
    "Thinking tokens are counted over answers with a think part; one cut off by the limit counts "
    "with the length it had."
)


def thinking_lengths(answers: Answers) -> list[int]:
    """Thinking tokens of each answer that has a think part."""
    return [judged.thinking_tokens for judged in answers if judged.parsed.opened]


METRIC = length_metric(
    thinking_lengths,
    lambda lengths: float(np.median(lengths)),
    name="thinking_tokens_median",
    order=70,
    description=Description(label="Thinking tokens, median", rule=LENGTH_RULE),
)
