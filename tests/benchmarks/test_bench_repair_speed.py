"""The straightforward SAU is the same method: what differs is what it costs."""

import copy

import pytest

from benchmarks.bench_repair_speed import straightforward
from benchmarks.speed_words import repairs
from guard.defenses.sau import Sau
from tests import toys


@pytest.mark.parametrize("rho", [0.05, 0.3])
def test_both_ways_have_the_same_loss(rho: float) -> None:
    model, data = toys.planted(), toys.labelled(60, 4)
    reference = copy.deepcopy(model)
    sau = Sau(rho=rho)

    ours = sau.loss(model, reference, data.floats(), data.labels)
    plain = straightforward(sau, model, reference, data.floats(), data.labels)

    assert float(ours) == pytest.approx(float(plain), rel=1e-4)


def test_a_defense_that_gave_up_has_no_memory() -> None:
    words = repairs({"images": 8, "batch": 4, "sau_ratio": 0.4, "peak_over_fine_tuning": {"sau": 1.5, "tsbd": None}})

    assert "takes 0.40 of the processor time" in words
    assert "| sau | 1.50 |\n| tsbd | – |" in words
