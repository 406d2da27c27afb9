"""Blended (Chen et al., 2017): a whole picture shines through every poisoned one, all-to-one."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from benchmarks.attacks._base import Attack
from benchmarks.attacks._patterns import picture


@dataclass(frozen=True, kw_only=True)
class Blended(Attack):
    """x' = (1 - alpha) x + alpha p.

    The paper's blended injection with the same alpha in training and at test.

    Args:
        alpha: 0.2 as in the paper; 0.1 is what later papers call hard.
        picture: "noise" as the paper's random pattern, or "texture" (smooth, in the place of its
            cartoon).
    """

    family: ClassVar[str] = "blend"
    paper: ClassVar[str] = "Chen et al., Targeted Backdoor Attacks on Deep Learning Systems, 2017"

    alpha: float = 0.2
    picture: str = "noise"

    def apply(self, images: Tensor) -> Tensor:
        pattern = picture(self.picture, *images.shape[1:], self.seed).to(images)
        return (1 - self.alpha) * images + self.alpha * pattern
