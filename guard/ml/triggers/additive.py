"""A fixed pattern added to the whole image.

Attacks: SIG (Barni et al., ICIP 2019), LF (Zeng et al., ICCV 2021).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, shaped, stored


@dataclass(frozen=True)
class AdditiveTrigger:
    """A trigger that adds one pattern to every image, x' = clip(x + d).

    Args:
        delta: d, float C,H,W in [-1, 1].

    Raises:
        InputError: the shape does not fit, or a value is not finite or outside [-1, 1].
    """

    delta: Tensor
    family: ClassVar[str] = str(Family.ADDITIVE)

    def __post_init__(self) -> None:
        shaped("additive", "delta", self.delta, None, None, None)
        bounded("additive", "delta", self.delta, -1, 1)

    def apply(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1], any device) plus the pattern, clipped to [0, 1]."""
        return added(images, self.delta.to(images))

    @property
    def norm(self) -> float:
        """The largest change of a pixel value, where the range is 0..1."""
        return float(self.delta.abs().max())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(delta=self.delta)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "AdditiveTrigger":
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("additive", ("delta",), tensors))


def added(images: Tensor, delta: Tensor) -> Tensor:
    """clip(x + d) in [0, 1], for float tensors whose shapes broadcast."""
    return (images + delta).clamp(0, 1)
