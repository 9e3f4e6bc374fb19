"""What evaluation passes around: the held-out questions and the generated answers.

Generation makes questions and samples, `verify` parses and judges them, `report` shows them.
"""

from dataclasses import dataclass
from typing import Literal

Variant = Literal["base", "tuned"]
VARIANTS: tuple[Variant, ...] = ("base", "tuned")


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


@dataclass(frozen=True)
class Parsed:
    """A generated text taken apart."""

    thinking: str
    """All think parts, their tags left out."""
    answer: str
    """What is outside of them; empty if a think part never ends."""
    closed: bool
    """Whether every think part ends."""
    opened: bool
    """Whether there is any think part, an empty one included."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One sample with the verdicts on it."""

    sample: Sample
    parsed: Parsed
    final: str | None
    """What stands on the final-answer line."""
    present: bool | None
    """Whether there is such a line; None if the recipe names no marker."""
    correct: bool | None
    """None if the reference cannot be checked."""
