"""Recovered triggers as objects.

How to stamp one on pictures, and how to store it as named tensors.

One file a family. Every trigger is a frozen dataclass of tensors with `family`, `norm` (its size,
in the family's own unit), `apply`, `to_tensors` and `from_tensors`; whatever is malformed is
refused when one is made.
"""

from collections.abc import Mapping

from torch import Tensor

from guard.core.errors import InputError
from guard.ml.triggers.additive import AdditiveTrigger
from guard.ml.triggers.blend import BlendTrigger
from guard.ml.triggers.generator import GeneratorTrigger
from guard.ml.triggers.mapped import MappedTrigger
from guard.ml.triggers.patch import PatchTrigger
from guard.ml.triggers.tone import FilterTrigger
from guard.ml.triggers.warp import WarpTrigger

__all__ = [
    "TRIGGERS",
    "AdditiveTrigger",
    "BlendTrigger",
    "FilterTrigger",
    "GeneratorTrigger",
    "MappedTrigger",
    "PatchTrigger",
    "Trigger",
    "WarpTrigger",
    "from_tensors",
]

Trigger = (
    PatchTrigger
    | BlendTrigger
    | AdditiveTrigger
    | WarpTrigger
    | FilterTrigger
    | GeneratorTrigger
    | MappedTrigger
)
TRIGGERS: dict[str, type[Trigger]] = {
    kind.family: kind
    for kind in (
        PatchTrigger,
        BlendTrigger,
        AdditiveTrigger,
        WarpTrigger,
        FilterTrigger,
        GeneratorTrigger,
        MappedTrigger,
    )
}


def from_tensors(family: str, tensors: Mapping[str, Tensor]) -> Trigger:
    """The inverse of `to_tensors`.

    Raises:
        InputError: the family has no stored form, or a tensor is missing, foreign or out of range.
    """
    if family not in TRIGGERS:
        raise InputError(
            f"Triggers of family {family!r} cannot be restored; only {', '.join(TRIGGERS)} can."
        )
    return TRIGGERS[family].from_tensors(tensors)
