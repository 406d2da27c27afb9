"""Data flow.

Norms are paired with what they follow, heads are found, features are seen and moved.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.ml.networks.dataflow import Flow, flow_of, with_features
from guard.ml.networks.nets.cifar_resnet import CifarResnet
from guard.ml.networks.nets.preact_resnet18 import PreactResnet18
from tests import toys

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def pairs(flow: Flow) -> dict[str, str]:
    return {
        layer.weight_name.removesuffix(".weight"): flow.layers[
            layer.follows
        ].weight_name.removesuffix(".weight")
        for layer in flow.layers
        if layer.kind == "norm" and layer.follows is not None
    }


def test_in_a_resnet_every_norm_follows_a_convolution() -> None:
    found = pairs(flow_of(CifarResnet(5, 3, (1, 1), 4).eval(), IMAGES))

    assert found == {
        "bn1": "conv1",
        "layer1.0.bn1": "layer1.0.conv1",
        "layer1.0.bn2": "layer1.0.conv2",
        "layer2.0.bn1": "layer2.0.conv1",
        "layer2.0.bn2": "layer2.0.conv2",
        "layer2.0.shortcut.1": "layer2.0.shortcut.0",
    }


def test_in_a_pre_activation_net_norms_behind_a_sum_follow_nothing() -> None:
    found = pairs(flow_of(PreactResnet18(5, 3, 4).eval(), IMAGES))

    expected = {
        f"layer{stage}.{block}.bn2": f"layer{stage}.{block}.conv1"
        for stage in range(1, 5)
        for block in range(2)
    }
    assert found == {"layer1.0.bn1": "conv1", **expected}


class Reversed(nn.Module):
    """Registered backwards.

    A layer norm behind a permutation, an activation in place, a 1x1 head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(6, 5, 1)
        self.norm = nn.LayerNorm(6)
        self.late = nn.BatchNorm2d(6)
        self.body = nn.Conv2d(3, 6, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.body(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.late(functional.relu_(functional.conv2d(x, self.body.weight.new_ones(6, 6, 1, 1))))
        return self.head(x).mean((2, 3))


def test_order_of_registration_does_not_matter_and_an_activation_in_place_is_between() -> None:
    flow = flow_of(Reversed().eval(), IMAGES)

    assert pairs(flow) == {"norm": "body"}
    assert flow.head is not None
    assert flow.layers[flow.head].weight_name == "head.weight"


@pytest.mark.parametrize(
    ("model", "images", "features"),
    [
        (CifarResnet(5, 3, (1, 1), 4), IMAGES, 8),
        (Reversed(), IMAGES, 6),
        (toys.honest(), torch.rand(2, 1, toys.SIZE, toys.SIZE), toys.SIZE**2),
    ],
)
def test_features_are_what_the_head_sees_and_may_be_moved(
    model: nn.Module, images: Tensor, features: int
) -> None:
    model.eval().requires_grad_(requires_grad=False)
    flow = flow_of(model, images)
    assert flow.head is not None
    head = flow.layers[flow.head]
    shift = torch.randn(features, generator=torch.Generator().manual_seed(1))

    logits, seen = with_features(model, head, images)
    moved, _ = with_features(model, head, images, shift.expand_as)

    assert seen.shape == (2, features)
    assert torch.equal(logits, model(images))
    assert head.weight is not None
    torch.testing.assert_close(moved - logits, (head.weight.flatten(1) @ shift).expand_as(logits))


def test_features_have_a_gradient_back_to_the_pictures() -> None:
    model = CifarResnet(5, 3, (1, 1), 4).eval()
    flow, images = flow_of(model, IMAGES), IMAGES.clone().requires_grad_()
    assert flow.head is not None

    with_features(model, flow.layers[flow.head], images)[1].sum().backward()

    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0


def test_a_network_without_a_last_layer_has_no_head() -> None:
    flow = flow_of(
        nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)),
        IMAGES,
    )
    assert flow.head is not None  # the convolution has an output a class

    flow = flow_of(nn.Sequential(nn.Linear(16, 7), nn.Flatten(), nn.LogSoftmax(1)), IMAGES)
    assert flow.head is None


def test_a_head_that_does_not_run_is_an_error() -> None:
    one, other = (CifarResnet(5, 3, (1, 1), 4).eval() for _ in range(2))
    flow = flow_of(one, IMAGES)
    assert flow.head is not None

    with pytest.raises(MethodFailed) as caught:
        with_features(other, flow.layers[flow.head], IMAGES)

    assert caught.value.code == "no_head"
