"""Whether base and tuned differ: paired tests over the same questions. `report` calls this."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05
"""Two-sided level of every test and of the intervals."""
POWER = 0.80
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 250
"""Bounds the memory of the bootstrap: this many index vectors at a time."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Base against tuned on one metric."""

    pairs: int
    """Questions."""
    b: int
    """Questions that only the base model passes."""
    c: int
    """Questions that only the tuned model passes."""
    p_exact: float
    """Exact McNemar test (binomial on the discordant pairs), two-sided."""
    p_chi_square: float
    """Uncorrected chi-square form of the same test; shown for comparison, never decides."""
    difference: float
    """Mean of tuned minus mean of base, as a fraction of 1."""
    ci95: tuple[float, float]
    """95 % interval of the difference: paired bootstrap over questions, percentiles."""
    mde: float | None
    """Smallest true difference that this many questions would show in 80 % of repetitions, at
    the observed share of discordant pairs; None where no difference that small would."""


def paired_test(base: Sequence[float], tuned: Sequence[float], *, seed: int) -> PairedTest:
    """Compares two scores per question, in the same order, each the mean over its samples.

    McNemar needs one verdict per question: a question passes where more than half of its samples
    do (a tie fails). The difference and its interval use the means themselves.
    """
    if len(base) != len(tuned) or not base:
        raise ValueError(f"{len(base)} base and {len(tuned)} tuned scores are not pairs")
    b = sum(x > 0.5 >= y for x, y in zip(base, tuned, strict=True))
    c = sum(y > 0.5 >= x for x, y in zip(base, tuned, strict=True))
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    return PairedTest(
        pairs=len(base),
        b=b,
        c=c,
        p_exact=mcnemar_p(b, c, exact=True),
        p_chi_square=mcnemar_p(b, c, exact=False),
        difference=float(differences.mean()),
        ci95=bootstrap_interval(differences.tolist(), seed=seed),
        mde=minimum_detectable_effect(len(base), (b + c) / len(base)),
    )


def mcnemar_p(b: int, c: int, *, exact: bool) -> float:
    """P-value from the two counts of discordant pairs; the chi-square form is uncorrected."""
    if b + c == 0:
        return 1.0
    result = mcnemar([[0, b], [c, 0]], exact=exact, correction=False)
    return min(1.0, float(result.pvalue))


def bootstrap_interval(differences: Sequence[float], *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of paired differences, questions resampled."""
    values = np.asarray(differences, dtype=float)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(RESAMPLES_AT_ONCE, len(values)))].mean(
                axis=1
            )
            for _ in range(RESAMPLES // RESAMPLES_AT_ONCE)
        ]
    )
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def minimum_detectable_effect(pairs: int, discordant_share: float) -> float | None:
    """Solves n = (z(α/2)·√ψ + z(β)·√(ψ - δ²))² / δ² for δ (Connor, Biometrics 43, 1987).

    `discordant_share` is ψ; δ cannot exceed it. None where even δ = ψ would need more pairs.
    """
    if pairs < 1 or discordant_share <= 0:
        return None
    z_alpha, z_beta = float(norm.ppf(1 - ALPHA / 2)), float(norm.ppf(POWER))

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
