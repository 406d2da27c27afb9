"""Honest changes of a training set that a sift must not take for poison."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from benchmarks.zoo.hardness import shortcut, unbalanced
from guard.ml.cleanset import Labelled

WRONG = 0.05  # share of random label errors
CONFUSED = 0.3  # share of one class that a systematic error moves to another
COPIED = 0.1  # share of images that are there twice, with a little noise
GREY_LEVELS = 3


def plain(data: Labelled, _classes: int, _seed: int) -> Labelled:
    return data


def random_mislabels(data: Labelled, classes: int, seed: int) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(data), generator=generator) < WRONG
    shift = torch.randint(1, classes, (len(data),), generator=generator)
    return Labelled(data.images, torch.where(wrong, (data.labels + shift) % classes, data.labels))


def systematic_mislabels(data: Labelled, classes: int, seed: int) -> Labelled:
    """Images of one class under the label of another, as one careless annotator leaves them.

    Of the ten clothes it is shirts among the T-shirts.
    """
    generator = torch.Generator().manual_seed(seed)
    source, label = (6, 0) if classes == 10 else (0, 1)
    wrong = (data.labels == source) & (torch.rand(len(data), generator=generator) < CONFUSED)
    return Labelled(
        data.images, torch.where(wrong, torch.full_like(data.labels, label), data.labels)
    )


def near_duplicates(data: Labelled, _classes: int, seed: int) -> Labelled:
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[: round(COPIED * len(data))]
    noise = torch.randint(
        -GREY_LEVELS, GREY_LEVELS + 1, data.images[chosen].shape, generator=generator
    )
    copies = (data.images[chosen].int() + noise).clamp(0, 255).to(torch.uint8)
    return Labelled(torch.cat([data.images, copies]), torch.cat([data.labels, data.labels[chosen]]))


HONEST: Mapping[str, Callable[[Labelled, int, int], Labelled]] = {
    "plain": plain,
    "unbalanced": unbalanced,
    "random_mislabels": random_mislabels,
    "systematic_mislabels": systematic_mislabels,
    "near_duplicates": near_duplicates,
    "shortcut": shortcut,
}


def chosen_mask(count: int, index: Tensor) -> Tensor:
    """bool N, true at the places int64."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[index] = True
    return mask
