import numpy as np
import pytest
from numpy.typing import NDArray

from thinktune.schema.report import PairedTest
from thinktune.tasks.evaluate.statistics import (
    adjusted,
    bootstrap_interval,
    figure_interval,
    holm,
    mcnemar_p,
    mcnemar_test,
    minimum_detectable_effect,
    outcome,
    pass_at_k,
    permutation_test,
    ratio,
)


def test_the_published_table_says_which_test() -> None:
    """326 questions: the final line .043 → .997, right answers .181 → .132. The reference printed
    p = .039, which is the uncorrected chi-square of 38 against 22; the exact p is .052."""
    assert round(mcnemar_p(38, 22, exact=True), 3) == 0.052
    assert round(mcnemar_p(38, 22, exact=False), 3) == 0.039
    base = [1.0] * 38 + [0.0] * 22 + [1.0] * 21 + [0.0] * 245
    tuned = [0.0] * 38 + [1.0] * 22 + [1.0] * 21 + [0.0] * 245
    assert (round(sum(base) / 326, 3), round(sum(tuned) / 326, 3)) == (0.181, 0.132)
    result = mcnemar_test(base, tuned, seed=0)
    assert (result.pairs, result.only_other, result.only_tuned) == (326, 38, 22)
    assert result.difference == pytest.approx(-16 / 326)
    assert result.ci95 == pytest.approx((-0.095, -0.003), abs=0.004)
    assert result.mde is not None and 0.06 < result.mde < 0.07
    assert result.p_chi_square == pytest.approx(0.0389, abs=1e-4)
    line = mcnemar_test([1.0] * 14 + [0.0] * 312, [1.0] * 325 + [0.0], seed=0)
    tests = adjusted({("line", "base"): (line, "higher"), ("right", "base"): (result, "higher")})
    assert tests["line", "base"].outcome == "better"
    assert tests["right", "base"].outcome == "no evidence"  # the exact p decides


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 10, 2 / 1024)])
def test_mcnemar_at_the_edges(b: int, c: int, p: float) -> None:
    assert mcnemar_p(b, c, exact=True) == pytest.approx(p)


def test_several_samples_pair_on_the_majority_and_average_the_difference() -> None:
    result = mcnemar_test([0.25, 0.5, 1.0], [0.75, 0.75, 1.0], seed=0)
    assert (result.only_other, result.only_tuned) == (0, 2)  # a tie fails
    assert result.difference == pytest.approx(0.25)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        mcnemar_test([1.0], [], seed=0)
    with pytest.raises(ValueError, match="not pairs"):
        mcnemar_test([], [], seed=0)
    with pytest.raises(ValueError, match="not pairs"):
        permutation_test(np.ones((2, 2)), np.ones((3, 2)), ratio, seed=0)


def means(scores: list[float]) -> np.ndarray:
    return np.array([[score, 1.0] for score in scores])


def test_bootstrap_repeats_with_its_seed() -> None:
    other, tuned = means([0.0] * 7), means([1.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0])
    found = [bootstrap_interval(other, tuned, ratio, seed=3) for _ in range(2)]
    assert found[0] == found[1]
    low, high = found[0]
    assert -1 <= low < 2 / 7 < high <= 1
    assert bootstrap_interval(means([0.0]), means([0.5]), ratio, seed=0) == (0.5, 0.5)


def test_bootstrap_of_a_mean_is_the_textbook_s() -> None:
    draws = np.random.default_rng(5).normal(0.3, 1.0, 400)
    low, high = bootstrap_interval(means([0.0] * 400), means(list(draws)), ratio, seed=1)
    half = 1.96 * draws.std() / 20
    assert low == pytest.approx(draws.mean() - half, abs=0.01)
    assert high == pytest.approx(draws.mean() + half, abs=0.01)


def test_the_interval_of_one_figure_is_that_of_its_difference_from_nothing() -> None:
    scores = np.random.default_rng(0).normal(0.5, 0.2, size=400)
    parts = np.stack([scores, np.ones(400)], axis=1)
    nothing = np.stack([np.zeros(400), np.ones(400)], axis=1)
    found = figure_interval(parts, ratio, seed=3)
    assert found == pytest.approx(bootstrap_interval(nothing, parts, ratio, seed=3))


def test_a_figure_that_many_resamples_lack_has_no_interval() -> None:
    def undefined_without_first(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(sums[..., 1] > 0, sums[..., 0], np.nan)

    parts = np.ones((20, 2))
    parts[1:, 1] = 0  # a third of the resamples lack the first question
    assert figure_interval(parts, undefined_without_first, seed=0) is None
    parts[:10, 1] = 1
    assert figure_interval(parts, undefined_without_first, seed=0) == (20.0, 20.0)
    assert figure_interval(np.zeros((0, 2)), ratio, seed=0) is None


def test_permutation_agrees_with_counting_by_hand() -> None:
    """Four questions, each one point better: of 16 exchanges two are as extreme."""
    result = permutation_test(means([1, 2, 3, 4]), means([2, 3, 4, 5]), ratio, seed=0)
    assert result.p == pytest.approx(2 / 16, abs=0.01)
    assert result.difference == pytest.approx(1.0)
    same = permutation_test(means([1, 2]), means([1, 2]), ratio, seed=0)
    assert (same.p, same.difference, same.ci95) == (1.0, 0.0, (0.0, 0.0))


@pytest.mark.parametrize(("share", "points"), [(0.10, 5), (0.20, 7), (0.30, 9)])
def test_minimum_detectable_effect_at_326_questions(share: float, points: int) -> None:
    effect = minimum_detectable_effect(326, share)
    assert effect is not None
    assert points - 1 < 100 * effect <= points


def test_minimum_detectable_effect_may_not_exist() -> None:
    assert minimum_detectable_effect(326, 0.0) is None
    assert minimum_detectable_effect(0, 0.5) is None
    assert minimum_detectable_effect(10, 0.1) is None


def test_holm() -> None:
    assert holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.03]) == pytest.approx([0.03])
    assert holm([]) == []


def of(better: int, worse: int, pairs: int) -> PairedTest:
    same = pairs - better - worse
    base = [0.0] * better + [1.0] * worse + [1.0] * same
    tuned = [1.0] * better + [0.0] * worse + [1.0] * same
    return mcnemar_test(base, tuned, seed=0)


def test_holm_over_the_tests_of_a_report() -> None:
    tests = {("a", "base"): of(9, 0, 9), ("b", "base"): of(6, 0, 9)}
    assert [test.holm_p for test in tests.values()] == [test.p for test in tests.values()]
    found = adjusted({name: (test, "higher") for name, test in tests.items()})
    expected = holm([test.p for test in tests.values()])
    assert [test.holm_p for test in found.values()] == expected
    assert found["a", "base"].holm_p > found["a", "base"].p


def test_what_a_test_comes_to() -> None:
    assert outcome(of(30, 2, 100), "higher") == "better"
    assert outcome(of(30, 2, 100), "lower") == "worse"
    assert outcome(of(2, 30, 100), "higher") == "worse"
    assert outcome(of(10, 8, 100), "higher") == "no evidence"
    assert outcome(of(0, 0, 100), "higher") == "no evidence"
    assert outcome(of(3, 2, 20), "higher") == "too few questions"
    assert outcome(of(2, 0, 40), "higher") == "too few questions"  # no difference could show


@pytest.mark.parametrize(
    ("passed", "of", "k", "chance"), [(1, 4, 1, 0.25), (1, 4, 2, 0.5), (3, 4, 2, 1.0), (0, 4, 4, 0)]
)
def test_pass_at_k(passed: int, of: int, k: int, chance: float) -> None:
    assert pass_at_k(passed, of, k) == pytest.approx(chance)


def test_pass_at_k_of_too_few() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        pass_at_k(1, 4, 5)
