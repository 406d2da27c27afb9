import math

import pytest
from scipy import stats

from guard.graphs.rates import fisher, lift


def test_a_lift_is_a_difference_of_log_odds() -> None:
    assert lift(10, 100, 10, 100) == 0
    assert lift(50, 100, 1, 100) == pytest.approx(math.log(99.5 / 1.5))
    assert lift(0, 10, 5, 10) < 0


def test_fishers_test_is_one_sided() -> None:
    assert fisher(3, 3, 0, 3) == pytest.approx(1 / 20)
    assert fisher(0, 3, 3, 3) == pytest.approx(1.0)
    table = [[31, 900 - 31], [12, 1100 - 12]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert fisher(31, 900, 12, 1100) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", [(-1, 3, 0, 3), (0, 3, 4, 3)])
def test_what_is_no_share_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="not a share"):
        lift(*counts)
    with pytest.raises(ValueError, match="not a share"):
        fisher(*counts)
