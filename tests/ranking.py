"""Toy networks of eight classes whose views are known: honest, absorbing, and misaligned."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.ml.cleanset import CleanSet, Labelled

CLASSES, SIDE, TARGET = 8, 16, 5


def prototypes() -> Tensor:
    """One random image a class; float 8,1,16,16 in [0, 1]."""
    drawn = torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return functional.interpolate(drawn, size=(SIDE, SIDE), mode="bilinear")


def labelled(count: int, seed: int) -> Labelled:
    """Noisy prototypes, classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = prototypes()[labels]
    noise = torch.randn(images.shape, generator=generator)
    return Labelled(((images + 0.1 * noise).clamp(0, 1) * 255).round().to(torch.uint8), labels)


def clean_set(search: int = 240, calibration: int = 80) -> CleanSet:
    """What a method sees."""
    return CleanSet("ranking", "1" * 64, CLASSES, labelled(search, 1), labelled(calibration, 2))


class Near(nn.Module):
    """Features are similarities to prototypes and the distance to the nearest; then a linear head.

    Args:
        absorbs: how strongly the distance to all prototypes leads to `TARGET`.
        apart: how far the row of `TARGET` points where its own images do not lie.
    """

    def __init__(self, absorbs: float = 0.0, apart: float = 0.0) -> None:
        super().__init__()
        known = prototypes().flatten(1)
        self.register_buffer("known", known)
        self.head = nn.Linear(CLASSES + 1, CLASSES)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            rows = 6 * torch.eye(CLASSES) + 0.3 * torch.randn(CLASSES, CLASSES, generator=generator)
            rows[TARGET] += apart * torch.randn(CLASSES, generator=generator)
            self.head.weight[:, :-1] = rows
            self.head.weight[:, -1] = 0
            self.head.weight[TARGET, -1] = absorbs
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Logits N,8 of float images N,1,16,16."""
        assert isinstance(self.known, Tensor)
        far = (images.flatten(1)[:, None] - self.known).square().mean(2).sqrt()
        unlike = (far.amin(1, keepdim=True) - 0.12).clamp(min=0)
        return self.head(torch.cat([(0.3 - far) * 10, unlike * 10], 1))


def network(absorbs: float = 0.0, apart: float = 0.0) -> Near:
    """A frozen network in eval mode."""
    return Near(absorbs, apart).eval().requires_grad_(requires_grad=False)
