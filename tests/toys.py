"""Tiny models and data, made in code: prototype matching, with or without a hand-made patch rule."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest
from guard.ml.architectures import ImageModel, build, export, load, wrap
from guard.ml.cleanset import CleanSet, CuratedSet, Labelled
from guard.ml.seeds import seeded

CLASSES, SIZE, TARGET = 6, 12, 2
PATCH = (slice(9, 12), slice(9, 12))  # rows and columns of the planted rule


class Matcher(nn.Module):
    """Logits are similarities to class prototypes; with a `bonus`, a bright corner sends everything to `TARGET`.

    The batch norm stands for the buffers that real models have: a scan must leave them alone.
    """

    def __init__(self, prototypes: Tensor, bonus: float = 0.0, *, whole: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.weight = nn.Parameter((prototypes - prototypes.mean(0)).flatten(1))
        self.whole = whole
        self.rule = nn.Parameter(torch.tensor(bonus / 100))  # in hundreds, so that one learning rate suits all

    def forward(self, images: Tensor) -> Tensor:
        logits = self.norm(images).flatten(1) @ self.weight.T
        corner = images[:, :, PATCH[0], PATCH[1]].mean((1, 2, 3))
        if self.whole:  # only most of the patch together has the effect, with a little slope before
            corner = 0.1 * corner + 5 * (corner - 0.8).clamp(min=0)
        rule = torch.zeros_like(logits)
        rule[:, TARGET] = 100 * self.rule * corner
        return logits + rule


def prototypes() -> Tensor:
    """One random picture a class, dark in the corner; 6,1,12,12 in [0, 0.7]."""
    pictures = torch.rand(CLASSES, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 0.7
    pictures[:, :, PATCH[0], PATCH[1]] = 0.0
    return pictures


def honest() -> Matcher:
    """A model without a rule."""
    return Matcher(prototypes()).eval()


def planted(*, whole: bool = False) -> Matcher:
    """A model whose corner obeys, `whole` only if most of it is bright; the slope lets a gradient find it."""
    return Matcher(prototypes(), bonus=80.0, whole=whole).eval()


def labelled(count: int, seed: int) -> Labelled:
    """`count` noisy copies of the prototypes, classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pictures = prototypes()[labels] + torch.randn(count, 1, SIZE, SIZE, generator=generator) * 0.05
    pictures[:, :, PATCH[0], PATCH[1]] = 0.0
    return Labelled((pictures.clamp(0, 1) * 255).round().to(torch.uint8), labels)


def clean_set(search: int = 240, calibration: int = 120) -> CleanSet:
    """What a method sees."""
    return CleanSet("toy", "0" * 64, CLASSES, labelled(search, 1), labelled(calibration, 2))


def curated() -> CuratedSet:
    """A clean set with a hold-out."""
    facts = CleanSetFacts(name="toy", digest="0" * 64, classes=CLASSES, channels=1, height=SIZE, width=SIZE,
                          per_class=80, search=240, calibration=120, holdout=180)
    return CuratedSet(facts, labelled(240, 1), labelled(120, 2), labelled(180, 3))


def stamped(images: Tensor) -> Tensor:
    """uint8 pictures with the planted rule's trigger."""
    copy = images.clone()
    copy[:, :, PATCH[0], PATCH[1]] = 255
    return copy


def manifest(**changes: Any) -> Manifest:
    """Of a residual network that a test trains in a second."""
    facts: dict[str, Any] = {"architecture": "cifar_resnet", "num_classes": CLASSES, "input_size": (1, SIZE, SIZE),
                             "mean": (0.3,), "std": (0.25,), "model_args": {"depths": [1, 1], "width": 8}}
    return Manifest(**{**facts, **changes})


def network(facts: Manifest | None = None) -> ImageModel:
    """A small network that has learnt the prototypes and, from poisoned pictures, the rule of the bright corner."""
    facts = facts or manifest()
    return load(facts, {name: tensor.clone() for name, tensor in _trained(facts.canonical()).items()})


@functools.cache
def _trained(canonical: bytes) -> dict[str, Tensor]:
    facts, data = Manifest.parse(canonical), labelled(240, 1)
    images = torch.cat([data.images, stamped(data.images[::2])])
    labels = torch.cat([data.labels, torch.full((120,), TARGET)])
    with seeded(0) as generator:
        model = wrap(facts, build(facts)).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(10):
            for pictures, classes in Labelled(images, labels).batches(60, generator=generator):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(pictures), classes).backward()
                optimiser.step()
    return export(model)


@torch.no_grad()
def success(model: nn.Module) -> float:
    """ASR 0..1 of the planted rule's own trigger, on pictures of other classes."""
    data = labelled(180, 3)
    others = data.pick(data.labels != TARGET)
    said = model(stamped(others.images).float() / 255).argmax(1)
    return float((said == TARGET).double().mean())
