"""The map of a polarizer, in every layout and with a row for each class."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from guard.core.contracts import Budget
from guard.core.errors import ManifestRejected
from guard.core.manifest import PolarizerPlace
from guard.ml.networks import architectures
from guard.ml.networks.polarizer import Halves, Polarizer, attach, polarized_in, polarizer_of
from tests import toys


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 6, 3), (2, 3), (2, 5, 4, 3)])
def test_it_is_one_affine_map_of_the_channels_wherever_they_stand(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    polarizer, features = Polarizer(3, 1), torch.randn(shape)
    for parameter in polarizer.parameters():
        torch.nn.init.normal_(parameter)
    axis = 1 if len(shape) == 4 and shape[1] == 3 else -1

    found = polarizer(features).movedim(axis, -1)

    expected = (
        features.movedim(axis, -1) @ polarizer.weight.T * polarizer.scale[0] + polarizer.shift[0]
    )
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_row_for_each_class_is_used_only_when_it_is_told_one() -> None:
    polarizer, features = Polarizer(3, 4), torch.randn(2, 3, 5, 5)
    torch.nn.init.normal_(polarizer.weight)
    polarizer.shift.data[1] = 7.0
    bare = polarizer(features)
    polarizer.predicted = torch.tensor([1, 3])
    first, second = polarizer(features)
    plain = torch.einsum("oc,nchw->nohw", polarizer.weight, features)

    assert torch.equal(bare, features)
    assert torch.allclose(first, plain[0] + 7, atol=1e-5)
    assert torch.allclose(second, plain[1], atol=1e-5)


def test_a_layer_that_does_not_exist_is_named() -> None:
    for before in ("layer7", "layer1.0.nope", "conv1.weight"):
        with pytest.raises(ManifestRejected, match=before):
            attach(
                architectures.build(toys.manifest()),
                PolarizerPlace(before=before, channels=8),
                toys.CLASSES,
            )


def test_a_model_without_one_says_so() -> None:
    with pytest.raises(LookupError):
        polarizer_of(architectures.build(toys.manifest()))


def test_the_parameters_of_a_polarizer_count_against_the_budget() -> None:
    facts = toys.manifest(polarizer=PolarizerPlace(before="layer2.0", channels=16_384))

    with pytest.raises(ManifestRejected, match="more than"):
        architectures.expected(facts, budget=Budget(parameters=1_000_000))


class Around(nn.Module):
    """Two layers, a polarizer before the second.

    One activation for both, and a way around if `bypass`.
    """

    def __init__(self, *, bypass: bool = False) -> None:
        super().__init__()
        self.first, self.act, self.second = (
            nn.Conv2d(1, 3, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 3),
        )
        self.bypass = bypass
        self.ran: list[str] = []
        for name in ("first", "second"):
            layer = self.get_submodule(name)
            layer.forward = self._noted(name, layer.forward)

    def _noted(self, name: str, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(features: Tensor) -> Tensor:
            self.ran.append(name)
            return forward(features)

        return run

    def forward(self, images: Tensor) -> Tensor:
        early = self.act(self.first(images))
        late = self.act(self.second(early + 1)).mean((2, 3))
        return late + early.mean((1, 2, 3))[:, None] if self.bypass else late


def around(*, bypass: bool = False) -> tuple[Around, Halves]:
    torch.manual_seed(0)
    network = Around(bypass=bypass)
    attach(network, PolarizerPlace(before="second", channels=3), 4)
    polarizer_of(network).scale.data += 0.3
    return network.eval(), Halves(network, network, torch.rand(2, 1, 8, 8))


def test_each_half_runs_without_the_other_and_both_give_the_whole() -> None:
    network, halves = around()
    images = torch.rand(5, 1, 8, 8, requires_grad=True)
    expected = network(images)
    halves.trunk(images)  # sees the shape
    network.ran.clear()

    features = halves.trunk(images)
    trunk_ran = list(network.ran)
    found = halves.rest(features)

    assert not halves.whole
    assert (trunk_ran, network.ran) == (["first"], ["first", "second"])
    assert torch.equal(found, expected)
    assert torch.equal(
        *(torch.autograd.grad(logits.sum(), images)[0] for logits in (found, expected))
    )


def test_a_network_is_as_it_was_after_its_halves_ran() -> None:
    network, halves = around()
    images, own = torch.rand(5, 1, 8, 8), vars(network.first)["forward"]
    expected = network(images)

    halves.rest(halves.trunk(images))
    with pytest.raises(RuntimeError):
        halves.rest(torch.rand(5, 9, 6, 6))

    assert vars(network.first)["forward"] is own
    assert "forward" not in vars(network.act)
    assert torch.equal(network(images), expected)
    assert polarized_in(network).polarizer.predicted is None


def test_where_something_goes_around_the_polarizer_the_network_is_left_whole() -> None:
    network, halves = around(bypass=True)
    images = torch.rand(5, 1, 8, 8)

    assert halves.whole
    assert torch.equal(halves.trunk(images), images)
    assert torch.equal(halves.rest(images), network(images))


def test_halves_of_a_network_that_skips_its_polarizer_say_so() -> None:
    network, _ = around()

    with pytest.raises(LookupError, match="does not run"):
        Halves(network, lambda images: images.mean((2, 3)), torch.rand(2, 4, 8, 8))
