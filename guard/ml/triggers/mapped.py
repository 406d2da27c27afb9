"""A trigger that sends every class to another class, with the mapping of classes."""

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
    """One stamp for all images, which sends images of class i to class `mapping[i]`.

    Args:
        stamp: a patch, blend or warp trigger.
        mapping: int64 K, each in 0..K-1 and none its own position.

    Raises:
        InputError: the mapping is not of that form.
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
        """Copies of `images` (float N,C,H,W in [0, 1], any device) with the stamp, in [0, 1]."""
        return self.stamp.apply(images)

    @property
    def norm(self) -> float:
        """The size of the stamp, in the unit of its family."""
        return self.stamp.norm

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors on the CPU, for a blob: the stamp's float32 as FAMILY.NAME, int64 `mapping` K."""
        parts = {
            f"{self.stamp.family}.{name}": tensor
            for name, tensor in self.stamp.to_tensors().items()
        }
        return {**parts, MAPPING: self.mapping.detach().cpu()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "MappedTrigger":
        """Restore a trigger from the tensors that `to_tensors` gave, float stamp and int64 mapping.

        Raises:
            InputError: a tensor is missing, unknown, or of the wrong shape or range.
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
