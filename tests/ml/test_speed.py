"""The probe: how long images take, on as few as a second allows, without a trace on the model."""

import pytest
import torch
from torch import Tensor, nn

from guard.ml.speed import probe, reference_speed
from tests import toys


class Sized(toys.Matcher):
    """Remembers how many images it got at a time; `cut` ones give no gradient."""

    sizes: list[int]
    cut = False

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return super().forward(images.detach() if self.cut else images)


def sized() -> Sized:
    model = Sized(toys.prototypes())
    model.sizes = Shared()
    return model.eval()


class Shared(list[int]):
    """Copies of a model share it."""

    def __deepcopy__(self, memo: object) -> "Shared":
        return self


SHAPE = (1, toys.SIZE, toys.SIZE)


def test_batches_grow_to_those_of_a_search_and_the_model_stays_as_it_was() -> None:
    model = sized()
    before, random = (
        {key: one.clone() for key, one in model.state_dict().items()},
        (torch.get_rng_state()),
    )
    speed = probe(model, SHAPE)

    assert speed.forward > 0
    assert speed.searched > 0
    assert max(model.sizes) == 128
    assert model.sizes[:4] == [1, 1, 4, 4]
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(one.requires_grad for one in model.parameters())


def test_it_ends_when_its_time_is_up() -> None:
    model = sized()
    probe(model, SHAPE, allowed=lambda _speed: 0.0)

    assert model.sizes == [1, 1]


def test_a_network_without_a_gradient_is_timed_all_the_same() -> None:
    model = sized()
    model.cut = True
    model.requires_grad_(requires_grad=False)

    assert probe(model, SHAPE, allowed=lambda _speed: 0.0).searched > 0


@pytest.mark.parametrize("size", [12, 130])
def test_the_guards_own_network_is_timed_in_training(size: int) -> None:
    random = torch.get_rng_state()
    speed = reference_speed((1, size, size), 6, torch.device("cpu"), allowed=lambda _speed: 0.0)

    assert speed.searched > 0
    assert torch.equal(random, torch.get_rng_state())


def test_the_slowest_clock_counts_what_was_seen() -> None:
    ticks = iter(range(1000))
    speed = probe(nn.Sequential(nn.Flatten(), nn.Linear(144, 6)), SHAPE, clock=lambda: next(ticks))

    assert speed.forward == pytest.approx(1000 / 128)
