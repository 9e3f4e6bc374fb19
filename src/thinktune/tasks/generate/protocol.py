"""What an engine is: anything that answers prompts of token ids.

An engine may be transformers in this process, vLLM, or a server somewhere. All of them get the same
prompt ids, sampling and stop ids, so that only their arithmetic can make a difference. An engine
knows nothing of the store: the caller leaves out what is answered already (`answers.generate`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from pydantic import Field

from thinktune.schema.closed import Closed
from thinktune.schema.prompt import TokenId
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop


class Sampling(Closed):
    """How answers are drawn; a part of what decides them."""

    temperature: Annotated[float, Field(ge=0)]
    """0 is greedy; the other settings of the distribution then decide nothing."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of the probability that tokens are drawn from, the likeliest first."""
    max_new_tokens: Annotated[int, Field(ge=1)]
    """Tokens after which an answer is cut off."""
    stop_ids: Annotated[tuple[TokenId, ...], Field(min_length=1)]
    """Tokens that end an answer; they are no part of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt that is to be answered once."""

    id: str
    """Unique among all requests of a generation."""
    prompt_ids: tuple[int, ...]
    seed: int
    """Decides what is drawn for this request, whichever others are computed beside it."""
    adapter: bool
    """Whether the tuned adapter answers; otherwise the base model does."""


Batch = tuple[Request, ...]
"""Requests that an engine computes together, at least one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model generated after one prompt."""

    request_id: str
    ids: tuple[int, ...]
    """Without the token that ended it."""
    finished: bool
    """Whether the model ended it by itself; otherwise the token limit cut it off."""
    seconds: float | None = field(default=None, compare=False)
    """How long it took, beside what was computed with it; None where the engine does not tell, or
    an earlier attempt gave it. It is no part of what the answer is."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that is given, not generated: how likely a model finds it is asked."""

    id: str
    """Unique among the completions of a call."""
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """What stands behind the prompt, at least one token."""
    adapter: bool
    """As `Request.adapter`."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a model finds a completion behind its prompt."""

    log_probability: float
    """Sum over its tokens of the natural logarithm of each one's probability, at temperature 1."""
    tokens: int


class Engine(Protocol):
    """Answers requests with the base model or with the tuned adapter on it."""

    @property
    def name(self) -> str:
        """What the log and the report call it."""

    @property
    def unit(self) -> str:
        """What its progress counts."""

    def batches(self, requests: Sequence[Request], sampling: Sampling) -> list[Batch]:
        """All requests in the groups in which it computes them. Rounding may depend on the group,
        so a restart makes the same groups and asks for those that are not answered yet."""

    def work(self, batches: Sequence[Batch], sampling: Sampling) -> int:
        """By how much the progress moves, in all, while these batches are answered."""

    def generate(
        self, batches: Sequence[Batch], sampling: Sampling, reporter: Reporter, stop: Stop
    ) -> Iterator[Answer]:
        """The answers as they finish, in any order, exactly one for each request of all batches.

        Moves `reporter` by `work` in all, and says on the way that work goes on. Asked to stop by
        `stop`, it raises Preempted soon; answers given before remain valid.
        """

    def likelihoods(
        self, completions: Sequence[Completion], reporter: Reporter, stop: Stop
    ) -> list[Likelihood]:
        """One for each completion, in their order. Moves `reporter` by one for each. Asked to stop
        by `stop`, it raises Preempted soon."""

    def close(self) -> None:
        """Gives back memory and processes. It may be called more than once."""
