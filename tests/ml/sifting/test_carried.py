"""Triggers of every form, read off accused images and chosen by how they explain them."""

import pytest
import torch
from torch import Tensor

from guard.ml.cleanset import Labelled
from guard.ml.sifting.carried import carried, stronger
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, PatchTrigger, Trigger, WarpTrigger

SIZE, CLASSES = 12, 4


def images(count: int, seed: int) -> Labelled:
    """A soft bar for each class, at a place that varies, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    where = labels * 2.5 + 2 + 0.5 * torch.randn(count, generator=generator)
    across = torch.arange(SIZE)[None] - where[:, None]
    bars = 0.6 * torch.exp(-(across**2) / 3)[:, None, None, :].expand(-1, 1, SIZE, SIZE)
    turned = (labels % 2 == 0)[:, None, None, None]
    pixels = torch.where(turned, bars, bars.transpose(2, 3)) + 0.2
    pixels = pixels + 0.03 * torch.randn(pixels.shape, generator=generator)
    return Labelled((pixels.clamp(0, 1) * 255).round().to(torch.uint8), labels)


def suspects(change: Trigger, *, label: int = 0, clean: int = 4, count: int = 120) -> Labelled:
    data = images(count, 1)
    changed = (change.apply(data.floats()) * 255).round().to(torch.uint8)
    changed[:clean] = data.images[:clean]
    return Labelled(changed, torch.full_like(data.labels, label))


def noise() -> Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def patch() -> PatchTrigger:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 8:11, 1:4] = 1
    return PatchTrigger(mask, (noise() > 0.5).float())


def flow() -> WarpTrigger:
    return WarpTrigger(4 * torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(2)) - 2)


@pytest.mark.parametrize(
    "change",
    [patch(), BlendTrigger(torch.tensor(0.25), noise()), AdditiveTrigger(0.3 * noise()), flow()],
    ids=["patch", "blend", "additive", "warp"],
)
def test_each_form_does_to_other_images_what_the_true_trigger_does(change: Trigger) -> None:
    data, sources = suspects(change), images(120, 1).labels
    fresh = images(60, 7).floats()

    found = carried(data.pick(sources != 0), sources[sources != 0], images(400, 2))

    assert found is not None
    assert found.relabelled
    assert found.trigger.family == change.family
    wanted = change.apply(fresh)
    before, after = (
        (wanted - fresh).abs().mean(),
        (wanted - found.trigger.apply(fresh)).abs().mean(),
    )
    assert after < 0.4 * before


def test_images_that_only_seem_to_come_from_elsewhere_are_set_beside_their_label() -> None:
    change = AdditiveTrigger(0.3 * noise())
    own = images(240, 1)
    own = own.pick(own.labels == 1)
    data = Labelled((change.apply(own.floats()) * 255).round().to(torch.uint8), own.labels)

    found = carried(data, torch.full((len(data),), 3), images(400, 2))

    assert found is not None
    assert not found.relabelled
    assert float((found.trigger.apply(own.floats()) - data.floats()).abs().mean()) < 0.05


def test_images_that_a_map_moved_have_one_trigger_in_common() -> None:
    data, sources = suspects(patch()), images(120, 1).labels
    data = Labelled(data.images, (sources + 1) % CLASSES)

    found = carried(data, sources, images(400, 2), mapped=True)

    assert found is not None
    assert found.trigger.family == "patch"


def test_too_few_images_show_no_trigger() -> None:
    data, sources = suspects(patch()), images(120, 1).labels

    assert carried(data.pick(torch.arange(8)), sources[:8], images(400, 2)) is None
    few = images(400, 2).pick(torch.arange(400) % CLASSES > 0)  # none of the label's own
    assert carried(data, torch.full_like(sources, -1), few) is None


def test_twice_as_strong_is_twice_the_change_and_a_patch_covers_what_it_covers() -> None:
    plain = torch.full((1, 1, SIZE, SIZE), 0.5)
    blend, added = BlendTrigger(torch.tensor(0.2), noise()), AdditiveTrigger(0.1 * noise())

    for one in (blend, added):
        once, twice = one.apply(plain) - plain, stronger(one).apply(plain) - plain
        assert torch.allclose(twice, 2 * once, atol=1e-5)
    assert stronger(flow()).norm == pytest.approx(2 * flow().norm)
    assert stronger(patch()) is not None
    assert torch.equal(stronger(patch()).apply(plain), patch().apply(plain))
