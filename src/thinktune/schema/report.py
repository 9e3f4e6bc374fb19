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
    """Mean of the tuned model's scores minus mean of the base model's."""
    ci95: tuple[float, float]
    """95% interval of the difference: paired bootstrap over questions, percentiles."""
    mde: float | None
    """Smallest true difference that this many questions would show in 80% of repetitions, at the
    observed share of discordant pairs; null where no difference that small would."""


class MetricResult(Closed):
    """What one metric says of both models."""

    label: str
    """What people read instead of the metric's name."""
    direction: Direction
    """Whether a higher or a lower value is better; `neither` for one that only describes."""
    unit: str
    """`share` for a fraction of 1, otherwise what is counted, such as `tokens`."""
    source: str
    """What the scores are read from, such as the generated text or the reference answers."""
    rule: str
    """How the figure comes about, in sentences for people."""
    questions: Tally
    """Questions that have a score."""
    values: dict[Variant, float | None]
    """The figure of each model; null where no answer has one."""
    test: PairedTest | None
    """The paired test; null for a metric that is not tested or has no scores."""
    note: str | None
    """What else there is to say of the outcome; null where there is nothing."""
    why_none: str | None
    """Why there is no figure, where the metric can say so."""


class SamplingFacts(Closed):
    """How answers were drawn, the same for both models."""

    temperature: float
    """Temperature of sampling; 0 is greedy decoding."""
    top_p: float
    """Smallest share of the probability that tokens were drawn from, the likeliest first."""
    max_new_tokens: int
    """Length in tokens at which an answer was cut off."""
    seed: int
    """Seed of the first answers; the recipe's `evaluate.seed`."""


class VerifierChoice(Closed):
    """How answers were checked."""

    requested: Literal["auto", "number", "choice", "math", "text", "none"]
    """Verifier that the recipe asks for; `auto` leaves the choice to the data."""
    used: Verifier
    """Verifier that was used: the one that `auto` chose, else the requested one."""


class VariantFacts(Closed):
    """What one model's answers are like as a whole."""

    samples: Tally
    """Number of answers generated."""
    finished: Share
    """Share of the answers that the model ended by itself; the limit cut off the others."""
    tokens_median: float
    """Median length of the answers in tokens, thinking included."""


class Histogram(Closed):
    """Counts of both models in common bins."""

    edges: tuple[float, ...]
    """Borders of the bins, one more than there are counts."""
    counts: dict[Variant, tuple[Tally, ...]]
    """Number of values in each bin, by model."""


class Rules(Closed):
    """How the figures that are not of one metric came about, in sentences for people."""

    tests: str
    """How base and tuned are tested against each other."""
    interval: str
    """How the interval of a difference is computed."""
    mde: str
    """What the smallest detectable difference means."""
    side_by_side: str
    """How the questions that are shown side by side are chosen."""


class ShownAnswer(Closed):
    """One answer of one model, taken apart."""

    thinking: str
    """Text of the think part; empty where there is none."""
    thinking_tokens: Tally
    """Number of tokens in the think part."""
    opened: bool
    """Whether there is a think part, an empty one included."""
    closed: bool
    """Whether every think part ends."""
    answer: str
    """What is outside of the think part; empty if that never ends."""
    final: str | None
    """What stands on the final-answer line; null where there is none."""
    has_final_line: bool | None
    """Whether there is a final-answer line; null if the recipe names no marker."""
    correct: bool | None
    """Whether the answer is correct; null if the reference cannot be checked."""
    tokens: Tally
    """Number of tokens generated, thinking included."""
    finished: bool
    """Whether the model ended by itself; otherwise the limit cut it off."""


class SideBySide(Closed):
    """One question with an answer of each model."""

    id: str
    """Id of the question in prep's artifact."""
    question: str
    """Text of the question, without the prompt around it."""
    reference: str | None
    """What an answer is checked against."""
    reference_answer: str
    """What the dataset answers."""
    answers: dict[Variant, ShownAnswer]
    """The first answer of each model."""


class Report(Closed):
    """The outcome of an evaluation."""

    format: Literal[2] = REPORT_FORMAT
    """Version of this file's layout."""
    headline: str
    """The outcome in two or three sentences."""
    run: str
    """Id of the run that was evaluated."""
    model: str
    """The base model, `owner/name` on the hub."""
    engine: str
    """Name of the engine that generated the answers, such as `transformers`."""
    questions: Tally
    """Number of held-out questions that were asked."""
    samples_per_question: Tally
    """Answers per question and model."""
    sampling: SamplingFacts
    marker: str | None
    """What the final-answer line starts with; null: none is asked for."""
    verifier: VerifierChoice
    variants: dict[Variant, VariantFacts]
    """What each model's answers are like as a whole."""
    metrics: dict[str, MetricResult]
    """Results by the metric's name, in the order in which people read them."""
    thinking_lengths: Histogram
    """Thinking tokens per answer, over the answers with a think part."""
    rules: Rules
    side_by_side: tuple[SideBySide, ...]
    """A few questions, drawn by a hash, whatever the outcome."""
    versions: dict[str, str]
    """Versions of thinktune and of the libraries that made it."""
