"""What a metric is, and the list of all of them: every module of this package but this one."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from thinktune.schema.recipe import EvaluateSpec
from thinktune.schema.report import SHARE, Direction, MetricResult, Verifier
from thinktune.tasks.evaluate import metrics
from thinktune.tasks.evaluate.samples import Judged, Question
from thinktune.tasks.evaluate.statistics import Aggregate, ratio

Answers = Sequence[Judged]
"""The answers of one arm to one question, at least one."""


@dataclass(frozen=True)
class Setup:
    """What was asked and how it is checked, the same for all arms."""

    spec: EvaluateSpec
    marker: str | None
    """What the final-answer line starts with."""
    verifier: Verifier
    """How answers are checked."""
    questions: Sequence[Question]


@dataclass(frozen=True)
class Description:
    """What people read of a metric."""

    label: str
    """A few words, for a row of a table."""
    rule: str
    """How the figure comes about, in full sentences."""
    why_none: str | None = None
    """Said where no answer has a score: why not."""


@dataclass(frozen=True)
class Pooled:
    """A figure that is no mean of the questions' scores, such as F1 or a rate: a function of sums
    over all questions."""

    parts: Callable[[Answers], Sequence[float] | None]
    """What one question adds to each sum; None where its answers have nothing to add."""
    aggregate: Aggregate
    """The figure of the sums."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of each arm, with a score for each question."""

    name: str
    """Key in report.json; the manifest has it as `base_<name>`, `tuned_<name>`, …"""
    order: int
    """Position among the metrics; lower comes first."""
    direction: Direction
    """Whether a higher or a lower value is better; `neither` for one that only describes."""
    unit: str
    """`SHARE` for a fraction of 1, otherwise what is counted: `tokens`, …"""
    source: str
    """What the scores are read from: the generated text, the reference answers, …"""
    description: Description | Callable[[Setup], Description]
    score: Callable[[Answers], float | None]
    """The score of one question; None where its answers have none."""
    value: Callable[[Sequence[Answers]], float | None] | None = None
    """The figure of one arm, from its answers to all questions; None: the mean of the scores."""
    pooled: Pooled | None = None
    """How the figure comes of sums over questions, for one that is tested and is no mean."""
    applies: Callable[[Setup], bool] = lambda _: True
    """Whether it means something in this evaluation; elsewhere the report leaves it out."""
    details: Callable[[Sequence[Answers]], dict[str, float | None]] | None = None
    """Figures of parts of one arm's answers, such as those of each label, by the part's name."""
    tested: bool = False
    """Whether the tuned model is compared with other arms: by McNemar's test where the metric is a
    share (a question passes whose score is above one half), else by a permutation test."""
    in_headline: bool = True
    """Whether the headline has a sentence of a tested metric."""
    sentence: Callable[[MetricResult, Setup], str] | None = None
    """What the headline says of a tested metric, which may be nothing; None: the usual sentence."""
    note: Callable[[MetricResult], str | None] | None = None
    """What else there is to say of the outcome, below the table."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"metric {self.name!r}: use lower-case letters, digits and '_'")
        if self.tested and self.direction == "neither":
            raise ValueError(f"metric {self.name!r}: a test needs a direction")
        if self.tested and self.value is not None:
            raise ValueError(f"metric {self.name!r}: a test needs a mean or a pooled figure")

    def describe(self, setup: Setup) -> Description:
        """What people read of it in this evaluation."""
        if isinstance(self.description, Description):
            return self.description
        return self.description(setup)

    @property
    def mcnemar(self) -> bool:
        """Whether its test is McNemar's: for a share that is a mean over questions."""
        return self.unit == SHARE and self.pooled is None

    def scores(self, questions: Sequence[Answers]) -> list[float | None]:
        """One arm's score of each question, in their order."""
        return [self.score(answers) for answers in questions]

    def contributions(self, answers: Answers) -> Sequence[float] | None:
        """What one question adds to the sums of which the figure is made."""
        if self.pooled is not None:
            return self.pooled.parts(answers)
        score = self.score(answers)
        return None if score is None else (score, 1.0)

    @property
    def aggregate(self) -> Aggregate:
        """From sums of contributions to figures."""
        if self.pooled is None:
            return ratio
        return self.pooled.aggregate

    def figure(self, questions: Sequence[Answers], scores: Sequence[float | None]) -> float | None:
        """One arm's figure. Raises ValueError where there is no question."""
        if not questions:
            raise ValueError(f"metric {self.name!r}: no samples to measure")
        if self.value is not None:
            return self.value(questions)
        if self.pooled is not None:
            parts = [found for answers in questions if (found := self.pooled.parts(answers))]
            return float(self.pooled.aggregate(_sums(parts))) if parts else None
        scored = [score for score in scores if score is not None]
        return float(np.mean(scored)) if scored else None


def _sums(parts: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = np.asarray(parts, dtype=float).sum(axis=0)
    return sums


class Registry:
    """Metrics by name, in the order in which people read them."""

    def __init__(self, found: Iterable[Metric]) -> None:
        """Raises ValueError where two metrics have one name."""
        self._metrics: dict[str, Metric] = {}
        for metric in sorted(found, key=lambda metric: (metric.order, metric.name)):
            if metric.name in self._metrics:
                raise ValueError(f"two metrics are called {metric.name!r}")
            self._metrics[metric.name] = metric

    @classmethod
    def discover(cls) -> "Registry":
        """All metrics of this package."""
        names = [found.name for found in pkgutil.iter_modules(metrics.__path__)]
        own = __name__.rpartition(".")[2]
        return cls.of_modules(
            importlib.import_module(f"{metrics.__name__}.{name}") for name in names if name != own
        )

    @classmethod
    def of_modules(cls, modules: Iterable[ModuleType]) -> "Registry":
        """The `METRIC` of each module. Raises ValueError for a module without one."""
        found = []
        for module in modules:
            metric = getattr(module, "METRIC", None)
            if not isinstance(metric, Metric):
                raise ValueError(f"{module.__name__} defines no METRIC")
            found.append(metric)
        return cls(found)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]


def share(verdicts: Sequence[bool | None]) -> float | None:
    """The share of one question's answers that pass; None where one of them has no verdict."""
    if None in verdicts:
        return None
    return sum(map(bool, verdicts)) / len(verdicts)


def length_metric(
    lengths: Callable[[Answers], list[int]],
    summary: Callable[[Sequence[int]], float],
    *,
    name: str,
    order: int,
    description: Description,
) -> Metric:
    """A metric that describes lengths in tokens: a summary of those of one question's answers is
    its score, the summary of all of them is the figure."""

    def summarized(found: list[int]) -> float | None:
        return summary(found) if found else None

    return Metric(
        name=name,
        order=order,
        direction="neither",
        unit="tokens",
        source="the generated text",
        description=description,
        score=lambda answers: summarized(lengths(answers)),
        value=lambda questions: summarized([n for answers in questions for n in lengths(answers)]),
    )


def share_metric(
    passes: Callable[[Judged], bool],
    *,
    name: str,
    order: int,
    direction: Direction,
    description: Description,
    applies: Callable[[Setup], bool] = lambda _: True,
) -> Metric:
    """A metric that describes: the share of all answers that pass. It is not tested."""

    def value(questions: Sequence[Answers]) -> float:
        verdicts = [passes(judged) for answers in questions for judged in answers]
        return sum(verdicts) / len(verdicts)

    return Metric(
        name=name,
        order=order,
        direction=direction,
        unit=SHARE,
        source="the generated text",
        description=description,
        score=lambda answers: share([passes(judged) for judged in answers]),
        value=value,
        applies=applies,
    )
