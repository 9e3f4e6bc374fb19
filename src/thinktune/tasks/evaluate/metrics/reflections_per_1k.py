"""How often a model has second thoughts, per 1,000 thinking tokens."""

import re
from collections.abc import Sequence

from thinktune.tasks.evaluate.metrics.registry import Answers, Description, Metric
from thinktune.tasks.evaluate.samples import Judged

REFLECTION_MARKERS = (
    "wait",
    "hmm+",
    "alternatively",
    "hold on",
    "on second thought",
    "actually, no",
    "let me (?:just )?(?:re-?|double[- ])?(?:check|verify|examine|consider|calculate|think|do)"
    "(?: (?:that|this|it))? again",
    "let me (?:just )?(?:re-?|double[- ])(?:check|verify|examine|consider|calculate|think)",
    "i (?:should|need to|have to) (?:re-?|double[- ])(?:check|verify|examine|consider)",
)
"""Words of second thoughts, as regular expressions; English only, case ignored, whole words."""
REFLECTION = re.compile(rf"\b(?:{'|'.join(REFLECTION_MARKERS)})\b", re.IGNORECASE)


def count_reflections(text: str) -> int:
    """Markers of second thoughts in a text."""
    return len(REFLECTION.findall(text))


def _rate(thinking: Sequence[Judged]) -> float | None:
    tokens = sum(judged.thinking_tokens for judged in thinking)
    markers = sum(count_reflections(judged.parsed.thinking) for judged in thinking)
    return 1000 * markers / tokens if tokens else None


def _score(answers: Answers) -> float | None:
    return _rate([judged for judged in answers if judged.parsed.opened])


def _value(questions: Sequence[Answers]) -> float | None:
    return _rate([judged for answers in questions for judged in answers if judged.parsed.opened])


METRIC = Metric(
    name="reflections_per_1k",
    order=90,
    direction="neither",
    unit="markers per 1,000 tokens",
    source="the generated text",
    description=Description(
        label="Reflection markers per 1k tokens",
        rule="Reflection markers are English words such as “wait”, “hmm”, “alternatively”, “let me "
        "double-check”, counted per 1,000 thinking tokens of all answers together.",
    ),
    score=_score,
    value=_value,
)
