"""Trigger sets on a model whose family of triggers is known.

A corner that obeys red and obeys blue.
"""

import pytest
import torch
from torch import Tensor, nn

from guard.ml.cleanset import Labelled
from guard.ml.search.fresh_patches import Region, TriggerSet, learn_sets, paint
from guard.ml.search.patch_distribution import DistributionEffort
from guard.ml.seeds import seeded

SIZE, TARGET = 8, 1
CORNER = (slice(0, 2), slice(0, 2))


class RedOrBlue(nn.Module):
    """Three classes by brightness.

    A pure red or a pure blue corner sends everything to `TARGET`.
    """

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = images[:, :, CORNER[0], CORNER[1]].clamp(0, 1).mean((2, 3)).unbind(1)
        pure = (red - blue).abs() - green
        bright = images[:, :, 4:, 4:].mean((1, 2, 3))
        logits = torch.stack([6 * (1 - bright), torch.zeros_like(bright), 6 * bright], 1)
        return logits + nn.functional.one_hot(torch.tensor(TARGET), 3) * 15 * pure[:, None]


def mask() -> Tensor:
    found = torch.zeros(1, SIZE, SIZE)
    found[:, CORNER[0], CORNER[1]] = 0.8
    return found


def pictures(count: int = 60) -> Labelled:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return Labelled(images, torch.arange(count) % 3)


@pytest.fixture(scope="module")
def learnt() -> TriggerSet:
    with seeded(0):
        return learn_sets(
            RedOrBlue().eval(),
            pictures(),
            [TARGET],
            [Region.found(mask(), 4)],
            DistributionEffort(steps=200, batch=16, width=32),
            lambda done: None,
        )[0]


def test_samples_cover_more_than_one_colour_and_most_of_them_work(learnt: TriggerSet) -> None:
    with seeded(1):
        patches = learnt.draw(300)
        stamped = learnt.stamp(pictures(300).floats())
    red, green, blue = patches.mean(2).unbind(1)
    share = float((red > blue).double().mean())

    assert 0.1 <= share <= 0.9
    assert float((green < 0.5).double().mean()) >= 0.9
    assert float((RedOrBlue()(stamped).argmax(1) == TARGET).double().mean()) >= 0.8


def test_a_stamp_changes_the_region_alone_and_each_picture_otherwise(learnt: TriggerSet) -> None:
    images = pictures(10).floats()
    with seeded(2):
        stamped = learnt.stamp(images)
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    outside[CORNER] = False

    assert torch.equal(stamped[:, :, outside], images[:, :, outside])
    assert (
        len({tuple(row) for row in stamped[:, :, CORNER[0], CORNER[1]].flatten(1).tolist()}) == 10
    )


def test_samples_become_ordinary_triggers(learnt: TriggerSet) -> None:
    with seeded(3):
        triggers = learnt.triggers(5)
    images = pictures(4).floats()

    assert len(triggers) == 5
    assert all(trigger.norm == 4 for trigger in triggers)
    assert not torch.equal(triggers[0].apply(images), triggers[3].apply(images))


def test_a_region_is_where_the_mask_has_weight_and_grows_around_it() -> None:
    four, nine = Region.found(mask(), 4), Region.found(mask(), 9)

    assert four.places.tolist() == [0, 1, 8, 9]
    assert (
        set(four.places.tolist())
        < set(nine.places.tolist())
        <= {row * 8 + column for row in range(3) for column in range(3)}
    )


def test_the_papers_square_lands_anywhere_and_stays_inside() -> None:
    region = Region.square(mask(), 3)
    with seeded(0):
        places = region.positions(200)
    rows, columns = places // SIZE, places % SIZE

    assert bool(
        (rows[:, -1] - rows[:, 0] == 2).all() and (columns[:, -1] - columns[:, 0] == 2).all()
    )
    assert len(set(places[:, 0].tolist())) > 20
    assert int(rows.max()) == int(columns.max()) == SIZE - 1
    assert (
        Region.square(mask(), 3, anywhere=False).positions(2).tolist()
        == [[0, 1, 2, 8, 9, 10, 16, 17, 18]] * 2
    )


def test_painting_passes_gradients_to_the_patch_alone() -> None:
    images = torch.zeros(2, 3, SIZE, SIZE, requires_grad=True)
    patches = torch.full((2, 3, 4), 0.5, requires_grad=True)

    paint(images, patches, Region.found(mask(), 4).positions(2)).sum().backward()

    assert patches.grad is not None
    assert torch.equal(patches.grad, torch.ones(2, 3, 4))
