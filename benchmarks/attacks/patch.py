"""BadNets (Gu et al., 2017): a small patch in a corner, all-to-one."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A square of `size` pixels, `offset` pixels away from the edges of one corner.

    `pattern` is "white", "grey" (mid-grey), "checker" or "random" (seeded noise, the same for every picture).
    """

    size: int = 3
    corner: str = "bottom-right"
    offset: int = 1
    pattern: str = "white"
    seed: int = 0

    def place(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns that the patch covers."""
        top, left = self.offset, self.offset
        if "bottom" in self.corner:
            top = height - self.offset - self.size
        if "right" in self.corner:
            left = width - self.offset - self.size
        return slice(top, top + self.size), slice(left, left + self.size)

    def pixels(self, channels: int) -> Tensor:
        """The patch itself, uint8 C,size,size."""
        shape = (channels, self.size, self.size)
        if self.pattern == "white":
            return torch.full(shape, 255, dtype=torch.uint8)
        if self.pattern == "grey":
            return torch.full(shape, 128, dtype=torch.uint8)
        if self.pattern == "checker":
            grid = torch.arange(self.size)
            return ((grid[:, None] + grid[None]) % 2 * 255).to(torch.uint8).expand(shape).clone()
        if self.pattern == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        raise ValueError(f"{self.pattern!r} is no pattern; use white, grey, checker or random.")

    def stamp(self, images: Tensor) -> Tensor:
        """A copy of `images` (uint8 N,C,H,W) that carries the patch."""
        rows, columns = self.place(*images.shape[2:])
        stamped = images.clone()
        stamped[:, :, rows, columns] = self.pixels(images.shape[1])
        return stamped

    def poison(self, images: Tensor, labels: Tensor, *, rate: float, target: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stamp and relabel round(rate * N) pictures whose class is not the target, chosen by `seed`.

        Returns:
            Images, labels, and the positions of the poisoned pictures (int64).
        """
        others = torch.nonzero(labels != target).flatten()
        generator = torch.Generator().manual_seed(self.seed)
        chosen = others[torch.randperm(len(others), generator=generator)[: round(rate * len(labels))]]
        poisoned, relabelled = images.clone(), labels.clone()
        poisoned[chosen] = self.stamp(images[chosen])
        relabelled[chosen] = target
        return poisoned, relabelled, chosen
