"""What evaluation passes around: held-out questions, generated answers, and the verdicts on them.

The stage makes questions and samples, `verdicts` judges them, metrics read what was judged.
"""

from dataclasses import dataclass

from thinktune.tasks.generate.protocol import Likelihood
from thinktune.text.labels import Labels
from thinktune.text.think import Parsed


@dataclass(frozen=True, kw_only=True)
class Question:
    """One row of prep's test split, as far as judging and showing need it."""

    id: str
    question: str
    answer: str
    """What the dataset answers; for showing, for labels, and for a judge to compare with."""
    reference: str | None
    """The checkable final answer; None where the dataset has none."""
    group: str | None = None
    """The value by which the recipe balances rows, such as a difficulty."""


def sample_key(arm: str, number: int, question_id: str) -> str:
    """Names one answer of an evaluation: in the store, to the judge, in judge.jsonl."""
    return f"{arm}-{number:03d}/{question_id}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated answer."""

    question_id: str
    arm: str
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

    @property
    def key(self) -> str:
        """See `sample_key`."""
        return sample_key(self.arm, self.sample, self.question_id)


@dataclass(frozen=True, kw_only=True)
class LabelVerdict:
    """The labels that an answer names, beside those that it should."""

    expected: frozenset[str]
    said: Labels


@dataclass(frozen=True, kw_only=True)
class JudgeVerdict:
    """What a language model says of an answer."""

    correct: bool | None = None
    """Whether it agrees with the reference; None where the two replies do not, or one of them is
    none of the possible ones."""
    rating: float | None = None
    """From 1 to 5; None where the reply is none."""


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
    extracted: str | None
    """What was compared with the reference; None where nothing was found to compare."""
    correct: bool | None
    """None if the reference cannot be checked."""
    several: bool = False
    """Whether the answer names several options where one is asked for."""
    group: str | None = None
    """That of its question."""
    labels: LabelVerdict | None = None
    """None unless the recipe has labels and the reference names some."""
    judge: JudgeVerdict | None = None
    """None unless the recipe has a judge."""
    likelihood: Likelihood | None = None
    """Of the question's reference completion under this arm's model; None where it was not
    measured."""
