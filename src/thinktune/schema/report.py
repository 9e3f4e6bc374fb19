"""The report of an evaluation, as `report.json` holds it.

Rates, accuracies and their differences are fractions of 1. What there is to know of a metric stands
in its `MetricResult`; no reader of a report needs a list of metrics of its own.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from thinktune.schema.benchmark import absent_if_empty
from thinktune.schema.closed import Closed

ArmName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""One way to answer the questions: a model, how it is asked, and its precision."""
BASE: Final = "base"
ASKED: Final = "asked"
TUNED: Final = "tuned"
Verifier = Literal["number", "choice", "math", "text", "none"]
Direction = Literal["higher", "lower", "neither"]
Outcome = Literal["better", "worse", "no evidence", "too few questions"]
"""What a test comes to: whether the tuned model is better, worse, not shown to be either, or asked
too few questions to show anything."""

REPORT_FORMAT: Final = 3
SHARE = "share"
"""The unit of a metric that is a fraction of 1; people read it in percent."""

PERPLEXITY = "perplexity"
"""The unit of a metric that is e to the power of nats per token; people read three decimals."""

Share = Annotated[float, Field(ge=0, le=1)]
Tally = Annotated[int, Field(ge=0)]


class PairedTest(Closed):
    """The tuned model against another arm on one metric, paired by question."""

    method: Literal["exact McNemar", "paired permutation"]
    """McNemar's test for a share of answers that pass; for another figure, the arms' answers are
    exchanged at random, question by question."""
    pairs: Tally
    """Questions that have a score of both arms."""
    other: float
    """The other arm's figure over these questions, which may be fewer than its own."""
    tuned: float
    """The tuned model's figure over these questions."""
    only_other: Tally | None
    """Questions that only the other arm passes (McNemar's b). Null for a permutation test."""
    only_tuned: Tally | None
    """Questions that only the tuned model passes (McNemar's c). Null for a permutation test."""
    p: Share
    """Two-sided p-value: binomial on the discordant pairs, or the share of exchanges that give no
    smaller difference."""
    p_chi_square: Share | None
    """Uncorrected chi-square form of McNemar's test. It is shown for comparison and never
    decides."""
    holm_p: Share
    """The p-value with Holm's adjustment over all tests of the report. This one decides."""
    difference: float
    """The tuned model's figure minus the other arm's."""
    ci95: tuple[float, float]
    """95% interval of the difference: paired bootstrap over questions, percentiles. All answers to
    a question are drawn together."""
    mde: float | None
    """Smallest true difference that this many questions would show in 80% of repetitions, at the
    observed share of discordant pairs. Null where no difference that small would, and for a
    permutation test."""
    outcome: Outcome
    """What the test comes to, by `holm_p`."""


class MetricResult(Closed):
    """What one metric says of all arms."""

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
    values: dict[ArmName, float | None]
    """The figure of each arm; null where no answer has one."""
    tests: dict[ArmName, PairedTest]
    """The tuned model's tests against other arms, by the other arm's name. Empty for a metric that
    is not tested or has no scores."""
    precision_tests: dict[ArmName, PairedTest] = {}
    """Tests of the tuned model at other precisions against the base model, by the tuned arm's
    name. The gate reads them; they are not among those that Holm's adjustment is over."""
    details: dict[str, dict[ArmName, float | None]] = {}
    """Figures of parts, such as those of each label, by the part's name."""
    note: str | None
    """What else there is to say of the outcome; null where there is nothing."""
    why_none: str | None
    """Why there is no figure, where the metric can say so."""

    @property
    def test(self) -> PairedTest | None:
        """The test against the base model."""
        return self.tests.get(BASE)


class RequirementResult(Closed):
    """What one figure of the tuned model must reach, and whether it does."""

    metric: str
    """Name of the metric."""
    arm: ArmName
    """The tuned model at one precision."""
    wanted: str
    """The condition, in words."""
    value: float | None
    """The figure that was compared; null where it was not measured."""
    met: bool
    """Whether the condition holds."""


class Gate(Closed):
    """Whether the tuned model is good enough to be served, by the recipe's `evaluate.require`."""

    promoted: bool | None
    """Whether there are requirements and every one is met. Null without requirements."""
    requirements: tuple[RequirementResult, ...]
    """The requirements, each at every precision of the tuned model."""


class SamplingFacts(Closed):
    """How answers were drawn, the same for all arms."""

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


class ArmFacts(Closed):
    """What one arm is, and what its answers are like as a whole."""

    label: str
    """What people read, such as `base, asked in words`."""
    engine: str
    """Name and version of what generated the answers."""
    engine_reason: str
    """Why that engine."""
    precision: str
    """Precision of the weights, as the model would be served."""
    samples: Tally
    """Number of answers generated."""
    finished: Share
    """Share of the answers that the model ended by itself; the limit cut off the others."""
    tokens_median: float
    """Median length of the answers in tokens, thinking included."""


class BenchmarkResult(Closed):
    """What all arms come to on questions that are reported apart from the held-out ones."""

    source: str
    """Where the questions are from: dataset and revision, or groups of the held-out questions."""
    questions: Tally
    """Number of questions that were asked."""
    verifier: Verifier
    """How answers were checked."""
    accuracy: dict[ArmName, float | None]
    """Share of the right answers, by arm; null where it was not measured."""
    tests: dict[ArmName, PairedTest]
    """The tuned model's tests against other arms, by the other arm's name."""
    precision_tests: dict[ArmName, PairedTest] = {}
    """As in `MetricResult`."""
    cut_off: dict[ArmName, Share]
    """Share of the answers that the limit cut off, by arm."""
    unreadable: dict[ArmName, Share]
    """Share of the answers in which nothing was found to compare, by arm. They count as wrong."""
    tokens_median: dict[ArmName, float]
    """Median length of the answers in tokens, by arm."""
    training_rows_alike: Tally | None
    """Training rows that are like one of the questions. Null where nobody looked: the held-out
    questions have been kept apart."""
    rule: str
    """How answers were checked, in sentences for people."""


class Histogram(Closed):
    """Counts of all arms in common bins."""

    edges: tuple[float, ...]
    """Borders of the bins, one more than there are counts."""
    counts: dict[ArmName, tuple[Tally, ...]]
    """Number of values in each bin, by arm."""


class Rules(Closed):
    """How the figures that are not of one metric came about, in sentences for people."""

    tests: str
    """How the tuned model is tested against other arms."""
    interval: str
    """How the interval of a difference is computed."""
    mde: str
    """What the smallest detectable difference means."""
    side_by_side: str
    """How the questions that are shown side by side are chosen."""


class ShownAnswer(Closed):
    """One answer of one arm, taken apart."""

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
    extracted: str | None
    """What was compared with the reference; null where nothing was found to compare."""
    correct: bool | None
    """Whether the answer is correct; null if the reference cannot be checked."""
    tokens: Tally
    """Number of tokens generated, thinking included."""
    finished: bool
    """Whether the model ended by itself; otherwise the limit cut it off."""


class SideBySide(Closed):
    """One question with an answer of each arm."""

    id: str
    """Id of the question in prep's artifact."""
    question: str
    """Text of the question, without the prompt around it."""
    reference: str | None
    """What an answer is checked against."""
    reference_answer: str
    """What the dataset answers."""
    answers: dict[ArmName, ShownAnswer]
    """The first answer of each arm."""


class Report(Closed):
    """The outcome of an evaluation."""

    format: Literal[3] = REPORT_FORMAT
    """Version of this file's layout."""
    headline: str
    """The outcome in two or three sentences."""
    run: str
    """Id of the run that was evaluated."""
    model: str
    """The base model, `owner/name` on the hub."""
    questions: Tally
    """Number of held-out questions that were asked."""
    samples_per_question: Tally
    """Answers per question and arm."""
    sampling: SamplingFacts
    marker: str | None
    """What the final-answer line starts with; null: none is asked for."""
    verifier: VerifierChoice
    arms: dict[ArmName, ArmFacts]
    """The arms in the order in which people read them."""
    gate: Gate
    """Whether the tuned model may be served."""
    metrics: dict[str, MetricResult]
    """Results by the metric's name, in the order in which people read them."""
    benchmarks: Annotated[dict[str, BenchmarkResult], Field(exclude_if=absent_if_empty)] = {}
    """Results of the recipe's benchmarks, by name."""
    thinking_lengths: Histogram
    """Thinking tokens per answer, over the answers with a think part."""
    rules: Rules
    side_by_side: tuple[SideBySide, ...]
    """A few questions, drawn by a hash, whatever the outcome."""
    versions: dict[str, str]
    """Versions of thinktune and of the libraries that made it."""
