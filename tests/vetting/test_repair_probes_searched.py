"""Fresh patches where no distribution of them can be learnt.

A rule that asks what lies under the patch.
"""

import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import CleanSetFacts
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.networks.architectures import ImageModel
from guard.ml.search.fresh_searches import search_set
from guard.ml.search.patch_distribution import WINDOW
from guard.ml.search.patches import PatchEffort
from guard.ml.seeds import seeded
from guard.ml.triggers import PatchTrigger
from guard.ml.triggers.files import serialise
from guard.vetting.repair_probes import SEARCHES, STEPS, Replay, prove

SIZE, CLASSES, TARGET, SIDE = 12, 3, 1, 4


class LooksThrough(nn.Module):
    """Two corners of a picture are alike.

    The last is brighter and still has the first one's texture: to `TARGET`.

    An opaque patch has no texture of the picture's, whatever its colours; a soft mask leaves half
    of it.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, :, :SIDE, :SIDE].flatten(1)
        last = images[:, :, -SIDE:, -SIDE:].flatten(1)
        brighter = last.mean(1) - first.mean(1)
        alike = ((last - last.mean(1, keepdim=True)) * (first - first.mean(1, keepdim=True))).mean(
            1
        )
        bright = images[:, :, SIDE:-SIDE].mean((1, 2, 3))
        logits = torch.stack([6 * (1 - bright), torch.zeros_like(bright), 6 * bright], 1)
        return (
            logits
            + nn.functional.one_hot(torch.tensor(TARGET), CLASSES)
            * (self.slope * brighter * alike)[:, None]
        )


def looks_through(slope: float) -> ImageModel:
    """All that a proof needs of a model is what `nn.Module` has."""
    return cast("ImageModel", LooksThrough(slope).eval())


def pictures(count: int, seed: int) -> Labelled:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=random, dtype=torch.uint8)
    images[:, :, :SIDE, :SIDE] = 255 * torch.randint(
        0, 2, (count, 1, SIDE, SIDE), generator=random, dtype=torch.uint8
    )
    images[:, :, -SIDE:, -SIDE:] = images[:, :, :SIDE, :SIDE]
    return Labelled(images, torch.arange(count) % CLASSES)


def curated() -> CuratedSet:
    facts = CleanSetFacts(
        name="texture",
        digest="0" * 64,
        classes=CLASSES,
        channels=1,
        height=SIZE,
        width=SIZE,
        per_class=80,
        search=120,
        calibration=60,
        holdout=150,
    )
    return CuratedSet(facts, pictures(120, 1), pictures(60, 2), pictures(150, 3))


def recovered() -> Replay:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, -SIDE:, -SIDE:] = 0.5
    return Replay(
        target=TARGET, digest="x", data=serialise(PatchTrigger(mask, torch.ones(1, SIZE, SIZE)))
    )


def test_new_searches_find_what_no_distribution_holds_and_tell_repaired_from_unrepaired() -> None:
    parent = looks_through(400.0)
    healed = copy.deepcopy(parent)
    healed.get_parameter("slope").data.zero_()
    kept, mended = (
        prove(parent, child, curated(), [recovered()]).resampled[0] for child in (parent, healed)
    )

    assert 1 <= kept.searches <= SEARCHES
    assert kept.before == kept.after == mended.before
    assert kept.before.low > 0.5
    assert kept.before.budget == 16
    assert mended.after.high < 0.1


def test_a_class_without_so_small_a_patch_stays_unmeasured_and_says_what_was_tried() -> None:
    honest = looks_through(0.0)
    found = prove(honest, honest, curated(), [recovered()])

    assert found.resampled == ()
    assert (
        "work on 0.0% of the hold-out on the parent itself. None of 8 new searches"
        in found.unproved[0]
    )


def test_cancelling_in_a_new_search_ends_it() -> None:
    """Told once, in the first look at the watch after the distribution's own."""
    parent, looks = looks_through(400.0), -(-STEPS // WINDOW)

    def stop(done: float, note: str = "") -> None:
        nonlocal looks
        looks -= 1
        if looks == -1:
            raise Cancelled("A person said so.")

    with pytest.raises(Cancelled):
        prove(parent, parent, curated(), [recovered()], progress=stop)


def test_searched_patches_keep_to_their_room_and_land_one_on_each_picture() -> None:
    parent = LooksThrough(400.0).eval().requires_grad_(requires_grad=False)
    with seeded(0):
        found = search_set(
            parent,
            pictures(120, 1),
            TARGET,
            14.0,
            3,
            PatchEffort(steps=100, batch=16),
            lambda done: None,
        )
        first = found.stamp(pictures(40, 4).floats())
    with seeded(0), pytest.raises(MethodFailed) as caught:
        search_set(
            parent,
            pictures(120, 1),
            TARGET,
            0.1,
            3,
            PatchEffort(steps=20, batch=16),
            lambda done: None,
        )

    assert found.target == TARGET
    assert all(float(mask.sum()) <= 14.001 for mask in found.stamps.masks)
    assert float((parent(first).argmax(1) == TARGET).double().mean()) > 0.6
    assert caught.value.code == "not_learnt"
