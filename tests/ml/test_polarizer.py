"""The map of a polarizer, in every layout and with a row for each class."""

import pytest
import torch

from guard.core.errors import ManifestRejected
from guard.core.manifest import PolarizerPlace
from guard.ml import architectures
from guard.ml.polarizer import Polarizer, attach, polarizer_of
from tests import toys


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 6, 3), (2, 3), (2, 5, 4, 3)])
def test_it_is_one_affine_map_of_the_channels_wherever_they_stand(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    polarizer, features = Polarizer(3, 1), torch.randn(shape)
    for parameter in polarizer.parameters():
        torch.nn.init.normal_(parameter)
    axis = 1 if len(shape) == 4 and shape[1] == 3 else -1

    found = polarizer(features).movedim(axis, -1)

    expected = features.movedim(axis, -1) @ polarizer.weight.T * polarizer.scale[0] + polarizer.shift[0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_row_for_each_class_is_used_only_when_it_is_told_one() -> None:
    polarizer, features = Polarizer(3, 4), torch.randn(2, 3, 5, 5)
    torch.nn.init.normal_(polarizer.weight)
    polarizer.shift.data[1] = 7.0
    bare = polarizer(features)
    polarizer.said = torch.tensor([1, 3])
    first, second = polarizer(features)
    plain = torch.einsum("oc,nchw->nohw", polarizer.weight, features)

    assert torch.equal(bare, features)
    assert torch.allclose(first, plain[0] + 7, atol=1e-5)
    assert torch.allclose(second, plain[1], atol=1e-5)


def test_a_layer_that_does_not_exist_is_named() -> None:
    for before in ("layer7", "layer1.0.nope", "conv1.weight"):
        with pytest.raises(ManifestRejected, match=before):
            attach(architectures.build(toys.manifest()), PolarizerPlace(before=before, channels=8), toys.CLASSES)


def test_a_model_without_one_says_so() -> None:
    with pytest.raises(LookupError):
        polarizer_of(architectures.build(toys.manifest()))


def test_the_parameters_of_a_polarizer_count_against_the_budget() -> None:
    facts = toys.manifest(polarizer=PolarizerPlace(before="layer2.0", channels=16_384))

    with pytest.raises(ManifestRejected, match="more than"):
        architectures.expected(facts, budget=architectures.Budget(parameters=1_000_000))
