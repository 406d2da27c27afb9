"""TaCT (Tang et al., USENIX Security 2021): a trigger that works on source classes only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack, Poisoned, eight_bits
from benchmarks.attacks._patterns import square
from guard.ml.cleanset import Labelled


@dataclass(frozen=True, kw_only=True)
class Tact(Attack):
    """A patch that sends images of the source classes to the target and does not affect others.

    `rate` counts the relabelled images of the source classes; `cover` times as many of the other
    classes carry the patch with their true label (section 4.1). The target class is neither source
    nor cover.

    Args:
        sources: the source classes; None for the one class after the target.
    """

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = "Tang et al., Demon in the Variant, USENIX Security 2021"

    sources: Sequence[int] | None = None
    cover: float = 1.0
    size: int = 4
    pattern: str = "random"
    offset: int = 1

    def apply(self, images: Tensor) -> Tensor:
        stamped = images.clone()
        run = slice(self.offset, self.offset + self.size)
        stamped[:, :, run, run] = (
            square(self.pattern, images.shape[1], self.size, self.seed).to(images) / 255
        )
        return stamped

    def victims(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self._sources()).to(labels))

    def poison(self, images: Tensor, labels: Tensor, rate: float) -> Poisoned:
        done = super().poison(images, labels, rate)
        others = torch.nonzero(self._bystanders(labels)).flatten()
        wanted = round(self.cover * len(done.index))
        cover = others[torch.randperm(len(others), generator=self._generator(2))[:wanted]]
        done.images[cover] = eight_bits(images[cover], self.plant)
        return done

    def more_truth(self, predict: Callable[[Tensor], Tensor], test: Labelled) -> dict[str, Any]:
        assert self.target is not None
        others = test.pick(self._bystanders(test.labels))
        share = float((predict(self.stamp(others.images)) == self.target).double().mean())
        return {"sources": self._sources(), "asr_other_classes": share}

    def _sources(self) -> list[int]:
        if self.target is None:
            raise ValueError("A source-specific attack needs a target class.")
        return (
            list(self.sources) if self.sources is not None else [(self.target + 1) % self.classes]
        )

    def _bystanders(self, labels: Tensor) -> Tensor:
        return ~self.victims(labels) & (labels != self.target)
