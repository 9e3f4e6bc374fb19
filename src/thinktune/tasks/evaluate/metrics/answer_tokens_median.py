"""Median length of the answers, thinking included."""

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, length_metric

ANSWER_LENGTH_RULE = (
    "Answer tokens are all that were generated, thinking included; an answer cut off by the limit "
    "counts with the length it had."
)


def answer_lengths(answers: Answers) -> list[int]:
    """Tokens of each answer."""
    return [judged.sample.tokens for judged in answers]


METRIC = length_metric(
    answer_lengths,
    lambda lengths: float(np.median(lengths)),
    name="answer_tokens_median",
    order=97,
    description=Description(label="Tokens per answer, median", rule=ANSWER_LENGTH_RULE),
)
