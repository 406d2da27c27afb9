"""A photographic filter as trigger, as in ABS (Liu et al., CCS 2019) and TrojAI; all-to-one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack


@dataclass(frozen=True, kw_only=True)
class ColourFilter(Attack):
    """x' = clip(A x^gamma + b) per pixel: gamma, a mixture of channels near the identity, a tint.

    With one channel it is a tone curve. `strength` scales all three; 0 changes nothing.
    """

    family: ClassVar[str] = "filter"
    paper: ClassVar[str] = (
        "Liu et al., ABS, CCS 2019 (Instagram filters); drawn at random instead of photographic"
    )

    strength: float = 0.4

    def apply(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        generator = self._generator(1)
        mixing = torch.eye(channels) * (1 - self.strength / 2)
        mixing = mixing + self.strength / 2 * torch.softmax(
            2 * torch.randn(channels, channels, generator=generator), 1
        )
        tint = self.strength * (0.2 + 0.3 * torch.rand(channels, 1, 1, generator=generator))
        curve = images ** (1 + self.strength)
        mapped = torch.einsum("dc,nchw->ndhw", mixing.to(images), curve)
        return (mapped * (1 - tint.to(images)) + tint.to(images)).clamp(0, 1)
