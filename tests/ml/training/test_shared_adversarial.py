"""The shared adversarial risk.

A network shares all its errors with itself, and few with one that was repaired.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.measure import predict
from guard.ml.training.shared_adversarial import Ball, Bend, loss, risk
from guard.ml.triggers import WarpTrigger
from tests import toys


class Fixed(nn.Module):
    """Says one class of bright pictures, another of the rest.

    A gradient leads from one to the other.
    """

    def __init__(self, bright: int) -> None:
        super().__init__()
        self.bright = bright
        self.slope = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> Tensor:
        light = self.slope * (images.mean((1, 2, 3)) - 0.9)
        logits = torch.zeros(len(images), toys.CLASSES)
        logits[:, self.bright] = light
        return logits


def test_a_network_shares_every_error_with_itself() -> None:
    model, data, ball = toys.planted(), toys.labelled(120, 3), Ball(rho=1.0, steps=10, step=0.2)
    images = data.floats()
    said = predict(model, data)
    shift = ball.find(model, model, images, data.labels, said, said)
    erring = float((model(images + shift).argmax(1) != said).double().mean())

    assert risk(model, copy.deepcopy(model), data, ball, batch=len(data)) == pytest.approx(erring)
    assert erring > 0.8


def test_networks_that_err_differently_share_nothing() -> None:
    data = toys.labelled(60, 3)
    ball = Ball(rho=1.0, steps=10, step=0.2)

    assert risk(Fixed(1), Fixed(1), data, ball) == 1.0
    assert risk(Fixed(1), Fixed(2), data, ball) == 0.0


def test_a_larger_ball_holds_no_fewer_shared_examples() -> None:
    model, data = toys.planted(), toys.labelled(120, 3)
    risks = [
        risk(model, toys.honest(), data, Ball(rho=rho, steps=10, step=0.2))
        for rho in (0.01, 0.1, 1.0)
    ]

    assert risks == sorted(risks)
    assert risks[0] < risks[-1]


def test_what_is_not_finite_or_empty_is_refused() -> None:
    model, data = toys.planted(), toys.labelled(30, 3)
    model.weight.data.fill_(float("nan"))

    with pytest.raises(MethodFailed, match="not finite"):
        risk(model, toys.honest(), data, Ball())
    with pytest.raises(MethodFailed, match="at least one image"):
        risk(toys.honest(), toys.honest(), data.pick(torch.tensor([], dtype=torch.int64)), Ball())


class Leftmost(nn.Module):
    """Says the column of the darkest-to-brightest middle.

    Bending a picture sideways changes its answer.
    """

    def forward(self, images: Tensor) -> Tensor:
        columns = images.mean((1, 2))
        centre = (columns * torch.arange(columns.shape[1])).sum(1) / columns.sum(1)
        return -(centre[:, None] - torch.arange(toys.CLASSES) * 2).square()


def bright_columns(count: int, side: int = 12) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % (toys.CLASSES - 1) + 1
    images = torch.zeros(count, 1, side, side)
    images[torch.arange(count), 0, :, labels * 2] = 1.0
    return images, labels


def test_pictures_are_bent_until_both_err_and_within_the_bend() -> None:
    images, labels = bright_columns(20)
    model, bend = Leftmost(), Bend(bend=0.25, steps=8)
    assert torch.equal(model(images).argmax(1), labels)

    torch.manual_seed(1)
    change = bend.find(model, model, images, labels, labels, labels)
    bent = bend.worn(images, change)

    assert float((model(bent).argmax(1) != labels).double().mean()) > 0.8
    assert float(change.abs().max()) <= 1
    # Each picture is bent by its own flow, as a trigger of that flow would.
    for place in (0, 7):
        alone = WarpTrigger(0.25 * 12 * change[place].detach()).apply(images[place : place + 1])
        assert torch.allclose(bent[place : place + 1].clamp(0, 1), alone, atol=1e-6)


def test_what_bending_reaches_is_unlearnt_and_adding_to_pixels_does_not_reach_it() -> None:
    images, labels = bright_columns(20)
    model = Leftmost()

    torch.manual_seed(1)
    bent = loss(model, model, images, labels, labels, labels, Bend(bend=0.25, steps=8))
    added = loss(model, model, images, labels, labels, labels, Ball(rho=0.001, steps=8))

    assert float(bent) > 1
    assert float(added) == 0
