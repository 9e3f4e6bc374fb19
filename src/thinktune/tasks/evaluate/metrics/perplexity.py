"""Perplexity of the reference completions of the held-out questions."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from thinktune.schema.report import PERPLEXITY
from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric, Pooled


def _parts(answers: Answers) -> Sequence[float] | None:
    """Nats and tokens of the question's completion."""
    found = answers[0].likelihood
    return None if found is None else (-found.log_probability, float(found.tokens))


def _perplexity(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    figures: NDArray[np.float64] = np.exp(sums[..., 0] / sums[..., 1])
    return figures


def _score(answers: Answers) -> float | None:
    parts = _parts(answers)
    return None if parts is None else math.exp(parts[0] / parts[1])


METRIC = Metric(
    name="perplexity",
    order=29,
    direction="lower",
    unit=PERPLEXITY,
    source="the reference completions",
    description=Description(
        label="Perplexity of the references",
        rule="How likely a model finds the reference completions (reasoning, answer and end) "
        "behind the prompts that the questions are asked with: e to the mean of −ln p over all of "
        "their tokens, by the engine that generates the arm's answers. A model asked in words "
        "and an endpoint have none: the one has other prompts, the other tells no such likelihood.",
        why_none="no model was asked for it",
    ),
    score=_score,
    pooled=Pooled(_parts, _perplexity),
    applies=lambda setup: setup.spec.perplexity,
    tested=True,
    in_headline=False,
)
