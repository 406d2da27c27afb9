"""FT-SAM: the perturbation is the analytic one, and what it leaves is flatter."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.defenses.ft_sam import FtSam, adaptive
from tests import toys


def test_on_a_quadratic_the_perturbation_is_the_worst_one_in_the_ellipsoid() -> None:
    weights = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.0, 0.5])}
    gradients = {name: 2 * weight for name, weight in weights.items()}  # of the sum of squares
    gradients["b"] = torch.tensor([7.0, 1.0])

    shifts = adaptive(weights, gradients, rho=0.3)

    found = torch.cat([shifts["a"], shifts["b"]])
    w, g = (torch.cat([part["a"], part["b"]]) for part in (weights, gradients))
    assert found[2] == 0  # a weight of zero may not move at all
    moving = w != 0
    assert torch.allclose((found[moving] / w[moving]).norm(), torch.tensor(0.3))
    # By Cauchy-Schwarz no e in the ellipsoid raises the linearised loss by more than rho || w g ||.
    assert torch.allclose(found @ g, 0.3 * (w * g).norm())


def test_without_a_gradient_nothing_moves() -> None:
    shifts = adaptive({"a": torch.ones(3)}, {"a": torch.zeros(3)}, rho=2.0)

    assert torch.equal(shifts["a"], torch.zeros(3))


def sharpness(model: nn.Module, rho: float) -> float:
    """How much the worst relative step raises the clean loss."""
    data, moved = toys.labelled(180, 3), copy.deepcopy(model)
    loss = cross_entropy(model(data.floats()), data.labels)
    weights = dict(model.named_parameters())
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    with torch.no_grad():
        for name, shift in adaptive(weights, gradients, rho=rho).items():
            moved.get_parameter(name).add_(shift)
        return float(cross_entropy(moved(data.floats()), data.labels) - loss)


def test_it_leaves_a_flatter_model_than_plain_fine_tuning() -> None:
    plain, sam = (
        FtSam(rho=rho, rounds=6, rate=0.05)(toys.layered(), toys.clean_set(), seed=0)
        for rho in (0.0, 2.0)
    )

    assert sharpness(sam, 2.0) < 0.7 * sharpness(plain, 2.0)


def test_ruined_accuracy_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        FtSam(rounds=1, max_drop=-1.0)(toys.planted(), toys.clean_set(), seed=0)

    assert caught.value.code == "accuracy_collapsed"


def test_a_rate_that_diverges_is_refused() -> None:
    with pytest.raises(MethodFailed) as caught:
        FtSam(rate=1e30, rounds=3)(toys.planted(), toys.clean_set(), seed=0)

    assert caught.value.code == "non_finite"
