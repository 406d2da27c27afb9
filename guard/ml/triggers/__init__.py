"""Recovered triggers as objects that can be applied to images and stored as named tensors.

There is one file for each family. Every trigger is a frozen dataclass of tensors with `family`,
`norm` (its size, in the family's own unit), `apply`, `to_tensors` and `from_tensors`; its
constructor refuses malformed tensors.
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
    """Restore a trigger from the named tensors that its `to_tensors` gave.

    The families' own files say which tensors, and of which shape and range.

    Raises:
        InputError: the family has no stored form, or a tensor is missing, unknown or out of range.
    """
    if family not in TRIGGERS:
        raise InputError(
            f"Triggers of family {family!r} cannot be restored; only {', '.join(TRIGGERS)} can."
        )
    return TRIGGERS[family].from_tensors(tensors)
