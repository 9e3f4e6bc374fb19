"""The report of an evaluation, as `report.json` holds it.

Rates, accuracies and their differences are fractions of 1. What there is to know of a metric stands
in its `MetricResult`; no reader of a report needs a list of metrics of its own.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from thinktune.schema.closed import Closed

Variant = Literal["base", "tuned"]
VARIANTS: tuple[Variant, ...] = ("base", "tuned")
Verifier = Literal["number", "choice", "math", "text", "none"]
Direction = Literal["higher", "lower", "neither"]

REPORT_FORMAT: Final = 2
SHARE = "share"
"""The unit of a metric that is a fraction of 1; people read it in percent."""

Share = Annotated[float, Field(ge=0, le=1)]
Tally = Annotated[int, Field(ge=0)]


class PairedTest(Closed):
    """Base against tuned on one metric: exact McNemar test and bootstrap, paired by question."""

    pairs: Tally
    """Questions that have a score of both models."""
    only_base: Tally
    """Questions that only the base model passes (McNemar's b)."""
    only_tuned: Tally
    """Questions that only the tuned model passes (McNemar's c)."""
    p_exact: Share
    """Exact McNemar test (binomial on the discordant pairs), two-sided."""
    p_chi_square: Share
    """Uncorrected chi-square form of the same test; shown for comparison, it never decides."""
    holm_p: Share
    """The exact p-value with Holm's adjustment over all tests of the report; this one decides."""
    difference: float
    """Mean of tuned minus mean of base."""
    ci95: tuple[float, float]
    """95% interval of the difference: paired bootstrap over questions, percentiles."""
    mde: float | None
    """Smallest true difference that this many questions would show in 80% of repetitions, at the
    observed share of discordant pairs; null where no difference that small would."""


class MetricResult(Closed):
    """What one metric says of both models."""

    label: str
    """What people read instead of the name."""
    direction: Direction
    """Whether a higher or a lower value is better; `neither` for one that only describes."""
    unit: str
    """`share` for a fraction of 1, otherwise what is counted: `tokens`, …"""
    source: str
    """What the scores are read from: the generated text, the reference answers, …"""
    rule: str
    """How the figure comes about, in sentences for people."""
    questions: Tally
    """Questions that have a score."""
    values: dict[Variant, float | None]
    """The figure of each model; null where no answer has one."""
    test: PairedTest | None
    """Null for a metric that is not tested, or has no scores."""
    note: str | None
    """What else there is to say of the outcome."""
    why_none: str | None
    """Why there is no figure, where the metric can say so."""


class SamplingFacts(Closed):
    """How answers were drawn, the same for both models."""

    temperature: float
    """0 is greedy."""
    top_p: float
    max_new_tokens: int
    """Length at which an answer was cut off."""
    seed: int


class VerifierChoice(Closed):
    """How answers were checked."""

    requested: Literal["auto", "number", "choice", "math", "text", "none"]
    """What the recipe says."""
    used: Verifier
    """What `auto` came to."""


class VariantFacts(Closed):
    """What one model's answers are like as a whole."""

    samples: Tally
    """Answers generated."""
    finished: Share
    """Share of the answers that the model ended by itself; the limit cut off the others."""
    tokens_median: float
    """Median length of the answers in tokens, thinking included."""


class Histogram(Closed):
    """Counts of both models in common bins."""

    edges: tuple[float, ...]
    """Borders of the bins, one more than there are counts."""
    counts: dict[Variant, tuple[Tally, ...]]


class Rules(Closed):
    """How the figures that are not of one metric came about, in sentences for people."""

    tests: str
    interval: str
    mde: str
    side_by_side: str


class ShownAnswer(Closed):
    """One answer of one model, taken apart."""

    thinking: str
    thinking_tokens: Tally
    opened: bool
    """Whether there is a think part, an empty one included."""
    closed: bool
    """Whether every think part ends."""
    answer: str
    """What is outside of the think part; empty if that never ends."""
    final: str | None
    """What stands on the final-answer line."""
    has_final_line: bool | None
    """Null if the recipe names no marker."""
    correct: bool | None
    """Null if the reference cannot be checked."""
    tokens: Tally
    """Tokens generated, thinking included."""
    finished: bool
    """Whether the model ended by itself; otherwise the limit cut it off."""


class SideBySide(Closed):
    """One question with an answer of each model."""

    id: str
    question: str
    reference: str | None
    """What an answer is checked against."""
    reference_answer: str
    """What the dataset answers."""
    answers: dict[Variant, ShownAnswer]


class Report(Closed):
    """The outcome of an evaluation."""

    format: Literal[2] = REPORT_FORMAT
    """Version of this layout."""
    headline: str
    """The outcome in two or three sentences."""
    run: str
    """Id of the run."""
    model: str
    """The base model, `owner/name` on the hub."""
    engine: str
    """What generated the answers: `transformers`, …"""
    questions: Tally
    """Held-out questions asked."""
    samples_per_question: Tally
    """Answers per question and model."""
    sampling: SamplingFacts
    marker: str | None
    """What the final-answer line starts with; null: none is asked for."""
    verifier: VerifierChoice
    variants: dict[Variant, VariantFacts]
    metrics: dict[str, MetricResult]
    """By the metric's name, in the order in which people read them."""
    thinking_lengths: Histogram
    """Thinking tokens per answer, over the answers with a think part."""
    rules: Rules
    side_by_side: tuple[SideBySide, ...]
    """A few questions, drawn by a hash, whatever the outcome."""
    versions: dict[str, str]
    """Versions of thinktune and of the libraries that made it."""
