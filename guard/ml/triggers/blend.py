"""A second picture mixed over the whole image (Blended: Chen et al., 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored


@dataclass(frozen=True)
class BlendTrigger:
    """x' = (1 - a) x + a q.

    Args:
        alpha: one float in [0, 1].
        pattern: q, float C,H,W in [0, 1].

    Raises:
        InputError: a shape does not fit, or a value is not finite or outside [0, 1].
    """

    alpha: Tensor
    pattern: Tensor
    family: ClassVar[str] = str(Family.BLEND)

    def __post_init__(self) -> None:
        shaped("blend", "alpha", self.alpha)
        shaped("blend", "pattern", self.pattern, None, None, None)
        bounded("blend", "alpha", self.alpha, 0, 1)
        bounded("blend", "pattern", self.pattern, 0, 1)

    def apply(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1], any device) under the picture.

        A new tensor in [0, 1].
        """
        return blended(images, self.alpha.to(images), self.pattern.to(images))

    @property
    def norm(self) -> float:
        """The share of the mixed-in picture."""
        return float(self.alpha)

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(alpha=self.alpha, pattern=self.pattern)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "BlendTrigger":
        """The inverse of `to_tensors`.

        InputError where a tensor is missing, foreign or out of range.
        """
        return cls(*exactly("blend", ("alpha", "pattern"), tensors))


def blended(images: Tensor, alpha: Tensor | float, pattern: Tensor) -> Tensor:
    """x + a (q - x), broadcasting."""
    return images + alpha * (pattern - images)
