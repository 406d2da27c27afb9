"""Noise on neurons: which parameters, within what bounds, and that nothing stays behind."""

import torch
from torch import nn
from torch.nn import functional

from guard.ml.search.neuron_noise import Growth, Wandering, first_noise, knobs
from tests import toys

IMAGES = torch.rand(2, 1, toys.SIZE, toys.SIZE)


def layered(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(400, toys.CLASSES)
    ).eval()


def test_knobs_are_a_norms_scale_and_shift_and_else_one_factor_an_output() -> None:
    assert knobs(layered(nn.BatchNorm2d(4)), IMAGES) == {"1.weight": (4,), "1.bias": (4,)}
    assert knobs(layered(nn.GroupNorm(2, 4)), IMAGES) == {"1.weight": (4,), "1.bias": (4,)}
    assert knobs(layered(nn.LayerNorm(10)), IMAGES) == {"1.weight": (10,), "1.bias": (10,)}
    assert knobs(layered(nn.BatchNorm2d(4, affine=False)), IMAGES) == {
        "0.weight": (4, 1, 1, 1),
        "3.weight": (6, 1),
    }
    assert knobs(toys.honest(), IMAGES) == {"weight": (6, 1)}


def test_strengths_grow_up_to_the_most() -> None:
    assert list(Growth(first=0.1, factor=2.0, most=0.8, moves=1).strengths()) == [
        0.1,
        0.2,
        0.4,
        0.8,
    ]


def test_noise_stays_within_its_strength_raises_the_loss_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = layered(nn.BatchNorm2d(4)).requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = toys.labelled(60, 1)
    shapes = knobs(model, IMAGES)
    path = Wandering(model, shapes, first_noise(model, shapes, 0.1))

    path.grow(
        0.1,
        3,
        data,
        lambda logits, labels: functional.cross_entropy(logits, labels, reduction="sum"),
    )
    under = {name: before[name] * (1 + value) for name, value in path.noise.items()}

    assert all(float(value.abs().max()) <= 0.1 + 1e-7 for value in path.noise.values())
    noisy = functional.cross_entropy(
        torch.func.functional_call(model, under, (data.floats(),)), data.labels
    )
    assert float(noisy) > float(functional.cross_entropy(model(data.floats()), data.labels))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
