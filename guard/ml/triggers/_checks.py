"""What every trigger asks of its tensors, with one sentence for each way to be wrong."""

from collections.abc import Mapping

import torch
from torch import Tensor

from guard.core.errors import InputError


def bounded(kind: str, name: str, tensor: Tensor, low: float, high: float) -> None:
    """Refuse a tensor that is not of floats, all of them finite and within low..high.

    Raises:
        InputError: it is not.
    """
    if not tensor.is_floating_point() or not bool(((tensor >= low) & (tensor <= high)).all()):
        raise InputError(
            f"The {name} of a {kind} trigger must hold finite floats in {low:g}..{high:g}."
        )


def shaped(kind: str, name: str, tensor: Tensor, *sides: int | None) -> None:
    """Refuse a tensor of another shape; None stands for any side of at least 1.

    Raises:
        InputError: it has another shape.
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
    """The named tensors in order, floats as float32.

    Raises:
        InputError: one is missing, or there is another one.
    """
    if set(tensors) != set(names):
        raise InputError(
            f"A stored {kind} trigger must hold the tensors {' and '.join(names)}, and no other."
        )
    return [_plain(tensors[name]) for name in names]


def stored(**tensors: Tensor) -> dict[str, Tensor]:
    """Detached float32 tensors on the CPU, for a blob."""
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
