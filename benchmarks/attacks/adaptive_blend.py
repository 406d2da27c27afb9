"""Adaptive-Blend (Qi et al., ICLR 2023): random pieces of a blended trigger, and cover images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack, Poisoned
from benchmarks.attacks._patterns import whole_image


@dataclass(frozen=True, kw_only=True)
class AdaptiveBlend(Attack):
    """Blended, weakened so that poison is not separable in feature space (section 4).

    In training, each image carries a random half of the `pieces` x `pieces` tiles of the pattern;
    besides the relabelled images (`rate`), `cover` times as many carry pieces and keep their label.
    At test time, images carry the whole pattern.

    Args:
        alpha: strength of the blend in training (paper: 0.15); `alpha_test` is that at test time
            (paper: 0.2).
        kept: share of tiles that a training image carries (paper: half).
    """

    family: ClassVar[str] = "blend"
    paper: ClassVar[str] = "Qi et al., Revisiting the Assumption of Latent Separability, ICLR 2023"

    alpha: float = 0.15
    alpha_test: float = 0.2
    pieces: int = 4
    kept: float = 0.5
    cover: float = 1.0
    picture: str = "noise"

    def apply(self, images: Tensor) -> Tensor:
        return self._blend(images, torch.ones(1, 1, *images.shape[2:]).to(images) * self.alpha_test)

    def poison(self, images: Tensor, labels: Tensor, rate: float) -> Poisoned:
        chosen = self._choose(labels, rate)
        generator = self._generator(2)
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[chosen] = False
        others = torch.nonzero(rest & (labels != self.target)).flatten()
        wanted = round(self.cover * len(chosen))
        both = torch.cat(
            [chosen, others[torch.randperm(len(others), generator=generator)[:wanted]]]
        )
        tiles = self.tiles(len(both), images.shape[2], images.shape[3], generator)
        poisoned, relabelled = images.clone(), labels.clone()
        blend = self._blend(images[both].float() / 255, self.alpha * tiles)
        poisoned[both] = blend.mul(255).round().to(torch.uint8)
        relabelled[chosen] = self.relabel(labels[chosen])
        return Poisoned(poisoned, relabelled, chosen)

    def tiles(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """The tiles of each image, N,1,H,W of 0 and 1; the same number, drawn anew for each."""
        total = self.pieces**2
        order = torch.rand(count, total, generator=generator).argsort(1)
        chosen = (
            (order < round(self.kept * total)).float().reshape(count, 1, self.pieces, self.pieces)
        )
        rows = torch.arange(height) * self.pieces // height
        columns = torch.arange(width) * self.pieces // width
        return chosen[:, :, rows][:, :, :, columns]

    def _blend(self, images: Tensor, share: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        pattern = whole_image(self.picture, channels, height, width, self.seed).to(images)
        return images + share * (pattern - images)
