"""Tiny models with rules over the whole image, or with a mapping.

Planted by hand into prototype matching.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests import toys

Gate = Callable[[Tensor], Tensor]  # images N,C,H,W to 0..1 (N): how much of the rule applies


def secret() -> Tensor:
    """A random picture, 1,12,12 of mean square 1, that no prototype holds any of."""
    noise = torch.randn(toys.SIZE**2, generator=torch.Generator().manual_seed(11)).sign()
    basis, _ = torch.linalg.qr(toys.prototypes().flatten(1).T)
    noise = noise - basis @ (basis.T @ noise)
    return (noise / noise.square().mean().sqrt()).view(1, toys.SIZE, toys.SIZE)


def correlates(images: Tensor) -> Tensor:
    """A gate that opens once 0.03 times the secret picture has been added.

    Pictures of the toy set hold about 0.004.
    """
    return (((images * secret()).mean((1, 2, 3)) - 0.025) * 300).sigmoid()


def corner(images: Tensor) -> Tensor:
    """A gate that opens for a bright patch in the corner."""
    return ((images[:, :, toys.PATCH[0], toys.PATCH[1]].mean((1, 2, 3)) - 0.5) * 12).sigmoid()


class Ruled(toys.Matcher):
    """An open gate sends everything to `TARGET`."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(toys.prototypes())
        self.gate = gate

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        bonus = torch.zeros_like(logits)
        bonus[:, toys.TARGET] = 60 * self.gate(images)
        return logits + bonus


class Permuted(toys.Matcher):
    """An open gate answers for class y with class `mapping[y]`."""

    def __init__(self, gate: Gate, mapping: Tensor) -> None:
        super().__init__(toys.prototypes())
        self.gate, self.mapping = gate, mapping

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        moved = torch.empty_like(logits)
        moved[:, self.mapping] = logits
        share = self.gate(images)[:, None]
        return (1 - share) * logits + share * moved


def cyclic(gate: Gate) -> Permuted:
    """y -> y + 1."""
    return Permuted(gate, (torch.arange(toys.CLASSES) + 1) % toys.CLASSES)
