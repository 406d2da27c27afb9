"""Neurons are the rows of hidden layers, silenced where they are scaled.

As far as accuracy allows.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.ml.measure import accuracy
from guard.ml.networks.nets.preact_resnet18 import PreactResnet18
from guard.ml.networks.neurons import Hidden, flow_on, furthest, hidden_layers
from tests import toys

DATA = toys.labelled(6, 1)


def colour(images: int = 2) -> toys.Labelled:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (images, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return toys.Labelled(pictures, torch.arange(images) % 5)


def found(model: nn.Module) -> dict[str, str]:
    return {
        hidden.layer.weight_name: hidden.norm.weight_name if hidden.norm else ""
        for hidden in hidden_layers(model, flow_on(model, colour()))
    }


def test_the_head_is_no_neuron_and_norms_are_paired_by_data_flow() -> None:
    pairs = found(PreactResnet18(5, 3, 4).eval())

    assert "linear.weight" not in pairs
    assert pairs["layer2.0.conv1.weight"] == "layer2.0.bn2.weight"
    assert pairs["layer2.0.conv2.weight"] == ""  # a sum stands between it and the next norm
    assert pairs["layer2.0.shortcut.0.weight"] == ""


def test_a_transformers_neurons_are_its_linear_rows() -> None:
    pairs = found(toys.vit(channels=3, depth=2))

    assert {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.1.mlp.fc2.weight",
    } <= set(pairs)
    assert "head.weight" not in pairs
    assert not any(pairs.values())


class Odd(nn.Module):
    """A layer that stores its inputs first, one that computes its weight, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs_first = nn.Parameter(torch.randn(144, 12))
        self.computed = nn.Parameter(torch.randn(12, 12))
        self.twice = nn.Linear(12, 12)
        self.head = nn.Linear(12, 6)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.nn.functional.linear(images.flatten(1) @ self.inputs_first, self.computed * 2)
        return self.head(self.twice(self.twice(x)))


def test_only_rows_that_are_rows_of_a_parameter_count_each_once() -> None:
    model = Odd()

    assert [hidden.layer.weight_name for hidden in hidden_layers(model, flow_on(model, DATA))] == [
        "twice.weight"
    ]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (toys.honest(), "no_neurons"),
        (nn.Sequential(nn.Flatten(), nn.LogSoftmax(1)), "no_head"),
    ],
)
def test_what_cannot_be_mapped_is_named(model: nn.Module, code: str) -> None:
    with pytest.raises(MethodFailed) as caught:
        hidden_layers(model, flow_on(model, DATA))

    assert caught.value.code == code


def test_a_neuron_is_silenced_at_its_norm_or_else_at_itself() -> None:
    model = toys.layered()
    (own,) = hidden_layers(model, flow_on(model, DATA))
    assert own.norm is not None

    own.silence(model, torch.tensor([3]))
    assert model.norm.weight[3] == 0
    assert model.norm.bias[3] == 0
    assert bool(model.conv.weight[3].any())

    Hidden(own.layer).silence(model, torch.tensor([4]))
    assert not bool(model.conv.weight[4].any())
    assert bool(model.norm.weight[4])


def mute(model: nn.Module, *, rows: int) -> None:
    model.get_parameter("weight").data[:rows] = 0


def test_cuts_go_on_as_long_as_accuracy_allows_and_the_last_allowed_one_is_kept() -> None:
    model, clean = toys.honest(), toys.clean_set()
    reference = toys.honest()
    mute(reference, rows=2)
    least = accuracy(reference, clean.calibration, clean.classes).overall

    kept, done = furthest(
        model,
        [partial(mute, rows=rows) for rows in (1, 2, 5, 6)],
        clean,
        least=least,
        progress=silent,
    )

    assert done == 2
    assert torch.equal(kept.get_parameter("weight"), reference.weight)
    assert torch.equal(model.weight, toys.honest().weight)
