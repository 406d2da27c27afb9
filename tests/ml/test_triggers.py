"""Patch triggers: what stamping does, what is refused, and the way to bytes and back."""

import pytest
import torch

from guard.core.errors import InputError
from guard.ml.trigger_files import deserialise, serialise
from guard.ml.triggers import PatchTrigger, from_tensors


def trigger(channels: int = 3) -> PatchTrigger:
    mask = torch.zeros(1, 4, 5)
    mask[0, 1, 2], mask[0, 3, 4] = 1.0, 0.25
    return PatchTrigger(mask, torch.full((channels, 4, 5), 0.8))


def test_it_replaces_where_the_mask_is_one_and_mixes_where_it_is_less() -> None:
    images = torch.full((2, 3, 4, 5), 0.4)
    before = images.clone()

    stamped = trigger().apply(images)

    assert torch.allclose(stamped[:, :, 1, 2], torch.tensor(0.8))
    assert torch.allclose(stamped[:, :, 3, 4], torch.tensor(0.75 * 0.4 + 0.25 * 0.8))
    untouched = torch.ones(4, 5, dtype=torch.bool)
    untouched[1, 2] = untouched[3, 4] = False
    assert torch.equal(stamped[:, :, untouched], images[:, :, untouched])
    assert torch.equal(images, before)


def test_stamped_images_stay_in_range() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 6, 6)
    some = PatchTrigger(torch.rand(shape, generator=generator), torch.rand(shape, generator=generator))

    stamped = some.apply(torch.rand(8, *shape, generator=generator))

    assert float(stamped.min()) >= 0
    assert float(stamped.max()) <= 1


def test_its_norm_is_in_pixels_whatever_the_channels() -> None:
    assert trigger(1).norm == trigger(3).norm == 1.25


@pytest.mark.parametrize(("mask", "pattern"), [
    (torch.zeros(4, 5), torch.zeros(3, 4, 5)),
    (torch.zeros(3, 4, 5), torch.zeros(3, 4, 5)),
    (torch.zeros(1, 4, 5), torch.zeros(3, 5, 4)),
    (torch.full((1, 4, 5), 1.5), torch.zeros(3, 4, 5)),
    (torch.zeros(1, 4, 5), torch.full((3, 4, 5), -0.1)),
    (torch.zeros(1, 4, 5), torch.full((3, 4, 5), float("nan"))),
    (torch.zeros(1, 4, 5, dtype=torch.int64), torch.zeros(3, 4, 5)),
])
def test_what_is_no_patch_is_refused(mask: torch.Tensor, pattern: torch.Tensor) -> None:
    with pytest.raises(InputError, match="patch trigger"):
        PatchTrigger(mask, pattern)


def test_tensors_and_bytes_bring_the_same_trigger_back() -> None:
    first = trigger()

    for again in (from_tensors("patch", first.to_tensors()), deserialise(serialise(first))):
        assert torch.equal(again.mask, first.mask)
        assert torch.equal(again.pattern, first.pattern)
    assert serialise(first) == serialise(trigger())


def test_unknown_families_and_missing_tensors_are_refused() -> None:
    tensors = trigger().to_tensors()

    with pytest.raises(InputError, match="warp"):
        from_tensors("warp", tensors)
    with pytest.raises(InputError, match="mask and pattern"):
        from_tensors("patch", {"mask": tensors["mask"]})
