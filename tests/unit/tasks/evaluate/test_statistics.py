import pytest

from thinktune.tasks.evaluate.statistics import (
    bootstrap_interval,
    holm,
    holm_adjusted,
    mcnemar_p,
    minimum_detectable_effect,
    paired_test,
)


def test_published_pairs_say_which_test() -> None:
    # 326 questions, 38 that only the base and 22 that only the tuned model answers.
    assert round(mcnemar_p(38, 22, exact=True), 3) == 0.052
    assert round(mcnemar_p(38, 22, exact=False), 3) == 0.039
    base = [1.0] * 38 + [0.0] * 22 + [1.0] * 21 + [0.0] * 245
    tuned = [0.0] * 38 + [1.0] * 22 + [1.0] * 21 + [0.0] * 245
    result = paired_test(base, tuned, seed=0)
    assert (result.pairs, result.only_base, result.only_tuned) == (326, 38, 22)
    assert result.difference == pytest.approx(-16 / 326)
    assert result.ci95 == pytest.approx((-0.095, -0.003), abs=0.004)
    assert result.mde is not None and 0.06 < result.mde < 0.07


@pytest.mark.parametrize(("b", "c", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 10, 2 / 1024)])
def test_mcnemar_at_the_edges(b: int, c: int, p: float) -> None:
    assert mcnemar_p(b, c, exact=True) == pytest.approx(p)


def test_several_samples_pair_on_the_majority_and_average_the_difference() -> None:
    result = paired_test([0.25, 0.5, 1.0], [0.75, 0.75, 1.0], seed=0)
    assert (result.only_base, result.only_tuned) == (0, 2)  # a tie fails
    assert result.difference == pytest.approx(0.25)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        paired_test([1.0], [], seed=0)
    with pytest.raises(ValueError, match="not pairs"):
        paired_test([], [], seed=0)


def test_bootstrap_repeats_with_its_seed() -> None:
    differences = [1.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0]
    assert bootstrap_interval(differences, seed=3) == bootstrap_interval(differences, seed=3)
    low, high = bootstrap_interval(differences, seed=3)
    assert -1 <= low < sum(differences) / 7 < high <= 1
    assert bootstrap_interval([0.5], seed=0) == (0.5, 0.5)


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


def test_holm_over_the_tests_of_a_report() -> None:
    tests = [paired_test([0.0] * 9, [1.0] * n + [0.0] * (9 - n), seed=0) for n in (9, 6)]
    assert [test.holm_p for test in tests] == [test.p_exact for test in tests]
    adjusted = holm_adjusted(tests)
    assert [test.holm_p for test in adjusted] == holm([test.p_exact for test in tests])
    assert adjusted[0].holm_p > adjusted[0].p_exact
