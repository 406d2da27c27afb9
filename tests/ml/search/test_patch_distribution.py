"""The staircase on testing functions whose answer is known, and its measure of information."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.ml.search.patch_distribution import DistributionEffort, Staircase, information, learn
from guard.ml.seeds import seeded

LEVELS = torch.tensor([0.9, 0.5])
BUMPS = torch.tensor([[0.25, 0.25], [0.75, 0.75]])
EFFORT = DistributionEffort(steps=300, batch=32, width=32)


def two_bumps(patches: Tensor) -> Tensor:
    """Log of a success that is about 1 within 0.3 of either bump (three times the jitter).

    And falls off steeply.
    """
    distance = (patches[:, :, None] - BUMPS).norm(dim=3).amin(2)
    return functional.logsigmoid((0.3 - distance) * 20)


def learnt(alpha: float) -> Staircase:
    with seeded(0):
        return learn(two_bumps, 2, 2, LEVELS, EFFORT, lambda done: None, alpha=alpha)


def drawn(staircase: Staircase) -> Tensor:
    with seeded(1):
        return staircase.draw(500)


@pytest.fixture(scope="module")
def spread() -> Staircase:
    return learnt(0.3)


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.95])
def test_information_between_correlated_normal_variables_is_the_known_one(rho: float) -> None:
    rest = math.sqrt(1 - rho**2)
    with seeded(2):
        centres = rho * torch.randn(1, 2000, 1)
        found = information(centres, centres + rest * torch.randn(1, 2000, 1), rest)

    assert float(found) == pytest.approx(-math.log(rest), rel=0.1)


def test_information_is_at_most_what_a_batch_can_tell_apart() -> None:
    with seeded(3):
        centres = 100 * torch.randn(2, 50, 3)

        assert information(centres, centres, 0.1).tolist() == pytest.approx(
            [math.log(50)] * 2, rel=1e-4
        )
        assert information(centres * 0, torch.randn(2, 50, 3), 1.0).tolist() == pytest.approx(
            [0.0] * 2, abs=1e-5
        )


def test_samples_succeed_at_their_level_and_reach_both_bumps(spread: Staircase) -> None:
    patches = drawn(spread)
    nearest = (patches[:, :, None] - BUMPS).norm(dim=3).argmin(2).float().mean(1)
    succeed = (two_bumps(patches).exp() >= LEVELS[:, None] - 0.1).float().mean(1)

    assert bool((nearest >= 0.1).all() and (nearest <= 0.9).all())
    assert bool((succeed >= 0.6).all())
    assert patches.shape == (2, 500, 2)


def test_without_the_entropy_term_the_strictest_level_collapses_to_one_bump(
    spread: Staircase,
) -> None:
    point = drawn(learnt(0.0))[0]
    nearest = (point[:, None] - BUMPS).norm(dim=2).argmin(1).float().mean()

    assert float(nearest) in {0.0, 1.0}
    assert float(point.std(0).mean()) < 0.4 * float(drawn(spread)[0].std(0).mean())


def test_the_same_seed_gives_the_same_samples() -> None:
    quick = DistributionEffort(steps=5, batch=8, width=8)
    twice = []
    for _ in range(2):
        with seeded(4):
            twice.append(learn(two_bumps, 2, 2, LEVELS, quick, lambda done: None).draw(20))

    assert torch.equal(*twice)


def test_a_testing_function_that_breaks_is_refused() -> None:
    with seeded(0), pytest.raises(MethodFailed):
        learn(
            lambda patches: patches.sum(2) * math.nan,
            1,
            2,
            torch.tensor([0.9]),
            DistributionEffort(steps=5, batch=8, width=8),
            lambda done: None,
        )
