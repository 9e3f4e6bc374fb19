"""What evaluation passes around: held-out questions, generated answers, and the verdicts on them.

The stage makes questions and samples, `verdicts` judges them, metrics read what was judged.
"""

from dataclasses import dataclass

from thinktune.schema.report import Variant
from thinktune.text.think import Parsed


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of prep's test split, as far as judging and showing need it."""

    id: str
    question: str
    answer: str
    """What the dataset answers; only for showing."""
    reference: str | None
    """The checkable final answer; None where the dataset has none."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated answer."""

    question_id: str
    variant: Variant
    sample: int
    """Which of the answers to this question, from 0."""
    text: str
    """What was generated, the prompt left out."""
    prompt_opens_think: bool
    """Whether the prompt ends in `<think>`, so that the text begins inside the think part."""
    tokens: int
    """Tokens generated."""
    finished: bool
    """Whether the model ended by itself; otherwise the token limit cut it off."""
    reference: str | None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One sample with the verdicts on it."""

    sample: Sample
    parsed: Parsed
    thinking_tokens: int
    """Length of the think part, as the model's tokenizer counts."""
    final: str | None
    """What stands on the final-answer line."""
    has_final_line: bool | None
    """Whether there is such a line; None if the recipe names no marker."""
    correct: bool | None
    """None if the reference cannot be checked."""
