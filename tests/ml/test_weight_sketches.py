"""Short sketches of weights are as far apart as the weights are."""

import pytest
import torch

from guard.core.weight_sketch import distance
from guard.ml.weight_sketches import sketch_of


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(300, 70, generator=random),
        "b.weight": 100 * torch.randn(65, generator=random),
        "b.empty": torch.zeros(0),
        "b.zero": torch.zeros(5),
        "count": torch.tensor(7),
    }


@pytest.mark.parametrize("share", [1e-6, 1e-3, 0.1])
def test_the_distance_is_that_of_the_weights(share: float) -> None:
    moved = {
        name: tensor + share * tensor.std() * torch.randn(tensor.shape)
        if tensor.numel() > 5
        else tensor
        for name, tensor in weights().items()
    }

    assert 0.5 * share < distance(sketch_of(weights()), sketch_of(moved)) < 2 * share


def test_the_same_weights_in_any_order_have_the_same_sketch() -> None:
    other = dict(reversed(weights().items())) | {"count": torch.tensor(9)}

    assert distance(sketch_of(weights()), sketch_of(other)) == 0


def test_other_weights_shapes_and_names_are_far_apart() -> None:
    here = weights()
    renamed = {name.replace("a.", "c."): tensor for name, tensor in here.items()}
    turned = {name: tensor.T if tensor.ndim > 1 else tensor for name, tensor in here.items()}

    for other in (weights(1), renamed, turned):
        assert distance(sketch_of(here), sketch_of(other)) > 0.5


def test_a_network_of_zeros_is_near_itself_only() -> None:
    nothing = sketch_of({"a": torch.zeros(3)})

    assert distance(nothing, nothing) == 0
    assert distance(nothing, sketch_of(weights())) == 1
