"""α and κ against published examples, against their definitions, and where they are not defined."""

import math
import random
from itertools import combinations, permutations

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa as reference_kappa

from thinktune.tasks.evaluate.people.reliability import (
    Weights,
    cohens_kappa,
    coincidences,
    ordinal_alpha,
)

BINARY = ["0100000010", "1110010000"]
"""Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), A: two observers, α 0.095. With
two values, a metric makes no difference."""
FOUR_OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
"""The same, C and D: four observers, five values, missing data; ordinal α 0.815."""


def units(observers: list[str], lowest: int) -> list[list[int]]:
    return [
        [int(value) - lowest for value in unit if value != "."]
        for unit in zip(*observers, strict=True)
    ]


def alpha(of: list[list[int]], values: int = 5) -> float:
    return float(ordinal_alpha(coincidences(of, values)))


def test_krippendorff_s_examples() -> None:
    assert alpha(units(BINARY, 0), 2) == pytest.approx(0.095, abs=5e-4)
    assert alpha(units(FOUR_OBSERVERS, 1)) == pytest.approx(0.815, abs=5e-4)


def test_the_coincidences_of_the_example() -> None:
    """The matrix that the paper prints: 9 values of 1, 13 of 2, 10 of 3, 5 of 4, 3 of 5."""
    found = coincidences(units(FOUR_OBSERVERS, 1), 5).reshape(5, 5)
    assert found.sum(axis=1).tolist() == pytest.approx([9, 13, 10, 5, 3])
    assert found[0].tolist() == pytest.approx([7, 4 / 3, 1 / 3, 1 / 3, 0], abs=1e-9)


def by_definition(of: list[list[int]]) -> float:
    """1 - observed/expected disagreement, pair by pair, as the definition has it."""
    pairable = [unit for unit in of if len(unit) > 1]
    every = [value for unit in pairable for value in unit]
    counts = [every.count(value) for value in range(5)]

    def distance(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        return float((sum(counts[low : high + 1]) - (counts[low] + counts[high]) / 2) ** 2)

    observed = sum(
        distance(a, b) / (len(unit) - 1) for unit in pairable for a, b in permutations(unit, 2)
    ) / len(every)
    expected = sum(distance(a, b) for a, b in combinations(every, 2)) * 2
    return 1 - observed / (expected / (len(every) * (len(every) - 1)))


@pytest.mark.parametrize("seed", range(20))
def test_alpha_is_what_its_definition_says(seed: int) -> None:
    drawn = random.Random(seed)
    of = [[drawn.randrange(5) for _ in range(drawn.randrange(5))] for _ in range(30)]
    assert alpha(of) == pytest.approx(by_definition(of))


def test_full_agreement_chance_and_opposition() -> None:
    assert alpha([[n % 5, n % 5] for n in range(20)]) == 1
    drawn = random.Random(3)
    assert abs(alpha([[drawn.randrange(5), drawn.randrange(5)] for _ in range(4000)])) < 0.04
    assert alpha([[0, 4], [4, 0], [0, 4]]) < 0


def test_where_alpha_is_not_defined() -> None:
    assert math.isnan(alpha([[2, 2], [2, 2]]))
    assert math.isnan(alpha([[1], [2]]))
    assert math.isnan(alpha([]))


def kappa(table: list[list[int]], weights: Weights = "none") -> float:
    sums = np.asarray(table, dtype=float).reshape(-1)
    return float(cohens_kappa(len(table), weights)(sums))


def test_published_kappas() -> None:
    """Two readers of 50 proposals (κ 0.40), and the two tables that differ in marginals only."""
    assert kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)
    assert kappa([[45, 15], [25, 15]]) == pytest.approx(0.1304, abs=5e-5)
    assert kappa([[25, 35], [5, 35]]) == pytest.approx(0.2593, abs=5e-5)


@pytest.mark.parametrize("weights", ["none", "quadratic"])
@pytest.mark.parametrize("seed", range(5))
def test_kappas_of_statsmodels(weights: Weights, seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 30, size=(5, 5))
    expected = reference_kappa(table, wt=None if weights == "none" else weights)
    assert kappa(table.tolist(), weights) == pytest.approx(float(expected.kappa))


def test_where_kappa_is_not_defined() -> None:
    assert math.isnan(kappa([[0, 0], [0, 7]]))
    assert math.isnan(kappa([[0, 0], [0, 0]]))
    assert kappa([[0, 3], [0, 4]]) == 0
