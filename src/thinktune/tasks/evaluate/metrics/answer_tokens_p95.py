"""The length that 95% of the answers do not exceed."""

import numpy as np

from thinktune.tasks.evaluate.metrics.answer_tokens_median import (
    ANSWER_LENGTH_RULE,
    answer_lengths,
)
from thinktune.tasks.evaluate.metrics.registry import Description, length_metric

METRIC = length_metric(
    answer_lengths,
    lambda lengths: float(np.percentile(lengths, 95)),
    name="answer_tokens_p95",
    order=98,
    description=Description(label="Tokens per answer, 95th percentile", rule=ANSWER_LENGTH_RULE),
)
