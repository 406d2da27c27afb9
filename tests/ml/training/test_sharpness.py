"""The gradient uphill: mixed as asked, with batch-norm statistics moved once."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.ml.training.sharpness import uphill

IMAGES = torch.rand(12, 2, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    ).double()


def third(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: 0.3 * gradient for name, gradient in gradients.items()}


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_the_gradient_is_the_mixture_of_both_points(share: float) -> None:
    model, images = network().train(), IMAGES.double()
    here, there = copy.deepcopy(model), copy.deepcopy(model)
    cross_entropy(here(images), LABELS).backward()
    first = [weight.grad for weight in here.parameters()]
    with torch.no_grad():
        for weight, gradient in zip(there.parameters(), first, strict=True):
            assert gradient is not None
            weight.add_(0.3 * gradient)
    cross_entropy(there(images), LABELS).backward()

    uphill(model, images, LABELS, third, share=share).backward()

    for weight, one, two in zip(model.parameters(), first, there.parameters(), strict=True):
        assert one is not None
        assert two.grad is not None
        torch.testing.assert_close(weight.grad, (1 - share) * one + share * two.grad)


def test_statistics_are_moved_once_as_by_a_plain_step() -> None:
    model, images = network().train(), IMAGES.double()
    plain = copy.deepcopy(model)
    plain(images)

    uphill(model, images, LABELS, third, share=0.7).backward()

    assert all(
        torch.equal(one, two) for one, two in zip(model.buffers(), plain.buffers(), strict=True)
    )


def test_a_weight_that_does_nothing_is_left_in_peace() -> None:
    model = network()
    model.register_parameter("idle", nn.Parameter(torch.ones(2).double()))

    loss = uphill(model, IMAGES.double(), LABELS, third, share=0.5)
    loss.backward()

    assert bool(torch.isfinite(loss))
    idle = model.get_parameter("idle")
    assert idle.grad is None or not bool(idle.grad.any())
