"""Recovered triggers as objects: how to stamp one on pictures, and how to store it as named tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guard.core.errors import InputError


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
    family: ClassVar[str] = "patch"

    def __post_init__(self) -> None:
        fits = self.mask.dim() == 3 and self.pattern.dim() == 3 and self.mask.shape[0] == 1
        if not fits or self.mask.shape[1:] != self.pattern.shape[1:]:
            raise InputError("A patch trigger needs a mask of shape 1,H,W and a pattern of shape C,H,W.")
        for name, tensor in (("mask", self.mask), ("pattern", self.pattern)):
            if not tensor.is_floating_point() or not bool(((tensor >= 0) & (tensor <= 1)).all()):
                raise InputError(f"The {name} of a patch trigger must hold finite floats in 0..1.")

    def apply(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1], any device) with the patch; a new tensor in [0, 1]."""
        mask, pattern = self.mask.to(images), self.pattern.to(images)
        return images + mask * (pattern - images)

    @property
    def norm(self) -> float:
        """L1 norm of the mask, in pixels."""
        return float(self.mask.double().sum())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named float32 tensors on the CPU, for a blob."""
        return {"mask": self.mask.detach().float().cpu(), "pattern": self.pattern.detach().float().cpu()}


def from_tensors(family: str, tensors: Mapping[str, Tensor]) -> PatchTrigger:
    """The inverse of `to_tensors`.

    Raises:
        InputError: the family has no stored form, or a tensor is missing or out of range.
    """
    if family != PatchTrigger.family:
        raise InputError(f"Triggers of family {family!r} cannot be restored; only 'patch' can.")
    if set(tensors) != {"mask", "pattern"}:
        raise InputError("A stored patch trigger must hold the tensors mask and pattern, and no other.")
    return PatchTrigger(tensors["mask"].to(torch.float32), tensors["pattern"].to(torch.float32))
