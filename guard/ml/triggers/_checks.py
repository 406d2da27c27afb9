"""Checks of a trigger's tensors, with one error message for each fault."""

from collections.abc import Mapping

import torch
from torch import Tensor

from guard.core.errors import InputError


def bounded(kind: str, name: str, tensor: Tensor, low: float, high: float) -> None:
    """Refuse a tensor (of any shape) unless it holds finite floats within low..high.

    Raises:
        InputError: the tensor is refused.
    """
    if not tensor.is_floating_point() or not bool(((tensor >= low) & (tensor <= high)).all()):
        raise InputError(
            f"The {name} of a {kind} trigger must hold finite floats in {low:g}..{high:g}."
        )


def shaped(kind: str, name: str, tensor: Tensor, *sides: int | None) -> None:
    """Refuse a tensor of another shape than `sides`; None stands for any side of at least 1.

    Raises:
        InputError: the tensor has another shape.
    """
    fits = tensor.dim() == len(sides) and all(
        have >= 1 if want is None else have == want
        for have, want in zip(tensor.shape, sides, strict=True)
    )
    if not fits:
        shape = ",".join("*" if side is None else str(side) for side in sides) or "one number"
        raise InputError(
            f"The {name} of a {kind} trigger must have the shape {shape}, not "
            f"{tuple(tensor.shape)}."
        )


def exactly(kind: str, names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The named tensors in the order of `names`, floats as float32, others as they are.

    Raises:
        InputError: a tensor is missing, or there is one of another name.
    """
    if set(tensors) != set(names):
        raise InputError(
            f"A stored {kind} trigger must hold the tensors {' and '.join(names)}, and no other."
        )
    return [_plain(tensors[name]) for name in names]


def stored(**tensors: Tensor) -> dict[str, Tensor]:
    """Detached float32 copies on the CPU, as a stored trigger holds them; shapes stay."""
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
