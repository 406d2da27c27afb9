"""A trigger that sends every class to its own other class, together with where it sends each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guard.core.errors import InputError
from guard.core.states import Family
from guard.ml.triggers.blend import BlendTrigger
from guard.ml.triggers.patch import PatchTrigger
from guard.ml.triggers.warp import WarpTrigger

Stamp = PatchTrigger | BlendTrigger | WarpTrigger
STAMPS: dict[str, type[Stamp]] = {
    kind.family: kind for kind in (PatchTrigger, BlendTrigger, WarpTrigger)
}
MAPPING = "mapping"


@dataclass(frozen=True)
class MappedTrigger:
    """One stamp for all pictures; pictures of class i are meant to go to class `mapping[i]`.

    Args:
        stamp: a patch, blend or warp trigger.
        mapping: int64 K, each in 0..K-1 and none its own position.

    Raises:
        InputError: the mapping is none.
    """

    stamp: Stamp
    mapping: Tensor
    family: ClassVar[str] = str(Family.ALL_TO_ALL)

    def __post_init__(self) -> None:
        own = self.mapping
        if own.dim() != 1 or len(own) < 2 or own.dtype is not torch.int64:
            raise InputError(
                "The mapping of an all-to-all trigger must be int64, one number a class."
            )
        if not bool(
            (
                (own >= 0) & (own < len(own)) & (own != torch.arange(len(own), device=own.device))
            ).all()
        ):
            raise InputError(
                "The mapping of an all-to-all trigger must send every class to another class."
            )

    def apply(self, images: Tensor) -> Tensor:
        """`images` (float N,C,H,W in [0, 1], any device) with the stamp; a new tensor in [0, 1]."""
        return self.stamp.apply(images)

    @property
    def norm(self) -> float:
        """The stamp's, in the unit of its family."""
        return self.stamp.norm

    def to_tensors(self) -> dict[str, Tensor]:
        """Named tensors on the CPU, for a blob: the stamp's as FAMILY.NAME, and the mapping."""
        parts = {
            f"{self.stamp.family}.{name}": tensor
            for name, tensor in self.stamp.to_tensors().items()
        }
        return {**parts, MAPPING: self.mapping.detach().cpu()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "MappedTrigger":
        """The inverse of `to_tensors`.

        InputError where a tensor is missing, foreign or out of range.
        """
        if MAPPING not in tensors:
            raise InputError("A stored all-to-all trigger must hold the tensor mapping.")
        parts = {
            tuple(name.partition(".")[::2]): tensor
            for name, tensor in tensors.items()
            if name != MAPPING
        }
        families = {family for family, _ in parts}
        if len(families) != 1 or not families <= STAMPS.keys():
            raise InputError(
                f"A stored all-to-all trigger must hold one stamp: {', '.join(STAMPS)}."
            )
        kind = STAMPS[families.pop()]
        return cls(
            kind.from_tensors({name: tensor for (_, name), tensor in parts.items()}),
            tensors[MAPPING],
        )
