"""BadNets with the patch at a random place in every image, so that no fixed mask explains it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack
from benchmarks.attacks._patterns import square


@dataclass(frozen=True, kw_only=True)
class PatchAnywhere(Attack):
    """A square of `size` pixels at a random place in each image; `pattern` as in `patch`."""

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = (
        "Gu et al., BadNets, 2017; places drawn as in Salem et al., Dynamic Backdoor Attacks, 2022"
    )

    size: int = 3
    pattern: str = "checker"

    def apply(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        draw = torch.rand(count, 2, generator=self._generator(1))
        top = (draw[:, 0] * (height - self.size + 1)).long()
        left = (draw[:, 1] * (width - self.size + 1)).long()
        run = torch.arange(self.size)
        rows = (top[:, None] + run)[:, None, :, None].expand(count, channels, self.size, self.size)
        columns = (left[:, None] + run)[:, None, None, :].expand_as(rows)
        stamped = images.clone()
        which = (
            torch.arange(count)[:, None, None, None],
            torch.arange(channels)[None, :, None, None],
        )
        pixels = square(self.pattern, channels, self.size, self.seed).to(images) / 255
        stamped[which[0].expand_as(rows), which[1].expand_as(rows), rows, columns] = pixels.expand(
            rows.shape
        )
        return stamped
