"""Whether two arms differ: paired tests over the same questions. Called by `report.build`.

Whatever a metric is, each question contributes a vector to it, from all answers of an arm to that
question, and the figure is a function of their sum. So one bootstrap and one permutation test serve
shares, means, F1 scores and rates.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from thinktune.schema.report import Direction, Outcome, PairedTest

ALPHA = 0.05
"""Two-sided level of every test and of the intervals."""
POWER = 0.80
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 250
"""Bounds the memory of resampling: this many vectors over all questions at a time."""
DEFINED_SHARE = 0.95
"""A figure that fewer resamples have than this has no interval."""
FEW_QUESTIONS = 30
"""Below this, a test that rejects nothing is said to have had too few questions."""

Contributions = NDArray[np.float64]
"""What each question adds to a figure, (questions, parts)."""
Aggregate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums over questions, (…, parts), to figures, (…)."""


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first part divided by the second: a mean, where the second counts."""
    below = sums[..., 1]
    return np.divide(sums[..., 0], below, out=np.zeros_like(below), where=below != 0)


def mcnemar_test(other: Sequence[float], tuned: Sequence[float], *, seed: int) -> PairedTest:
    """Compares the share that passes: two scores per question, in the same order, each the mean
    over its samples.

    McNemar needs one verdict per question: a question passes where more than half of its samples
    do (a tie fails). The difference and its interval use the means themselves. `holm_p` and
    `outcome` are those of one test alone until `adjusted` makes them those of several.
    """
    if len(other) != len(tuned) or not other:
        raise ValueError(f"{len(other)} and {len(tuned)} scores are not pairs")
    pairs = list(zip(other, tuned, strict=True))
    only_other = sum(of_other > 0.5 >= of_tuned for of_other, of_tuned in pairs)
    only_tuned = sum(of_tuned > 0.5 >= of_other for of_other, of_tuned in pairs)
    p = mcnemar_p(only_other, only_tuned, exact=True)
    ones = np.ones(len(pairs))
    vectors = [np.stack([np.asarray(side, dtype=float), ones], axis=1) for side in (other, tuned)]
    return PairedTest(
        method="exact McNemar",
        pairs=len(pairs),
        other=float(np.mean(other)),
        tuned=float(np.mean(tuned)),
        only_other=only_other,
        only_tuned=only_tuned,
        p=p,
        p_chi_square=mcnemar_p(only_other, only_tuned, exact=False),
        holm_p=p,
        difference=float(np.mean(np.subtract(tuned, other))),
        ci95=bootstrap_interval(vectors[0], vectors[1], ratio, seed=seed),
        mde=minimum_detectable_effect(len(pairs), (only_other + only_tuned) / len(pairs)),
        outcome="no evidence",
    )


def permutation_test(
    other: Contributions, tuned: Contributions, aggregate: Aggregate, *, seed: int
) -> PairedTest:
    """Compares any figure: were the arms alike, each question's answers could be exchanged."""
    if other.shape != tuned.shape or not len(other):
        raise ValueError(f"{len(other)} and {len(tuned)} scores are not pairs")
    generator = np.random.default_rng(seed)
    observed = float(aggregate(tuned.sum(axis=0)) - aggregate(other.sum(axis=0)))
    total, moved = (other + tuned).sum(axis=0), tuned - other
    as_far = 0
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        exchanged = generator.integers(2, size=(RESAMPLES_AT_ONCE, len(other))).astype(float)
        of_tuned = other.sum(axis=0) + exchanged @ moved
        found = aggregate(of_tuned) - aggregate(total - of_tuned)
        as_far += int((np.abs(found) >= abs(observed) - 1e-12).sum())
    p = (as_far + 1) / (RESAMPLES + 1)
    return PairedTest(
        method="paired permutation",
        pairs=len(other),
        other=float(aggregate(other.sum(axis=0))),
        tuned=float(aggregate(tuned.sum(axis=0))),
        only_other=None,
        only_tuned=None,
        p=p,
        p_chi_square=None,
        holm_p=p,
        difference=observed,
        ci95=bootstrap_interval(other, tuned, aggregate, seed=seed),
        mde=None,
        outcome="no evidence",
    )


def mcnemar_p(only_other: int, only_tuned: int, *, exact: bool) -> float:
    """P-value from the two counts of discordant pairs; the chi-square form is uncorrected."""
    if only_other + only_tuned == 0:
        return 1.0
    result = mcnemar([[0, only_other], [only_tuned, 0]], exact=exact, correction=False)
    return min(1.0, float(result.pvalue))


def bootstrap_interval(
    other: Contributions, tuned: Contributions, aggregate: Aggregate, *, seed: int
) -> tuple[float, float]:
    """95% percentile interval of tuned's figure minus the other's, questions resampled with all
    their answers."""
    found = [
        aggregate(times @ tuned) - aggregate(times @ other)
        for times in _resamples(len(other), seed)
    ]
    return _percentiles(np.concatenate(found))


def figure_interval(
    contributions: Contributions, aggregate: Aggregate, *, seed: int
) -> tuple[float, float] | None:
    """95% percentile interval of one figure, as `bootstrap_interval`. None where too many resamples
    have no figure (NaN), and without questions."""
    if not len(contributions):
        return None
    found = np.concatenate(
        [aggregate(times @ contributions) for times in _resamples(len(contributions), seed)]
    )
    defined = found[np.isfinite(found)]
    return _percentiles(defined) if len(defined) >= DEFINED_SHARE * len(found) else None


def _resamples(questions: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each question is drawn, (resamples, questions), some resamples at a time."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        yield generator.multinomial(
            questions, np.full(questions, 1 / questions), size=RESAMPLES_AT_ONCE
        ).astype(float)


def _percentiles(found: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def minimum_detectable_effect(pairs: int, discordant_share: float) -> float | None:
    """Solves n = (z(α/2)·√ψ + z(β)·√(ψ - δ²))² / δ² for δ (Connor, Biometrics 43, 1987).

    `discordant_share` is ψ; δ cannot exceed it. None where even δ = ψ would need more pairs.
    """
    if pairs < 1 or discordant_share <= 0:
        return None
    z_alpha = float(norm.ppf(1 - ALPHA / 2))
    z_beta = float(norm.ppf(POWER))

    def missing(delta: float) -> float:
        spread = z_beta * math.sqrt(max(0.0, discordant_share - delta**2))
        return delta * math.sqrt(pairs) - z_alpha * math.sqrt(discordant_share) - spread

    if missing(discordant_share) < 0:
        return None
    return float(brentq(missing, 0.0, discordant_share))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given (Holm, Scand. J. Statist. 6, 1979)."""
    if not p_values:
        return []
    adjusted = multipletests(list(p_values), alpha=ALPHA, method="holm")[1]
    return [float(p) for p in adjusted]


def adjusted(
    tests: Mapping[tuple[str, str], tuple[PairedTest, Direction]],
) -> dict[tuple[str, str], PairedTest]:
    """The tests of one report by metric and arm, with `holm_p` and `outcome` over all of them."""
    p_values = holm([test.p for test, _ in tests.values()])
    found = {}
    for (name, (test, direction)), holm_p in zip(tests.items(), p_values, strict=True):
        test = test.model_copy(update={"holm_p": holm_p})
        found[name] = test.model_copy(update={"outcome": outcome(test, direction)})
    return found


def outcome(test: PairedTest, direction: Direction) -> Outcome:
    """What a test comes to, by its Holm-adjusted p-value."""
    if test.holm_p < ALPHA:
        return "better" if (test.difference > 0) == (direction == "higher") else "worse"
    undetectable = bool(test.only_other or test.only_tuned) and test.mde is None
    if test.pairs < FEW_QUESTIONS or undetectable:
        return "too few questions"
    return "no evidence"


def pass_at_k(passed: int, of: int, k: int) -> float:
    """Chance that one of k answers passes, unbiased from `passed` of `of` (arXiv:2107.03374)."""
    if not 0 < k <= of:
        raise ValueError(f"{k} of {of} answers cannot be drawn")
    if of - passed < k:
        return 1.0
    return 1.0 - math.comb(of - passed, k) / math.comb(of, k)
