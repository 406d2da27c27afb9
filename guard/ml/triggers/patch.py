"""A static patch: some pixels are replaced, the others stay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from guard.core.errors import InputError
from guard.core.states import Family
from guard.ml.triggers._checks import bounded, exactly, stored


@dataclass(frozen=True)
class PatchTrigger:
    """A static patch, x' = (1 - m) x + m p.

    Args:
        mask: float 1,H,W in [0, 1]; 1 replaces a pixel, 0 leaves it.
        pattern: float C,H,W in [0, 1]; matters only where the mask is not zero.

    Raises:
        InputError: the shapes do not fit, or a value is not finite or outside [0, 1].
    """

    mask: Tensor
    pattern: Tensor
    family: ClassVar[str] = str(Family.PATCH)

    def __post_init__(self) -> None:
        fits = self.mask.dim() == 3 and self.pattern.dim() == 3 and self.mask.shape[0] == 1
        if not fits or self.mask.shape[1:] != self.pattern.shape[1:]:
            raise InputError(
                "A patch trigger needs a mask of shape 1,H,W and a pattern of shape C,H,W."
            )
        bounded("patch", "mask", self.mask, 0, 1)
        bounded("patch", "pattern", self.pattern, 0, 1)

    def apply(self, images: Tensor) -> Tensor:
        """Copies of `images` (float N,C,H,W in [0, 1], any device) with the patch, in [0, 1]."""
        mask, pattern = self.mask.to(images), self.pattern.to(images)
        return images + mask * (pattern - images)

    @property
    def norm(self) -> float:
        """L1 norm of the mask, in pixels."""
        return float(self.mask.double().sum())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return stored(mask=self.mask, pattern=self.pattern)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "PatchTrigger":
        """Restore a trigger from the float tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
        """
        return cls(*exactly("patch", ("mask", "pattern"), tensors))
