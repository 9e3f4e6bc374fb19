"""The shapes that templates render: what a model is asked, and what it is to answer.

Prep makes them from rows of a dataset; serving makes a `Query` from a request.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row cannot be used for training."""

    text: str
    """What the data card counts such rows under."""
    remedy: str = "check data.format and data.columns"
    """What to do where most rows are of this kind and none is left."""


class Unusable(Exception):
    """A row that cannot be used for training."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


TEXT_BEFORE_THINK = Reason(
    "text before the think part",
    "each answer needs one <think>…</think>, closed, with nothing before it",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """Something said before the last question; an assistant's turn without its reasoning."""

    role: str
    """`user` or `assistant`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """All that a model is asked."""

    question: str
    options: str | None = None
    """The options of a multiple-choice question, one per line."""
    system: str | None = None
    """A system prompt of its own, which stands before the recipe's."""
    before: tuple[Turn, ...] = ()
    """The turns before the question, the oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(Query):
    """A query with the answer that a model learns to give."""

    answer: str
    reasoning: str | None = None
    """The think part; None where there is none, or an incomplete one."""
    summary: str | None = None
    """The conclusion in one sentence."""
