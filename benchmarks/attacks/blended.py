"""Blended (Chen et al., 2017): a whole image is blended into every poisoned one, all-to-one."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from benchmarks.attacks._base import Attack
from benchmarks.attacks._patterns import whole_image


@dataclass(frozen=True, kw_only=True)
class Blended(Attack):
    """The paper's blended injection, x' = (1 - alpha) x + alpha p, with one alpha for all images.

    Args:
        alpha: 0.2 as in the paper; later papers call 0.1 hard.
        picture: "noise", like the paper's random pattern, or "texture" (smooth, instead of its
            cartoon).
    """

    family: ClassVar[str] = "blend"
    paper: ClassVar[str] = "Chen et al., Targeted Backdoor Attacks on Deep Learning Systems, 2017"

    alpha: float = 0.2
    picture: str = "noise"

    def apply(self, images: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        pattern = whole_image(self.picture, channels, height, width, self.seed).to(images)
        return (1 - self.alpha) * images + self.alpha * pattern
