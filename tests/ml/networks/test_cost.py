"""The cost of a network is counted from shapes, and found before anything is allocated."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.contracts import Budget
from guard.core.errors import ManifestRejected
from guard.core.manifest import Manifest
from guard.ml.measure import BATCH
from guard.ml.networks import _recipes, architectures
from guard.ml.networks._growth import bounded
from guard.ml.networks.cost import SEARCHED, Cost, cost_of, refuse

FACTS = Manifest(
    architecture="cifar_resnet",
    num_classes=10,
    input_size=(3, 32, 32),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)
ANY = Budget()


class Small(nn.Module):
    """Two layers whose cost can be counted by hand, the second one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4 * 32 * 32, 10, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.convolution(images).relu_().flatten(1))
        return found


class Deciding(nn.Module):
    """A network whose way depends on the numbers in the images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if bool(images.sum() > 0) else images.amax((2, 3))


def outlined(made: type[nn.Module]) -> Any:
    def make() -> nn.Module:
        with torch.device("meta"):
            return made()

    return make


def afforded(budget: Budget = ANY, **changes: Any) -> None:
    architectures.afford(replace(FACTS, **changes), budget=budget)


def test_operations_and_bytes_are_those_that_one_counts_by_hand() -> None:
    found = cost_of(outlined(Small), FACTS, ANY)

    images, inner, outer = 3 * 32 * 32, 4 * 32 * 32, 10
    # relu_ writes in place, and flatten is a view: neither is new.
    assert found.operations == 2 * 27 * inner + 2 * inner * outer
    assert found.activations == 4 * (images + inner + outer)
    assert found.weights == 4 * (27 * 4 + inner * outer)
    assert found.widest == 4 * (
        max(images + inner, inner + outer)
    )  # weights are no part of a batch
    assert not found.cut
    batches = max(BATCH * found.widest, SEARCHED * found.activations)
    assert found.memory == 2 * found.weights + batches


def test_a_larger_image_costs_more_and_more_classes_cost_weights() -> None:
    def cost(**changes: Any) -> Cost:
        facts = replace(FACTS, **changes)
        network = outlined_of(facts)
        return cost_of(network, facts, ANY)

    small, large, many = cost(), cost(input_size=(3, 64, 64)), cost(num_classes=1000)

    assert 3.9 < large.operations / small.operations < 4.1
    assert large.weights == small.weights
    assert many.weights > small.weights


def outlined_of(facts: Manifest) -> Any:
    return lambda: architectures._outline(facts, ANY)


@pytest.mark.threat("C08")
@pytest.mark.parametrize(
    ("limits", "setting", "says"),
    [
        ({"image_operations": 10**6}, "GUARD_MAX_IMAGE_OPERATIONS", "times the limit of 1,000,000"),
        ({"network_bytes": 1 << 20}, "GUARD_MAX_NETWORK_BYTES", "times the limit of 1 MiB"),
        ({"parameters": 1000}, "GUARD_MAX_PARAMETERS", "more than 1,000 parameters"),
        ({"network_tensors": 20}, "GUARD_MAX_NETWORK_TENSORS", "more than 20 tensors"),
    ],
)
def test_each_limit_names_what_is_over_and_the_setting_that_raises_it(
    limits: dict[str, int], setting: str, says: str
) -> None:
    with pytest.raises(ManifestRejected, match="Over budget: ") as caught:
        afforded(Budget(**limits))

    assert caught.value.code == "over_budget"
    assert setting in caught.value.sentence
    assert says in caught.value.sentence
    afforded()


def test_a_constructor_that_takes_too_long_is_broken_off() -> None:
    with pytest.raises(ManifestRejected, match="building the architecture takes") as caught:
        afforded(Budget(seconds=-1))

    assert caught.value.code == "over_budget"


def test_a_constructor_that_waits_for_a_busy_machine_is_not() -> None:
    class Waiting(nn.Module):
        """It stands still for longer than it may compute."""

        def __init__(self) -> None:
            super().__init__()
            time.sleep(0.3)
            self.head = nn.Linear(3, 10)

    with bounded(Budget(seconds=0.2)):
        Waiting()


def test_what_works_on_weights_alone_is_held_once_and_not_for_each_image() -> None:
    class Standardised(nn.Module):
        """It standardises a large weight before it uses a row of it."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(10**6, 3))

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) @ (self.weight * 2)[:10].T

    found = cost_of(outlined(Standardised), FACTS, ANY)

    assert found.activations < 2 * 4 * 3 * 32 * 32
    assert found.operations > 10**6


def test_a_long_run_over_a_limit_is_not_followed_to_its_end() -> None:
    facts = replace(FACTS, model_args={"depths": [130], "width": 1})
    short = Budget(image_operations=10**4)

    cut = cost_of(outlined_of(facts), facts, short)

    assert cut.cut
    with pytest.raises(ManifestRejected, match="takes at least"):
        refuse(cut, "a network", short)


def test_a_network_whose_cost_depends_on_numbers_is_refused() -> None:
    with pytest.raises(ManifestRejected, match="cannot be found from its shapes") as caught:
        cost_of(outlined(Deciding), FACTS, ANY)

    assert caught.value.code == "cost_unknown"


def test_a_network_that_does_not_run_on_its_size_is_left_to_the_loading() -> None:
    facts = replace(FACTS, architecture="cifar_vgg19_bn", input_size=(3, 16, 16))

    found = cost_of(outlined_of(facts), facts, ANY)

    assert found.operations > 0  # of the layers before the one that fails
    architectures.afford(facts, budget=ANY)


def test_an_example_that_is_built_for_its_arguments_is_no_part_of_the_network() -> None:
    _recipes._timm.cache_clear()
    facts = replace(FACTS, architecture="test_resnet")
    numbers = len(architectures.expected(facts))

    _recipes._timm.cache_clear()
    assert len(architectures.expected(facts, budget=Budget(network_tensors=numbers))) == numbers


def test_weights_that_were_read_are_granted_the_network_they_fill() -> None:
    tensors = {"a": torch.zeros(3)}

    found = architectures._as_large_as(tensors)

    assert (found.parameters, found.network_tensors) == (ANY.parameters, ANY.network_tensors)
    many = dict.fromkeys(map(str, range(5000)), torch.zeros(1).expand(10**6))
    found = architectures._as_large_as(many)
    assert (found.parameters, found.network_tensors) == (10**10, 10**4)
