"""Augmentations change what they say, and nothing else."""

import pytest
import torch
from torch import Tensor

from guard.ml.seeds import seeded
from guard.ml.training import augment

COLOURS = torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "change",
    [
        lambda images: augment.shifted(images, 2),
        augment.mirrored,
        lambda images: augment.resized_crops(images, 0.2),
        augment.jittered,
        lambda images: augment.cutmix(images)[0],
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_stay_images_and_the_draws_are_those_of_the_global_generator(
    change: object, channels: int
) -> None:
    images = torch.rand(16, channels, 9, 12, generator=torch.Generator().manual_seed(1))
    before = images.clone()

    def draw() -> Tensor:
        with seeded(4):
            return change(images)

    made = draw()
    assert torch.equal(made, draw())
    assert torch.equal(images, before)
    assert made.shape == images.shape
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert not torch.equal(made, images)


def test_a_shift_moves_whole_images_and_leaves_black_behind() -> None:
    images = torch.zeros(200, 1, 7, 7)
    images[:, :, 3, 3] = 1
    with seeded(0):
        made = augment.shifted(images, 2)

    places = {tuple(torch.nonzero(one)[0].tolist()) for one in made[:, 0]}
    assert made.sum() == 200
    assert places == {(row, column) for row in range(1, 6) for column in range(1, 6)}
    assert augment.shifted(images, 0) is images


def test_half_of_the_images_are_mirrored() -> None:
    with seeded(0):
        made = augment.mirrored(COLOURS)
    turned = (made == COLOURS.flip(3)).flatten(1).all(1)
    same = (made == COLOURS).flatten(1).all(1)

    assert bool((turned ^ same).all())
    assert 16 < int(turned.sum()) < 48


def test_a_crop_of_everything_is_the_image() -> None:
    ramp = torch.linspace(0, 1, 16).expand(40, 1, 16, 16).contiguous()
    with seeded(0):
        small, large = augment.resized_crops(ramp, 0.05), augment.resized_crops(ramp, 0.99)

    assert float((large - ramp).abs().mean()) < 0.05
    assert float((small - ramp).abs().mean()) > 0.1


def test_colours_change_and_grey_images_stay_grey() -> None:
    grey = COLOURS[:, :1].expand_as(COLOURS)
    with seeded(0):
        made = augment.jittered(grey, often=1.0)
    assert float((made - made.mean(1, keepdim=True)).abs().max()) < 1e-5

    with seeded(0):
        made = augment.jittered(COLOURS, often=0.0, grey=0.5)
    spread = (made - made.mean(1, keepdim=True)).abs().flatten(1).amax(1)
    assert 16 < int((spread < 1e-6).sum()) < 48
    kept = spread >= 1e-6
    assert torch.equal(made[kept], COLOURS[kept])


def test_a_turn_of_the_hue_keeps_brightness_and_a_whole_one_keeps_everything() -> None:
    turns = augment._turns(torch.tensor([0.3, 2 * torch.pi, 2 * torch.pi / 3]))

    assert torch.allclose(turns.sum(2), torch.ones(3, 3), atol=1e-6)
    assert torch.allclose(turns[1], torch.eye(3), atol=1e-5)
    assert torch.allclose(turns[2] @ torch.eye(3)[0], torch.eye(3)[1], atol=1e-5)


def test_the_share_of_cutmix_is_the_share_of_own_pixels() -> None:
    count = 5
    images = torch.arange(count).float()[:, None, None, None].expand(count, 1, 9, 11)
    shares = []
    for seed in range(200):
        with seeded(seed):
            mixed, partner, own = augment.cutmix(images)
        shares.append(own)
        for index in range(count):
            foreign = mixed[index] != index
            assert bool((mixed[index][foreign] == partner[index]).all())
            if partner[index] != index:
                assert 1 - float(foreign.float().mean()) == pytest.approx(own, abs=1e-6)

    assert 0.45 < sum(shares) / len(shares) < 0.85
    assert min(shares) < 0.15
    assert max(shares) > 0.95
