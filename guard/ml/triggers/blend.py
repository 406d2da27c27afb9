"""A second image mixed over the whole image (Blended: Chen et al., 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored


@dataclass(frozen=True)
class BlendTrigger:
    """A trigger that mixes one pattern into every image, x' = (1 - a) x + a q.

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
        """Copies of `images` (float N,C,H,W in [0, 1], any device) with q mixed in, in [0, 1]."""
        return blended(images, self.alpha.to(images), self.pattern.to(images))

    @property
    def norm(self) -> float:
        """The share (0..1) of the mixed-in pattern."""
        return float(self.alpha)

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(alpha=self.alpha, pattern=self.pattern)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "BlendTrigger":
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("blend", ("alpha", "pattern"), tensors))


def blended(images: Tensor, alpha: Tensor | float, pattern: Tensor) -> Tensor:
    """x + a (q - x), for float tensors whose shapes broadcast."""
    return images + alpha * (pattern - images)
