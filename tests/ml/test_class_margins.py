"""Nearness.

A class that other classes' pictures nearly go to is near, in units of the clean margin.
"""

import pytest
import torch

from guard.core.errors import MethodFailed
from guard.ml.class_margins import depth, nearness, nearness_of
from tests import toys


def test_depth_is_the_lead_over_the_best_other_logit() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])

    assert depth(logits, torch.tensor([0, 2])).tolist() == [1.0, -4.0]


def test_the_second_best_class_is_near_and_a_far_one_is_not() -> None:
    labels = torch.arange(40) % 4
    logits = torch.full((40, 4), -10.0)
    logits[torch.arange(40), labels] = 10.0
    logits[:, 1] += 15.0  # everybody's second choice, 5 behind; its own pictures lead by 35

    scale, near = nearness(logits, labels, 4)

    assert scale == pytest.approx((3 * 5 + 35) / 4)
    assert near[1] == pytest.approx(-5 / scale)
    assert max(near) == near[1]


def test_it_is_measured_on_the_model_as_it_is() -> None:
    model, data = toys.honest(), toys.labelled(120, 1)

    assert (
        nearness_of(model, data, toys.CLASSES)
        == nearness(model(data.floats()).detach(), data.labels, toys.CLASSES)[1]
    )


def test_a_model_near_chance_or_not_finite_is_refused() -> None:
    labels = torch.arange(8) % 4
    with pytest.raises(MethodFailed, match="near chance"):
        nearness(torch.zeros(8, 4), labels, 4)
    model = toys.honest()
    model.weight.data.fill_(float("nan"))
    with pytest.raises(MethodFailed, match="not finite"):
        nearness_of(model, toys.labelled(30, 1), toys.CLASSES)
