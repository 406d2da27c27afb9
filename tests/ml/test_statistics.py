"""Levels and power on simulated classes, and the arithmetic against values worked out otherwise."""

import math

import numpy as np
import pytest
from scipy import stats

from guard.core.pvalues import cauchy
from guard.ml.statistics import (
    angles,
    apart,
    clustered_wilson,
    leave_one_out,
    low_outliers,
    wilson,
)


def rate(hits: int, trials: int) -> str:
    return f"{hits} of {trials}"


@pytest.mark.row(24)
def test_wilson_is_the_textbook_interval() -> None:
    # papers/detection.md 7.8 gives these to three digits.
    assert wilson(190, 200) == pytest.approx((0.910, 0.973), abs=6e-4)
    assert wilson(36, 40) == pytest.approx((0.769, 0.960), abs=6e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="not a share"):
        wilson(3, 2)


def test_an_interval_of_clusters_covers_where_one_of_independent_trials_does_not() -> None:
    draw = np.random.default_rng(0)
    clustered, plain = 0, 0
    for _ in range(400):
        chances = draw.beta(0.6, 0.4, size=60)  # of clusters; their mean is 0.6
        hits = draw.binomial(5, chances).tolist()
        low, high = clustered_wilson(hits, 5)
        clustered += low <= 0.6 <= high
        low, high = wilson(sum(hits), 300)
        plain += low <= 0.6 <= high

    assert clustered >= 0.92 * 400
    assert plain <= 0.80 * 400


def test_clusters_of_one_or_without_a_hit_are_independent_trials() -> None:
    assert clustered_wilson([1, 0, 1, 0], 1) == wilson(2, 4)
    assert clustered_wilson([0] * 20, 5) == wilson(0, 100)
    assert clustered_wilson([], 5) == (0.0, 1.0)
    assert clustered_wilson([2, 3] * 10, 5) == pytest.approx(wilson(50, 100))
    with pytest.raises(ValueError, match="other than"):
        clustered_wilson([6], 5)


def test_leave_one_out_by_hand() -> None:
    values = [3.0, 3.2, 2.9, 3.1, 1.0, 3.3]
    others = np.array([3.0, 3.2, 2.9, 3.1, 3.3])
    t = (others.mean() - 1.0) / (others.std(ddof=1) * math.sqrt(1 + 1 / 5))

    found = leave_one_out(values)

    assert found.position == 4
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(6 * stats.t.sf(t, 4))
    assert found.fold == pytest.approx(math.exp(others.mean() - 1.0))


def test_the_high_side_is_the_low_side_mirrored() -> None:
    values = [0.2, 0.1, 0.4, 2.0, 0.3]

    assert leave_one_out(values, low_side=False) == leave_one_out([-value for value in values])
    assert leave_one_out(values, low_side=False).position == 3


@pytest.mark.parametrize(
    ("classes", "level", "trials"), [(10, 0.05, 8000), (10, 0.01, 30_000), (43, 0.05, 6000)]
)
def test_leave_one_out_holds_its_level_on_classes_without_an_outlier(
    classes: int, level: float, trials: int
) -> None:
    """papers/detection.md 7.11 (i): within a fifth of the level.

    Chance alone moves it by a sixteenth.
    """
    rng = np.random.default_rng(0)

    hits = sum(
        leave_one_out(rng.normal(size=classes).tolist(), floor=0.0).p <= level
        for _ in range(trials)
    )

    assert hits / trials == pytest.approx(level, rel=0.2), rate(hits, trials)


@pytest.mark.parametrize("classes", [8, 10, 12])
def test_the_test_for_several_outliers_holds_its_level_nearly(classes: int) -> None:
    rng, trials, level = np.random.default_rng(1), 500, 0.05

    hits = sum(
        any(
            test.outlier
            for test in low_outliers(rng.normal(size=classes).tolist(), alpha=level, floor=0.0)
        )
        for _ in range(trials)
    )

    # Rosner's approximation is a little liberal for few classes: up to 1.4 times at eight.
    assert hits <= stats.binom.ppf(0.999, trials, 1.4 * level), rate(hits, trials)


def test_power_is_as_tabulated() -> None:
    """papers/detection.md section 1.

    A shift of 6 SD at p < .01 and ten classes is found in 82 %.
    """
    rng, trials = np.random.default_rng(2), 400

    samples = [np.append(rng.normal(size=9), rng.normal() - 6.0) for _ in range(trials)]
    hits = sum(leave_one_out(sample.tolist(), floor=0.0).p < 0.01 for sample in samples)

    assert 0.75 <= hits / trials <= 0.89


def test_two_infected_classes_do_not_hide_each_other() -> None:
    rng = np.random.default_rng(3)
    values = [*rng.normal(4.0, 0.3, 8), 1.0, 1.1]

    assert leave_one_out(values).p > 0.01
    tests = low_outliers(values)

    assert [index for index, test in enumerate(tests) if test.outlier] == [8, 9]
    assert all(test.p <= 0.01 and test.fold > 5 for test in tests[8:])
    assert all(test.p > 0.01 for test in tests[:8])


def test_more_outliers_than_a_quarter_are_not_declared() -> None:
    tests = low_outliers([4.0, 4.1, 3.9, 4.05, 3.95, 1.0, 1.05, 0.95])

    assert sum(test.outlier for test in tests) <= 2


def test_with_one_outlier_both_tests_agree() -> None:
    values = [3.0, 3.2, 2.9, 3.1, 1.0, 3.3]

    single, several = leave_one_out(values), low_outliers(values, most=1)

    assert [test.outlier for test in several] == [False, False, False, False, True, False]
    assert (several[4].t, several[4].p, several[4].fold) == pytest.approx(
        (single.t, single.p, single.fold)
    )


def test_siblings_that_agree_perfectly_do_not_make_a_speck_an_outlier() -> None:
    # All censored at one norm: without a floor any difference would be infinitely significant.
    censored = [math.log(784.0)] * 9

    assert leave_one_out([*censored, math.log(700.0)]).p > 0.01
    assert leave_one_out([*censored, math.log(20.0)]).p < 1e-6
    assert math.isfinite(leave_one_out([*censored, math.log(20.0)]).t)
    assert leave_one_out([1.0] * 5).p == 1.0


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], [1.0, 2.0, float("nan"), 3.0], [1.0, math.inf, 2.0, 3.0]]
)
def test_what_cannot_be_tested_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        leave_one_out(values)
    with pytest.raises(ValueError, match="values"):
        low_outliers(values)


def test_four_classes_are_too_few_for_the_outlier_test() -> None:
    with pytest.raises(ValueError, match="too few"):
        low_outliers([1.0, 2.0, 3.0, 4.0])


def test_the_combination_holds_its_level_for_dependent_tests() -> None:
    rng, trials, level = np.random.default_rng(4), 3000, 0.01
    common = rng.normal(size=(trials, 1))
    correlated = np.sqrt(0.6) * common + np.sqrt(0.4) * rng.normal(size=(trials, 2))

    hits = sum(cauchy(list(row)) <= level for row in stats.norm.sf(correlated))

    assert hits <= stats.binom.ppf(0.999, trials, 1.2 * level), rate(hits, trials)


def test_angles_of_shares_grow_and_their_error_is_the_same_everywhere() -> None:
    found = angles([0, 50, 100], [100, 100, 100])
    rng = np.random.default_rng(5)
    errors = [
        np.std(angles(rng.binomial(100, share, 2000).tolist(), [100] * 2000))
        for share in (0.1, 0.5, 0.9)
    ]

    assert found == sorted(found)
    assert found[1] == pytest.approx(math.pi / 4)
    assert errors == pytest.approx([0.05] * 3, rel=0.1)


def test_a_class_alone_is_tested_exactly_as_a_new_value_of_its_siblings() -> None:
    values = [0.1, 0.3, 0.2, 0.25, 0.9, 0.15]
    others = values[:4] + values[5:]
    found = apart(values, low_side=False, floor=0.0)[4]
    t = (0.9 - np.mean(others)) / (np.std(others, ddof=1) * math.sqrt(1 + 1 / 5))

    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(stats.t.sf(t, 4))
    assert found.gap == pytest.approx(0.9 - np.mean(others))


def test_what_a_covariate_explains_is_no_sign_and_what_it_does_not_is() -> None:
    near = [-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, -0.9, -0.7]
    noise = [0.01, -0.02, 0.0, 0.02, -0.01, 0.0, 0.01, -0.01]
    honest = [2 + near[row] + noise[row] for row in range(8)]
    bad = [
        value + (0.5 if row == 6 else 0.0) for row, value in enumerate(honest)
    ]  # still below the largest one
    plain = apart(bad, low_side=False)
    by_line = apart(bad, explained=near, low_side=False)

    assert min(test.p for test in apart(honest, explained=near, low_side=False)) > 0.05
    assert plain[6].p > 0.2
    assert by_line[6].p < 0.001
    assert by_line[6].gap == pytest.approx(0.5, abs=0.05)
    reversed_meaning = apart(bad, explained=[-value for value in near], low_side=False)
    assert reversed_meaning[6].gap == pytest.approx(
        plain[6].gap
    )  # a slope the wrong way counts as none


@pytest.mark.parametrize("line", [False, True])
def test_a_class_alone_keeps_its_level(line: bool) -> None:
    rng, trials = np.random.default_rng(8), 400
    found = []
    for _ in range(trials):
        near = rng.normal(size=10)
        values = rng.normal(size=10) + (2 * near if line else 0)
        found += [
            test.p
            for test in apart(
                values.tolist(),
                explained=near.tolist() if line else None,
                low_side=False,
                floor=0.0,
            )
        ]
    hits = sum(p <= 0.05 for p in found)

    assert 0.03 <= hits / len(found) <= 0.075, rate(hits, len(found))


def test_two_outliers_do_not_mask_one_another() -> None:
    values = [0.0, 0.1, -0.1, 0.05, -0.05, 0.02, 0.08, -0.03, 5.0, 6.0]
    tests = apart(values, low_side=False)

    assert tests[8].p < 1e-6
    assert tests[9].p < 1e-6
    assert min(test.p for test in tests[:8]) > 0.02


def test_too_few_classes_for_a_line_or_a_test_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        apart([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="too few"):
        apart([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], explained=[0.0] * 6)
