"""The length that 95% of the think parts do not exceed."""

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Description, length_metric
from thinktune.tasks.evaluate.metrics.thinking_tokens_median import LENGTH_RULE, thinking_lengths

METRIC = length_metric(
    thinking_lengths,
    lambda lengths: float(np.percentile(lengths, 95)),
    name="thinking_tokens_p95",
    order=80,
    description=Description(label="Thinking tokens, 95th percentile", rule=LENGTH_RULE),
)
