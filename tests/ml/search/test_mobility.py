"""A search proves that it can move; networks that hide their gradient do not let it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.search.mobility import mobility, require_mobility
from tests import toys


class Hidden(nn.Module):
    """The same answers as `network`, hidden from a search in one of several ways."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        if self.how == "steps":  # answers by a look-up
            return 10.0 * nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
        if self.how == "saturated":  # logits are probabilities of 0 and 1
            return (1e4 * (logits - logits.amax(1, keepdim=True))).exp()
        if self.how == "faint":  # a look-up with a slope that steps of Adam cannot follow
            steps = nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()
            return 5.0 * steps + 1e-9 * logits
        if self.how == "overflow":
            return logits * 1e30
        if self.how == "flat":  # rounded inputs: the slope is lost on the way
            return self.network((images.detach() * 8).round() / 8)
        return logits


@pytest.mark.parametrize("model", [toys.honest, toys.planted, toys.layered])
def test_a_search_moves_on_ordinary_networks(model: Callable[[], nn.Module]) -> None:
    found = mobility(model().requires_grad_(False), toys.clean_set().search, toys.CLASSES)

    assert (found.reached, found.moving) == (1.0, 1.0)


@pytest.mark.parametrize("how", ["steps", "saturated", "faint", "overflow", "flat"])
def test_a_search_that_cannot_move_is_refused_with_the_reason(how: str) -> None:
    model = Hidden(toys.planted(), how).eval().requires_grad_(False)

    with pytest.raises(MethodFailed, match="Patch inversion cannot search this model") as caught:
        require_mobility(model, toys.clean_set(), "Patch inversion")
    assert caught.value.code == "cannot_move"


def test_it_leaves_the_random_state_as_it_was() -> None:
    torch.manual_seed(3)
    mobility(toys.honest(), toys.clean_set().search, toys.CLASSES)
    after = torch.rand(1)
    torch.manual_seed(3)

    assert torch.equal(after, torch.rand(1))


def test_of_many_classes_some_are_tried() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 300)).eval().requires_grad_(False)
    data = Labelled(torch.zeros(20, 1, 4, 4, dtype=torch.uint8), torch.arange(20))

    assert 0 < mobility(model, data, 300).reached <= 1
