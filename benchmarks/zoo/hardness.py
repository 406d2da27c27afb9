"""Changes of data or training that make honest models look suspicious."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guard.ml.cleanset import Labelled

NOISE = 0.2
RARE = 0.1
SHORTCUT = 0.5
BADGE = 2


@dataclass(frozen=True)
class Hardness:
    """Overrides of the training and a seeded change of the training set, without a backdoor."""

    training: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Labelled, int, int], Labelled] | None = None


def noisy_labels(data: Labelled, classes: int, seed: int) -> Labelled:
    """Redraw a fifth of the labels, uniformly over the other classes."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(data), generator=generator) < NOISE
    shift = torch.randint(1, classes, (len(data),), generator=generator)
    return Labelled(data.images, torch.where(wrong, (data.labels + shift) % classes, data.labels))


def unbalanced(data: Labelled, classes: int, seed: int) -> Labelled:
    """Let class sizes fall geometrically to a tenth, in an order drawn by the seed.

    This is the long-tailed setting of Cui et al., CVPR 2019.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(classes, generator=generator)
    keep: list[Tensor] = []
    for label in range(classes):
        own = torch.nonzero(data.labels == label).flatten()
        share = RARE ** (float(place[label]) / (classes - 1))
        keep.append(
            own[torch.randperm(len(own), generator=generator)[: max(8, round(share * len(own)))]]
        )
    return data.pick(torch.cat(keep).sort().values)


def shortcut(data: Labelled, classes: int, seed: int) -> Labelled:
    """A natural shortcut: half of one class's images carry a grey badge of 2x2 pixels.

    No label is changed and no other image has the badge, yet the model may learn it, as it may
    learn a watermark: a natural trojan. The truth states how far it did (`natural_asr`).
    """
    generator = torch.Generator().manual_seed(seed)
    marked = (data.labels == shortcut_class(classes, seed)) & (
        torch.rand(len(data), generator=generator) < SHORTCUT
    )
    images = data.images.clone()
    images[marked] = badged(images[marked])
    return Labelled(images, data.labels)


def shortcut_class(classes: int, seed: int) -> int:
    """The class whose images carry the badge."""
    return int(torch.randint(classes, (1,), generator=torch.Generator().manual_seed(seed + 1)))


def badged(images: Tensor) -> Tensor:
    """A copy of uint8 N,C,H,W with the badge."""
    marked = images.clone()
    marked[:, :, 1 : 1 + BADGE, 1 : 1 + BADGE] = 160
    return marked


HARD: dict[str, Hardness] = {
    "label_smoothing": Hardness({"smoothing": 0.2}),
    "mixup": Hardness({"mixup": 0.4}),
    "heavy_decay": Hardness({"weight_decay": 0.3}),
    "few_epochs": Hardness({"epochs": 2}),
    "many_epochs": Hardness({"epochs": 16}),
    "no_decay": Hardness({"weight_decay": 0.0}),
    "unbalanced": Hardness(change=unbalanced),
    "noisy_labels": Hardness(change=noisy_labels),
    "shortcut": Hardness(change=shortcut),
}
