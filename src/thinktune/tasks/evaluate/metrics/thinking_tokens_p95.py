"""The length that 95% of the think parts do not exceed."""

from collections.abc import Sequence

import numpy as np

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric
from thinktune.tasks.evaluate.metrics.thinking_tokens_median import LENGTH_RULE, thinking_lengths


def _score(answers: Answers) -> float | None:
    lengths = thinking_lengths(answers)
    return float(np.percentile(lengths, 95)) if lengths else None


def _value(questions: Sequence[Answers]) -> float | None:
    lengths = [length for answers in questions for length in thinking_lengths(answers)]
    return float(np.percentile(lengths, 95)) if lengths else None


METRIC = Metric(
    name="thinking_tokens_p95",
    order=80,
    direction="neither",
    unit="tokens",
    source="the generated text",
    description=Description(label="Thinking tokens, 95th percentile", rule=LENGTH_RULE),
    score=_score,
    value=_value,
)
