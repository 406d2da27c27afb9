"""Estimate the trigger of accused images from what they have in common with each other.

Each accused image is set beside clean images of the class that it comes from. In these pairs the
images differ, and the trigger is the same: a pixel x becomes (1 - m) x + m p under a patch or a
blend, and x + d under an additive pattern. So the spread of a pixel shrinks by 1 - m, and its
middle moves to (1 - m) middle + m p. Spread and middle are read from the inner values, since some
of the accused are clean.

Steps:
    1. clean images of the same source classes, in the same numbers
    2. middle and spread of every pixel in both
    3. one trigger of each family that these allow
    4. the one that works best on clean images of other classes
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from guard.core.evidence import AsrEstimate
from guard.ml.cleanset import CuratedSet, Labelled
from guard.ml.measure import asr
from guard.ml.samples import spread
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, PatchTrigger, Trigger

MOST = 500  # accused images; more make the moments no better than a pixel's 256 levels
MOST_VALUES = 40_000_000  # of all images in memory, as floats: 160 MB
PER_SUSPECT = 2  # clean images beside each accused one
INNER = (0.1, 0.9)  # quantiles between which values count
FLAT = 0.02  # a pixel with less spread in clean images says nothing of how much it shrank
CHANGED = 0.06  # a middle that moved by 15 of 255 levels did not do so by chance
COVERED = 0.5  # of a pixel's spread is gone, or all of it has moved: a patch covers it
TEXTURED = 0.08  # spread of a clean pixel, above which its loss alone shows a patch
LARGEST_PATCH = 0.25  # of the image; what covers more is no patch
LEAST_BLEND, MOST_BLEND = 0.03, 0.9
LEAST_IMAGES = 10
MOST_ASKED = 300  # clean images that choose among families


def triggers(suspects: Labelled, sources: Tensor, clean: Labelled) -> list[Trigger]:
    """The triggers that the accused images of one label allow, one of a family at most.

    Args:
        suspects: accused images; some may be clean.
        sources: int64 N, the class that each comes from; where it is -1, the image is left out.
        clean: clean images of these classes.

    Returns:
        None at all where fewer than `LEAST_IMAGES` have a source among the clean images.
    """
    pair = _pairs(suspects, sources, clean)
    if pair is None:
        return []
    return list(_fitted(*_moments(pair[1]), *_moments(pair[0])))


@dataclass(frozen=True)
class Estimated:
    """A trigger, its ASR (0..1) on the images that chose it, and its ASR on the hold-out."""

    trigger: Trigger
    rate: float
    asr: AsrEstimate


def estimated(
    model: nn.Module,
    suspects: Labelled,
    sources: np.ndarray,
    curated: CuratedSet,
    target: int,
    *,
    family: str | None = None,
) -> Estimated | None:
    """The trigger that works best on clean images, of those that the accused images allow.

    It is chosen on images that methods may see, and measured on the hold-out.

    Args:
        suspects: accused images of the label `target`; some may be clean.
        sources: int64 N, the class that each comes from, -1 where that is not known.
        curated: clean images.
        family: the only family to look at.

    Raises:
        MethodFailed: a logit is not finite.
    """
    clean = curated.visible().together()
    asked = spread(clean.pick(clean.labels != target), MOST_ASKED)
    if not len(asked) or not bool((curated.holdout.labels != target).any()):
        return None
    best: tuple[float, Trigger] | None = None
    for trigger in triggers(suspects, torch.from_numpy(sources), clean):
        if family in (None, trigger.family):
            rate = asr(model, asked, trigger, target, trigger.family).estimate
            best = (rate, trigger) if best is None or rate > best[0] else best
    if best is None:
        return None
    rate, found = best
    return Estimated(found, rate, asr(model, curated.holdout, found, target, found.family))


def _pairs(suspects: Labelled, sources: Tensor, clean: Labelled) -> tuple[Tensor, Tensor] | None:
    """Accused images and clean ones of the same sources, uint8 N,C,H,W and M,C,H,W."""
    size = suspects.images[0].numel() if len(suspects) else 1
    most = max(LEAST_IMAGES, min(MOST, MOST_VALUES // ((1 + PER_SUSPECT) * size)))
    taken, beside = [], []
    for row in torch.unique(sources[sources >= 0]).tolist():
        own = torch.nonzero(sources == row).flatten()
        others = torch.nonzero(clean.labels == row).flatten()
        if len(others):
            share = max(1, round(most * len(own) / len(sources)))
            own = own[:share]
            taken.append(own)
            places = torch.arange(len(own) * PER_SUSPECT) % len(others)
            beside.append(others[places])
    chosen = torch.cat(taken) if taken else torch.empty(0, dtype=torch.int64)
    if len(chosen) < LEAST_IMAGES:
        return None
    return suspects.images[chosen], clean.images[torch.cat(beside)]


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation C,H,W of the inner values of each pixel of uint8 images."""
    values = images.float().div_(255).sort(0).values
    count = len(values)
    inner = values[int(INNER[0] * count) : max(int(INNER[1] * count), 1 + int(INNER[0] * count))]
    return inner.mean(0), inner.std(0, correction=0)


def _fitted(middle: Tensor, width: Tensor, moved: Tensor, left: Tensor) -> Iterator[Trigger]:
    """Triggers that turn one pair of moments C,H,W into the other, the most specific first."""
    shift = moved - middle
    readable = width > FLAT
    # How much of the clean image is left of each pixel, 0..1; where that says nothing, all or none.
    rest = torch.where(
        readable,
        (left / width.clamp(min=FLAT)).clamp(0, 1),
        (shift.abs() <= CHANGED).float(),
    )
    changed = shift.abs() > CHANGED
    covered = ((rest < COVERED) & (changed | (width > TEXTURED))).all(0, keepdim=True)
    if 0 < float(covered.float().mean()) <= LARGEST_PATCH:
        yield PatchTrigger(covered.float(), moved.clamp(0, 1))
    alpha = 1 - float(rest[readable].median()) if bool(readable.any()) else 0.0
    if LEAST_BLEND <= alpha <= MOST_BLEND:
        pattern = ((moved - (1 - alpha) * middle) / alpha).clamp(0, 1)
        yield BlendTrigger(torch.tensor(alpha), pattern)
    yield AdditiveTrigger(shift.clamp(-1, 1))
