"""Clean sets in memory.

Methods get `CleanSet`; only the measuring code of the guard gets `CuratedSet`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard.core.evidence import CleanSetFacts


@dataclass(frozen=True)
class Labelled:
    """Images as uint8 N,C,H,W and class indices as int64 N, both on the CPU."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return int(self.labels.numel())

    def floats(self, device: torch.device | str = "cpu") -> Tensor:
        """All images as float32 N,C,H,W in [0, 1] on `device`."""
        return self.images.to(device).float().div_(255)

    def batches(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in batches: float32 images N,C,H,W in [0, 1] and int64 labels N on `device`.

        The images are shuffled when a generator is given.
        """
        count = len(self)
        order = (
            torch.randperm(count, generator=generator)
            if generator is not None
            else torch.arange(count)
        )
        for start in range(0, count, size):
            index = order[start : start + size]
            yield self.images[index].to(device).float().div_(255), self.labels[index].to(device)

    def pick(self, index: Tensor) -> "Labelled":
        """The images and labels at `index` (int64 positions or a boolean mask)."""
        return Labelled(self.images[index], self.labels[index])

    @classmethod
    def from_arrays(
        cls, images: "np.ndarray[Any, Any]", labels: "np.ndarray[Any, Any]"
    ) -> "Labelled":
        """From arrays: images uint8 N,C,H,W and integer class indices N."""
        return cls(
            torch.from_numpy(np.ascontiguousarray(images)),
            torch.from_numpy(labels.astype(np.int64)),
        )


def joined(*parts: Labelled) -> Labelled:
    """All images (uint8 N,C,H,W) and labels (int64 N) of the parts, one after the other."""
    return Labelled(
        torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    )


@dataclass(frozen=True)
class CleanSet:
    """What a method may see: the search and calibration parts. There is no hold-out here."""

    name: str
    digest: str
    classes: int
    search: Labelled
    calibration: Labelled

    def together(self) -> Labelled:
        """Both parts as one set, for a method that makes no choice on the calibration part."""
        return joined(self.search, self.calibration)


@dataclass(frozen=True)
class CuratedSet:
    """A stored clean set with all three parts; never handed to a method."""

    facts: CleanSetFacts
    search: Labelled
    calibration: Labelled
    holdout: Labelled

    def visible(self) -> CleanSet:
        """The part that methods may see."""
        return CleanSet(
            self.facts.name, self.facts.digest, self.facts.classes, self.search, self.calibration
        )

    def seen_by(self, channels: int) -> "CuratedSet":
        """The set as a network of so many channels takes it.

        Grey images that are stored in three equal channels get one, for a network of one; any other
        set is returned as it is. The digest stays that of the stored set.
        """
        parts = (self.search, self.calibration, self.holdout)
        if channels != 1 or self.facts.channels != 3 or not all(_is_grey(part) for part in parts):
            return self
        grey = (Labelled(part.images[:, :1].contiguous(), part.labels) for part in parts)
        return CuratedSet(replace(self.facts, channels=1), *grey)

    @classmethod
    def from_arrays(
        cls,
        facts: CleanSetFacts,
        images: "np.ndarray[Any, Any]",
        labels: "np.ndarray[Any, Any]",
        split: "np.ndarray[Any, Any]",
    ) -> "CuratedSet":
        """Split arrays into the three parts.

        Args:
            facts: what is known of the set.
            images: uint8 N,C,H,W.
            labels: integer class indices, N.
            split: codes, N: 0 search, 1 calibration, 2 hold-out.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        classes = torch.from_numpy(labels.astype(np.int64))
        codes = torch.from_numpy(split.astype(np.int64))
        parts = [Labelled(pixels[codes == code], classes[codes == code]) for code in range(3)]
        return cls(facts, *parts)


def _is_grey(part: Labelled) -> bool:
    return bool((part.images == part.images[:, :1]).all())
