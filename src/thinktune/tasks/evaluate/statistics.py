"""Whether base and tuned differ: paired tests over the same questions. Called by `report.build`."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from thinktune.schema.report import PairedTest

ALPHA = 0.05
"""Two-sided level of every test and of the intervals."""
POWER = 0.80
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 250
"""Bounds the memory of the bootstrap: this many index vectors at a time."""


def paired_test(base: Sequence[float], tuned: Sequence[float], *, seed: int) -> PairedTest:
    """Compares two scores per question, in the same order, each the mean over its samples.

    McNemar needs one verdict per question: a question passes where more than half of its samples
    do (a tie fails). The difference and its interval use the means themselves. `holm_p` is that of
    one test alone; `holm_adjusted` makes it that of several.
    """
    if len(base) != len(tuned) or not base:
        raise ValueError(f"{len(base)} base and {len(tuned)} tuned scores are not pairs")
    only_base = sum(
        of_base > 0.5 >= of_tuned for of_base, of_tuned in zip(base, tuned, strict=True)
    )
    only_tuned = sum(
        of_tuned > 0.5 >= of_base for of_base, of_tuned in zip(base, tuned, strict=True)
    )
    p_exact = mcnemar_p(only_base, only_tuned, exact=True)
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    return PairedTest(
        pairs=len(base),
        only_base=only_base,
        only_tuned=only_tuned,
        p_exact=p_exact,
        p_chi_square=mcnemar_p(only_base, only_tuned, exact=False),
        holm_p=p_exact,
        difference=float(differences.mean()),
        ci95=bootstrap_interval(differences.tolist(), seed=seed),
        mde=minimum_detectable_effect(len(base), (only_base + only_tuned) / len(base)),
    )


def mcnemar_p(only_base: int, only_tuned: int, *, exact: bool) -> float:
    """P-value from the two counts of discordant pairs; the chi-square form is uncorrected."""
    if only_base + only_tuned == 0:
        return 1.0
    result = mcnemar([[0, only_base], [only_tuned, 0]], exact=exact, correction=False)
    return min(1.0, float(result.pvalue))


def bootstrap_interval(differences: Sequence[float], *, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean of paired differences, questions resampled."""
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


def holm_adjusted(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """The tests of one report, with `holm_p` over all of them, in the order given."""
    adjusted = holm([test.p_exact for test in tests])
    return [test.model_copy(update={"holm_p": p}) for test, p in zip(tests, adjusted, strict=True)]
