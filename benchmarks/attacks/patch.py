"""BadNets (Gu et al., 2017): a small patch in a corner, all-to-one."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from benchmarks.attacks._base import Attack, Poisoned
from benchmarks.attacks._patterns import square


@dataclass(frozen=True, kw_only=True)
class Patch(Attack):
    """A square of `size` pixels, `offset` pixels away from the edges of one corner.

    `pattern` is "white", "grey" (mid-grey), "checker" or "random" (seeded noise, the same for every
    image).
    """

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = "Gu et al., BadNets, 2017"

    size: int = 3
    corner: str = "bottom-right"
    offset: int = 1
    pattern: str = "white"

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
        return square(self.pattern, channels, self.size, self.seed)

    def apply(self, images: Tensor) -> Tensor:
        rows, columns = self.place(*images.shape[2:])
        stamped = images.clone()
        stamped[:, :, rows, columns] = self.pixels(images.shape[1]).to(images) / 255
        return stamped

    def poison(
        self, images: Tensor, labels: Tensor, rate: float, target: int | None = None
    ) -> Poisoned:
        """The poison of the base class, for a `target` that may differ from the attack's own."""
        if target is not None and target != self.target:
            return replace(self, target=target).poison(images, labels, rate)
        return super().poison(images, labels, rate)
