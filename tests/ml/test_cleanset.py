"""Clean sets in memory: batches, parts, and that a method cannot reach the hold-out."""

import dataclasses

import numpy as np
import torch

from guard.ml.cleanset import CleanSet, CuratedSet, Labelled
from tests import toys


def numbered(count: int) -> Labelled:
    images = (
        torch.arange(count, dtype=torch.uint8)[:, None, None, None]
        .expand(count, 1, 2, 2)
        .contiguous()
    )
    return Labelled(images, torch.arange(count))


def test_batches_cover_everything_once_in_order() -> None:
    parts = list(numbered(7).batches(3))

    assert [len(labels) for _, labels in parts] == [3, 3, 1]
    assert torch.cat([labels for _, labels in parts]).tolist() == list(range(7))
    assert torch.allclose(
        torch.cat([images for images, _ in parts])[:, 0, 0, 0] * 255, torch.arange(7.0)
    )


def test_shuffled_batches_follow_the_generator_and_keep_pictures_with_labels() -> None:
    orders = []
    for seed in (1, 1, 2):
        parts = list(numbered(20).batches(6, generator=torch.Generator().manual_seed(seed)))
        images, labels = (
            torch.cat([part[0] for part in parts]),
            torch.cat([part[1] for part in parts]),
        )
        assert torch.allclose(images[:, 0, 0, 0] * 255, labels.float())
        assert sorted(labels.tolist()) == list(range(20))
        orders.append(labels.tolist())

    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_floats_are_in_zero_to_one_and_the_pictures_stay_bytes() -> None:
    data = Labelled(
        torch.tensor([0, 128, 255], dtype=torch.uint8).reshape(3, 1, 1, 1), torch.arange(3)
    )

    assert torch.allclose(data.floats().flatten(), torch.tensor([0.0, 128 / 255, 1.0]))
    assert data.images.dtype == torch.uint8


def test_picking_by_mask_and_by_position() -> None:
    data = numbered(5)

    assert data.pick(data.labels > 2).labels.tolist() == [3, 4]
    assert data.pick(torch.tensor([4, 0])).images[:, 0, 0, 0].tolist() == [4, 0]


def test_arrays_are_split_by_their_codes() -> None:
    facts = toys.curated().facts
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)

    made = CuratedSet.from_arrays(
        facts, images, np.arange(6, dtype=np.int32), np.array([0, 2, 1, 0, 2, 2])
    )

    assert made.search.labels.tolist() == [0, 3]
    assert made.calibration.labels.tolist() == [2]
    assert made.holdout.labels.tolist() == [1, 4, 5]
    assert made.holdout.images.flatten().tolist() == [1, 4, 5]


def test_what_a_method_sees_has_no_hold_out() -> None:
    whole = toys.curated()
    seen = whole.visible()
    parts = [
        value
        for value in (getattr(seen, field.name) for field in dataclasses.fields(seen))
        if isinstance(value, Labelled)
    ]

    assert type(seen) is CleanSet
    assert not hasattr(seen, "holdout")
    assert [part is whole.holdout for part in parts] == [False, False]
    held = whole.holdout.images.untyped_storage().data_ptr()
    assert all(part.images.untyped_storage().data_ptr() != held for part in parts)
