"""How far people, or people and a judge, agree beyond chance.

Called by `ratings` and `agreement`. Both figures are functions of sums over questions, as
`statistics` resamples them; where a figure is not defined it is NaN.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thinktune.tasks.evaluate.statistics import Aggregate

Weights = Literal["none", "quadratic"]


def coincidences(units: Sequence[Sequence[int]], values: int) -> NDArray[np.float64]:
    """Pairs of values within units, as Krippendorff counts them: (values²,), row by row.

    A unit is all values from 0 to `values` - 1 that people gave to one answer; each of its pairs
    weighs 1 / (its values - 1), so that a unit weighs as much as it has values.
    """
    found = np.zeros((values, values))
    for unit in units:
        if len(unit) < 2:
            continue
        counts = np.bincount(unit, minlength=values).astype(float)
        found += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return found.reshape(-1)


def ordinal_alpha(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Krippendorff's α for ordinal data, (…), from coincidences, (…, values²).

    Two values differ by the square of the number of values between them, half of either's included
    (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).
    """
    pairs = _square(sums)
    counts = pairs.sum(axis=-1)
    middles = np.cumsum(counts, axis=-1) - counts / 2
    distances = (middles[..., :, None] - middles[..., None, :]) ** 2
    observed = (pairs * distances).sum(axis=(-2, -1))
    expected = (counts[..., :, None] * counts[..., None, :] * distances).sum(axis=(-2, -1))
    return _one_minus(observed * (counts.sum(axis=-1) - 1), expected)


def cohens_kappa(values: int, weights: Weights) -> Aggregate:
    """Cohen's κ, (…), of a table of two judges' verdicts, (…, values²), row by row; with quadratic
    weights, verdicts differ by the square of their difference (Cohen, Psychol. Bull. 70, 1968)."""
    steps = np.arange(values)
    apart = np.abs(steps[:, None] - steps[None, :])
    distances = (apart**2 if weights == "quadratic" else apart != 0).astype(float)

    def kappa(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        table = _square(sums)
        by_row, by_column = table.sum(axis=-1), table.sum(axis=-2)
        observed = (table * distances).sum(axis=(-2, -1))
        chance = by_row[..., :, None] * by_column[..., None, :]
        return _one_minus(
            observed * table.sum(axis=(-2, -1)), (chance * distances).sum(axis=(-2, -1))
        )

    return kappa


def _square(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    values = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], values, values)


def _one_minus(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    nothing = np.full_like(np.asarray(expected, dtype=float), np.nan)
    figure: NDArray[np.float64] = 1 - np.divide(observed, expected, out=nothing, where=expected > 0)
    return figure
