"""P values.

Each formula against SciPy or its definition, and the levels of combinations on simulated nulls.
"""

import math
import random
from collections.abc import Callable
from statistics import NormalDist

import pytest
from scipy import stats

from guard.core.pvalues import cauchy, exact_upper, fisher, mcnemar, sidak


def levels(correlation: float, level: float, trials: int = 20_000) -> float:
    """How often the combination of eight null p values is at most `level`.

    Normals share `correlation`.
    """
    rng, normal = random.Random(7), NormalDist()
    common, own = math.sqrt(correlation), math.sqrt(1 - correlation)
    hits = 0
    for _ in range(trials):
        shared = rng.gauss(0, 1)
        hits += (
            cauchy([normal.cdf(common * shared + own * rng.gauss(0, 1)) for _ in range(8)]) <= level
        )
    return hits / trials


@pytest.mark.parametrize(
    ("correlation", "level"), [(0.0, 0.05), (0.0, 0.01), (0.5, 0.01), (0.9, 0.01)]
)
def test_the_combined_p_keeps_its_level(correlation: float, level: float) -> None:
    assert levels(correlation, level) == pytest.approx(level, rel=0.2)


def test_at_larger_levels_dependence_makes_it_liberal_which_is_why_policies_use_one_percent() -> (
    None
):
    assert 0.05 < levels(0.5, 0.05) < 0.07


def test_the_combination_of_equal_p_values_is_that_value() -> None:
    assert cauchy([0.03, 0.03, 0.03]) == pytest.approx(0.03)
    assert cauchy([0.2]) == pytest.approx(0.2)


def test_one_certain_test_carries_and_p_of_one_does_not_ruin_it() -> None:
    assert cauchy([1e-4, 1.0]) < 3e-4
    assert math.isfinite(cauchy([0.0, 1.0]))


@pytest.mark.parametrize("values", [[0.3], [0.04, 0.2], [1.0, 1.0, 1.0], [0.5, 0.001, 0.2, 0.9]])
def test_it_is_fishers_method(values: list[float]) -> None:
    assert fisher(values) == pytest.approx(stats.combine_pvalues(values, method="fisher").pvalue)


@pytest.mark.parametrize("combine", [cauchy, fisher])
@pytest.mark.parametrize("values", [[], [1.1], [math.nan], [-0.1]])
def test_what_is_no_p_value_is_not_combined(
    combine: Callable[[list[float]], float], values: list[float]
) -> None:
    with pytest.raises(ValueError, match="p values"):
        combine(values)


def test_the_least_of_many_is_corrected_exactly_for_independent_classes() -> None:
    assert sidak(0.02, 10) == pytest.approx(1 - 0.98**10)
    assert sidak(1e-14, 10) == pytest.approx(1e-13)
    assert sidak(1.0, 10) == 1.0


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (190, 200), (36, 40), (7, 7)])
def test_the_bound_is_the_exact_one_and_grows_with_the_looks(hits: int, trials: int) -> None:
    for looks in (1, 8):
        exact = stats.binomtest(hits, trials).proportion_ci(1 - 0.05 / looks, method="exact").high
        assert exact_upper(hits, trials, error=0.05, looks=looks) == pytest.approx(exact, abs=1e-9)
    assert exact_upper(hits, trials, error=0.05, looks=8) >= exact_upper(hits, trials, error=0.05)


@pytest.mark.parametrize(("hits", "trials", "looks"), [(-1, 5, 1), (6, 5, 1), (1, 5, 0)])
def test_impossible_counts_make_no_bound(hits: int, trials: int, looks: int) -> None:
    with pytest.raises(ValueError, match="no bound"):
        exact_upper(hits, trials, error=0.05, looks=looks)


def test_eight_bounds_hold_together_as_often_as_they_should() -> None:
    rng = random.Random(3)
    rates, runs, broken = [0.05, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.6], 1500, 0
    bounds = [exact_upper(hits, 120, error=0.05, looks=8) for hits in range(121)]
    for _ in range(runs):
        counts = [sum(rng.random() < rate for _ in range(120)) for rate in rates]
        broken += any(rate > bounds[hits] for rate, hits in zip(rates, counts, strict=True))

    assert broken / runs <= 0.025 + 3 * math.sqrt(0.025 / runs)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 1), (9, 0), (2, 7)])
def test_mcnemar_is_a_one_sided_sign_test(lost: int, gained: int) -> None:
    swaps = lost + gained
    exact = stats.binomtest(lost, swaps, alternative="greater").pvalue if swaps else 1.0
    assert mcnemar(lost, gained) == pytest.approx(exact)
