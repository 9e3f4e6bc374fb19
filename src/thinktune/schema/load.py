"""A load test of a server: what `thinktune bench serve` asks for and what it measures."""

from thinktune.schema.catalog import Count
from thinktune.schema.closed import Closed


class HeldOutRequest(Closed):
    """The held-out questions of a run; the answer is a `HeldOut`."""

    run: str
    store: str


class HeldOut(Closed):
    """Questions that a run did not learn from."""

    questions: tuple[str, ...]
    """The questions alone, without a system prompt, earlier turns or options."""


class Spread(Closed):
    """How a time is distributed."""

    median_s: float
    """The median, in seconds."""
    p95_s: float
    """The 95th percentile, in seconds, interpolated between the two nearest values."""


class LoadLevel(Closed):
    """What was measured with one number of clients."""

    concurrency: Count
    """How many clients asked, each its next question as soon as it had the answer to the last."""
    answered: int
    """Requests with a whole answer. All other figures but `failures` are of these alone."""
    failures: dict[str, int]
    """How many requests failed, by the kind of failure."""
    seconds: float
    """Seconds from the first request to the end of the last one."""
    tokens: int
    """Tokens of all answers, reasoning included, as the server counts them."""
    tokens_per_s: float
    """Tokens of all answers per second."""
    requests_per_s: float
    """Answers per second."""
    first_token: Spread | None
    """From the request to the first text of its answer. Null where nothing was answered."""
    inter_token: Spread | None
    """Between two successive texts of one answer, over all answers. Null where none had two."""
    per_token: Spread | None
    """Seconds from the first text of an answer to its last one, divided by the tokens behind the
    first, over all answers. Null where none had two tokens."""
    latency: Spread | None
    """From the request to the end of its answer. Null where nothing was answered."""
    whole: bool
    """Whether all requests of this level were made; false where somebody stopped it before."""


class LoadReport(Closed):
    """A server under rising load."""

    server: str
    """Address of the server."""
    model: str
    """Name of the model that was asked."""
    questions: Count
    """How many different questions there are. They are asked in turn, and again from the first."""
    max_tokens: Count | None
    """Longest answer that was asked for; null where the server decides."""
    levels: tuple[LoadLevel, ...]
    """In the order in which they were measured."""
    knee: Count | None
    """The last level before one that gives less than 10% more tokens per second while its median
    latency is over 20% longer. Null where no level is like that."""
