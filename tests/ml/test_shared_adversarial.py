"""The shared adversarial risk: a network shares all its errors with itself, and few with one that was repaired."""

import copy

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.measure import predict
from guard.ml.shared_adversarial import Ball, risk
from tests import toys


class Fixed(nn.Module):
    """Says one class of bright pictures, another of the rest; a gradient leads from one to the other."""

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
    risks = [risk(model, toys.honest(), data, Ball(rho=rho, steps=10, step=0.2)) for rho in (0.01, 0.1, 1.0)]

    assert risks == sorted(risks)
    assert risks[0] < risks[-1]


def test_what_is_not_finite_or_empty_is_refused() -> None:
    model, data = toys.planted(), toys.labelled(30, 3)
    model.weight.data.fill_(float("nan"))

    with pytest.raises(MethodFailed, match="not finite"):
        risk(model, toys.honest(), data, Ball())
    with pytest.raises(MethodFailed, match="at least one picture"):
        risk(toys.honest(), toys.honest(), data.pick(torch.tensor([], dtype=torch.int64)), Ball())
