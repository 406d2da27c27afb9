"""A seeded region repeats itself and leaves the world as it found it."""

import random

import numpy as np
import pytest
import torch

from guard.ml.seeds import seeded


def draws() -> tuple[float, float, float]:
    return float(torch.rand(1)), random.random(), float(np.random.rand())


def test_the_same_seed_gives_the_same_draws() -> None:
    with seeded(5) as one:
        first = (*draws(), float(torch.rand(1, generator=one)))
    with seeded(5) as two:
        second = (*draws(), float(torch.rand(1, generator=two)))
    with seeded(6):
        third = draws()

    assert first == second
    assert first[:3] != third


def test_draws_outside_go_on_as_if_nothing_had_happened() -> None:
    with seeded(1):
        expected = (draws(), draws())
    with seeded(1):
        before = draws()
        with seeded(2):
            draws()
        after = draws()

    assert (before, after) == expected


def test_an_error_restores_the_state_too() -> None:
    with seeded(1):
        expected = draws()
    with seeded(1):
        with pytest.raises(ZeroDivisionError), seeded(2):
            sum(draws()) / 0
        assert draws() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_devices_state_is_restored() -> None:
    torch.zeros(1, device="cuda")
    with seeded(1):
        expected = float(torch.rand(1, device="cuda"))
    with seeded(1):
        with seeded(2):
            torch.rand(1, device="cuda")
        assert float(torch.rand(1, device="cuda")) == expected
