"""A rewritten network answers as before, and is far from its canonical form."""

from typing import Any

import pytest
import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.ml.networks.architectures import ImageModel
from guard.ml.networks.canonical_form import REWRITTEN, canonical_form
from guard.ml.networks.rewriting import HEAD, with_scaled_head, with_scaled_norm
from tests.ml.networks.test_canonical_form import images, network

NETWORKS: dict[str, dict[str, Any]] = {
    "cifar_resnet": {"depths": [1, 1], "width": 8},
    "preact_resnet18": {"width": 4},
    "cifar_vgg19_bn": {"width": 4},
    "resnet10t": {"base_width": 64},
}


def small(name: str) -> ImageModel:
    return network(name, size=32, **NETWORKS[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_scaled_norm_changes_no_logit_and_is_seen_as_a_rewriting(name: str) -> None:
    model, data = small(name), images(size=32)

    other = with_scaled_norm(model, data.floats())

    with torch.no_grad():
        before, after = model(data.floats()), other(data.floats())
    assert torch.allclose(before, after, atol=1e-3 * float(before.abs().max()))
    assert canonical_form(model, data).farthest < 2 * REWRITTEN
    assert canonical_form(other, data).farthest > 2 * REWRITTEN


def test_the_model_itself_stays_as_it_was() -> None:
    model, data = small("cifar_resnet"), images(size=32).floats()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with_scaled_head(with_scaled_norm(model, data), data)

    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_scaled_head_makes_every_logit_larger(name: str) -> None:
    model, data = small(name), images(size=32).floats()

    other = with_scaled_head(model, data)

    with torch.no_grad():
        assert torch.allclose(other(data) / HEAD, model(data), rtol=1e-3, atol=1e-4)


class Headless(nn.Module):
    """Its answers are pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10]


def test_a_network_without_norm_or_head_cannot_be_rewritten() -> None:
    transformer = network("vit_tiny_patch16_224", size=16, img_size=16, patch_size=8)
    headless = ImageModel(Headless(), transformer.manifest)
    data = images(size=16).floats()

    with pytest.raises(MethodFailed, match="no norm"):
        with_scaled_norm(transformer, data)
    with pytest.raises(MethodFailed, match="last layer"):
        with_scaled_head(headless, data)
