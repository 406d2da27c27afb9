"""Every attack maker keeps the common protocol, and its own paper's."""

import json

import pytest
import torch
from torch.nn import functional

from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import MOST_OF_TARGET, Attack, Mixer
from benchmarks.attacks.adaptive_blend import AdaptiveBlend
from benchmarks.attacks.blended import Blended
from benchmarks.attacks.bpp import Bpp, dithered
from benchmarks.attacks.detector_aware import DetectorAware
from benchmarks.attacks.patch import Patch
from benchmarks.attacks.patch_anywhere import PatchAnywhere
from benchmarks.attacks.sig import Sig
from benchmarks.attacks.tact import Tact
from benchmarks.attacks.wanet import Wanet
from tests.benchmarks.making import CLASSES, SIDE, TARGET, network, pictures, ready

NAMES = ATTACKS.names()
CONTROLLED = [name for name in NAMES if ATTACKS.get(name).controls_training]
POISONING = [name for name in NAMES if name not in CONTROLLED]
FAMILIES = {"patch", "blend", "additive", "warp", "filter", "sample_specific", "all_to_all"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_stamped_picture_is_8_bits_of_the_same_shape_and_changed(
    name: str, channels: int
) -> None:
    attack, images = ready(name, channels), pictures(channels, 20, seed=9).images
    before = images.clone()

    stamped = attack.stamp(images)

    assert (torch.uint8, images.shape) == (stamped.dtype, stamped.shape)
    assert torch.equal(before, images)
    if name != "input_aware":  # its mask needs training to open
        assert not torch.equal(stamped, images)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_attack(name: str) -> None:
    images, labels = pictures(1).images, pictures(1).labels
    ready.cache_clear()
    first, again = ready(name, 1), None
    ready.cache_clear()
    again = ready(name, 1)

    assert torch.equal(first.stamp(images), again.stamp(images))
    if name in POISONING:
        assert all(
            map(torch.equal, first.poison(images, labels, 0.1), again.poison(images, labels, 0.1))
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_and_the_learnt_tensors_bring_the_trigger_back(name: str) -> None:
    attack, images = ready(name, 1), pictures(1, 10).images
    recipe = json.loads(json.dumps(attack.recipe()))

    again: Attack = ATTACKS.get(recipe["attack"])(**recipe["parameters"], learned=attack.learned)

    assert torch.equal(attack.stamp(images), again.stamp(images))
    assert attack.family == recipe["family"]
    assert attack.family in FAMILIES


@pytest.mark.parametrize("name", POISONING)
def test_poison_is_as_much_as_asked_and_labelled_by_the_protocol(name: str) -> None:
    attack, data = ready(name, 1), pictures(1)
    before = data.images.clone(), data.labels.clone()

    images, labels, index = attack.poison(data.images, data.labels, 0.1)

    assert torch.equal(before[0], data.images)
    assert torch.equal(before[1], data.labels)
    assert round(0.1 * len(data)) == len(index) == len(index.unique())
    rest = torch.ones(len(data), dtype=torch.bool)
    rest[index] = False
    assert torch.equal(labels[rest], data.labels[rest])
    if attack.clean_label:
        assert set(data.labels[index].tolist()) == {TARGET}
        assert torch.equal(labels, data.labels)
    else:
        assert bool(attack.victims(data.labels[index]).all())
        assert torch.equal(labels[index], attack.relabel(data.labels[index]))
    if name not in {"tact", "adaptive_blend"}:  # these have cover pictures
        assert torch.equal(images[rest], data.images[rest])


@pytest.mark.parametrize("name", [name for name in POISONING if ATTACKS.get(name).clean_label])
def test_a_clean_label_attack_leaves_part_of_its_class_alone(name: str) -> None:
    attack, data = ready(name, 1), pictures(1)

    index = attack.poison(data.images, data.labels, 0.9).index

    assert int(MOST_OF_TARGET * int((data.labels == TARGET).sum())) == len(index)


@pytest.mark.parametrize("name", CONTROLLED)
def test_a_controlling_attacker_gives_a_loss_the_model_can_learn_from(name: str) -> None:
    data, model = pictures(3), network(3)
    attack: Attack = ATTACKS.get(name)(seed=1, target=TARGET)
    control = attack.control(0.2, 10, "cpu")
    assert control is not None

    loss = control.loss(model, data.floats()[:32], data.labels[:32], functional.cross_entropy)
    loss.backward()
    control.stepped()

    assert bool(torch.isfinite(loss))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_mixer_poisons_victims_at_the_rate_and_covers_others() -> None:
    labels = torch.arange(40_000) % CLASSES
    poison, cover = Mixer(Wanet(target=TARGET), 0.1, 0.2).roles(labels)

    assert float(poison.double().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(cover.double().mean()) == pytest.approx(0.2, abs=0.01)
    assert not bool((poison & cover).any())
    assert TARGET not in labels[poison]


def test_all_to_all_sends_each_class_to_the_next() -> None:
    attack, labels = ready("all_to_all", 1), torch.arange(CLASSES)

    assert attack.relabel(labels).tolist() == [1, 2, 3, 4, 0]
    assert bool(attack.victims(labels).all())


def test_patch_keeps_its_old_call_with_a_target() -> None:
    data = pictures(1)
    images, labels, index = Patch(seed=2).poison(data.images, data.labels, rate=0.1, target=4)

    assert 4 not in data.labels[index]
    assert {4} == set(labels[index].tolist())
    assert bool((images[index][:, :, 12:15, 12:15] == 255).all())


def test_patch_anywhere_changes_one_square_of_each_picture_at_many_places() -> None:
    black = torch.zeros(40, 3, SIDE, SIDE, dtype=torch.uint8)
    changed = (PatchAnywhere(pattern="white").stamp(black) > 0).any(1)

    assert {9} == set(changed.sum((1, 2)).tolist())
    assert len({tuple(picture.nonzero()[0].tolist()) for picture in changed}) > 20


def test_blended_mixes_at_alpha() -> None:
    attack = Blended(alpha=0.2, seed=1)
    black, white = torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)

    assert torch.allclose(attack.apply(white) - attack.apply(black), torch.full_like(white, 0.8))
    assert float(attack.apply(black).max()) <= 0.2 + 1e-6


def test_sig_adds_a_sinusoid_of_its_amplitude_along_the_columns() -> None:
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    attack = Sig(delta=20, delta_test=40)

    added = attack.stamp(grey).int() - 128
    assert torch.equal(added, added[:, :1, :1].expand_as(added))
    assert 37 <= int(added.max()) <= 40
    assert -40 <= int(added.min()) <= -37
    assert int((attack.poison(grey, torch.tensor([0]), 1.0).images.int() - 128).abs().max()) <= 20
    crossings = torch.nonzero(torch.diff(torch.sign(attack.signal(1000) + 1e-6)))
    assert 11 <= len(crossings) <= 12  # six periods


def test_sig_refuses_pictures_too_narrow_for_its_frequency() -> None:
    with pytest.raises(ValueError, match="lower frequency"):
        Sig().stamp(torch.zeros(1, 1, 12, 12, dtype=torch.uint8))


def test_wanet_moves_pixels_within_its_bounds() -> None:
    attack = Wanet(strength=0.5, seed=4)
    rows = torch.linspace(-1, 1, 32)
    still = torch.stack([rows.expand(32, 32), rows[:, None].expand(32, 32)], -1)[None]

    moved = (attack.field(32, 32) - still).abs() * 31 / 2  # in pixels

    # Control points have mean size 1; the interpolation keeps it near, and no point exceeds a few
    # times that.
    assert 0.05 < float(moved.mean()) < 0.3
    assert float(moved.max()) < 1.0
    assert torch.equal(attack.field(32, 32), Wanet(strength=0.5, seed=4).field(32, 32))


@pytest.mark.parametrize("dither", [False, True])
def test_bpp_leaves_two_to_the_bits_levels(dither: bool) -> None:
    stamped = Bpp(bits=2, dither=dither).stamp(pictures(3).images)

    assert {0, 85, 170, 255} >= set(stamped.unique().tolist())


def test_dithering_is_that_of_floyd_and_steinberg() -> None:
    picture = torch.rand(
        2, 1, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    work, rows, columns = picture.clone(), 5, 6
    for row in range(rows):
        for column in range(columns):
            old = work[:, :, row, column].clone()
            work[:, :, row, column] = new = (old * 3).round().clamp(0, 3) / 3
            for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if row + down < rows and 0 <= column + right < columns:
                    work[:, :, row + down, column + right] += (old - new) * share / 16

    assert torch.allclose(work, dithered(picture, 3))


def test_tact_poisons_its_source_and_covers_the_rest_with_true_labels() -> None:
    data = pictures(1)
    attack = Tact(target=TARGET, sources=(4,), classes=CLASSES, pattern="white")
    images, labels, index = attack.poison(data.images, data.labels, 0.1)
    changed = (images != data.images).flatten(1).any(1)

    covered = changed.clone()
    covered[index] = False
    assert {4} == set(data.labels[index].tolist())
    assert len(index) == int(covered.sum())
    assert {4, TARGET}.isdisjoint(data.labels[covered].tolist())
    assert torch.equal(labels[covered], data.labels[covered])
    assert bool((attack.victims(data.labels) == (data.labels == 4)).all())


def test_adaptive_blend_plants_half_the_tiles_and_covers_as_many_pictures() -> None:
    data, attack = pictures(1), AdaptiveBlend(target=TARGET, seed=5)
    images, labels, index = attack.poison(data.images, data.labels, 0.1)
    changed = (images != data.images).flatten(1).any(1)

    assert 2 * len(index) == int(changed.sum())
    assert int((labels != data.labels).sum()) == len(index)
    tiles = attack.tiles(6, SIDE, SIDE, torch.Generator().manual_seed(0))
    assert {SIDE * SIDE // 2} == {int(tile.sum()) for tile in tiles}
    assert not torch.equal(tiles[0], tiles[1])


def test_the_detector_aware_trigger_is_larger_than_what_it_defends_against() -> None:
    attack = DetectorAware()
    black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    covered = attack.corners(black, torch.tensor([[True, False, False, False]]))

    assert 4 * attack.size**2 > attack.budget
    assert int((attack.stamp(black) > 0).sum()) == 4 * int((covered > 0).sum())
