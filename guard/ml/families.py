"""Trigger families as free parameters: how a search draws, stamps and projects T triggers of one family at once.

A *level* is the budget of a family: the size that no trigger exceeds, in the family's own unit. Raw parameters are
lists of tensors with T in front, levels are a float T; the same raw parameters mean a trigger at any level, so that a
search can change the level of each trigger while it runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.states import Family
from guard.ml.inversion import project
from guard.ml.triggers import (
    AdditiveTrigger,
    BlendTrigger,
    FilterTrigger,
    GeneratorTrigger,
    PatchTrigger,
    Trigger,
    WarpTrigger,
)
from guard.ml.triggers.additive import added
from guard.ml.triggers.blend import blended
from guard.ml.triggers.generator import generated, layers
from guard.ml.triggers.tone import filtered
from guard.ml.triggers.warp import warped

Shape = tuple[int, int, int]  # C,H,W of an image
STRONG = 5.0  # times the scale of a fresh draw: tanh is then near its ends
GRAINS = (1, 4, None)  # points a side of random pictures: one colour, smooth, and each pixel for itself


class Searchable(Protocol):
    """One family. `rate` is Adam's; `levels` go up."""

    @property
    def family(self) -> str: ...
    @property
    def levels(self) -> tuple[float, ...]: ...
    @property
    def rate(self) -> float: ...

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        """Fresh raw parameters of `rows` triggers, from torch's global generator, on the CPU."""

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        """As `start`, but an even number of triggers that use the whole level, for what random ones do.

        Half of them are the others' opposites, so that no direction is missing by chance.
        """

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        """T,N,C,H,W in [0, 1]: images N,C,H,W under each trigger; differentiable in `raw`."""

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None:
        """After a step of the optimiser: bring `raw`, in place, back to where the level holds."""

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        """One row as a trigger, on the CPU."""


class _Bounded:
    """Families whose parameters cannot leave the level, whatever their raw values."""

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Patches:
    """x' = (1 - m) x + m p; the level is the share of the image's pixels that the L1 norm of m may reach.

    A step is Adam's for the pattern; the mask is projected, as in `guard.ml.inversion`.
    """

    family: str = str(Family.PATCH)
    levels: tuple[float, ...] = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2)
    rate: float = 0.1

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        channels, height, width = shape
        return [0.5 + 0.02 * torch.rand(rows, 1, height, width), torch.rand(rows, channels, height, width)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        _, height, width = shape
        return [torch.rand(rows, 1, height, width), _pictures(rows, shape).sigmoid()]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002
        mask, pattern = raw
        return images + mask[:, None] * (pattern[:, None] - images)

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None:
        mask, pattern = raw
        mask.data.copy_(project(mask.data, level * mask[0].numel()))
        pattern.data.clamp_(0, 1)

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:  # noqa: ARG002
        mask, pattern = (part.detach()[row].cpu() for part in raw)
        return PatchTrigger(mask, pattern)


@dataclass(frozen=True, kw_only=True)
class Blends(_Bounded):
    """x' = (1 - a) x + a sigmoid(u); the level is a."""

    family: str = str(Family.BLEND)
    levels: tuple[float, ...] = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)
    rate: float = 0.2

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        return [0.1 * torch.randn(rows, *shape)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [_pictures(rows, shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return blended(images, _wide(level, 5), raw[0].sigmoid()[:, None])

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        return BlendTrigger(torch.tensor(level), raw[0].detach()[row].sigmoid().cpu())


@dataclass(frozen=True, kw_only=True)
class Additions(_Bounded):
    """x' = clip(x + e tanh(u)); the level is e."""

    family: str = str(Family.ADDITIVE)
    levels: tuple[float, ...] = tuple(step / 255 for step in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128))
    rate: float = 0.1

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        return [0.1 * torch.randn(rows, *shape)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [_pictures(rows, shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return added(images, _wide(level, 5) * raw[0].tanh()[:, None])

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        return AdditiveTrigger(level * raw[0].detach()[row].tanh().cpu())


@dataclass(frozen=True, kw_only=True)
class Warps(_Bounded):
    """A flow of `points` x `points`; the level is the largest shift in pixels, whatever the size of the image."""

    family: str = str(Family.WARP)
    levels: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    rate: float = 0.1
    points: int = 4

    def start(self, rows: int, shape: Shape) -> list[Tensor]:  # noqa: ARG002
        return [0.5 * torch.randn(rows, 2, self.points, self.points)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [STRONG * _and_opposites(part) for part in self.start(_half(rows), shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return warped(images, _wide(level, 4) * raw[0].tanh())

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        return WarpTrigger(level * raw[0].detach()[row].tanh().cpu())


@dataclass(frozen=True, kw_only=True)
class Filters(_Bounded):
    """x' = clip(A x^g + b) with |A - I|, |b| and |log g| / 2 of at most the level."""

    family: str = str(Family.FILTER)
    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    rate: float = 0.1

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        channels = shape[0]
        return [0.3 * torch.randn(rows, channels, channels), 0.3 * torch.randn(rows, channels),
                0.3 * torch.randn(rows, channels)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [2 * STRONG * _and_opposites(part) for part in self.start(_half(rows), shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return filtered(images, *self._parts(raw, level))

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        own = [part.detach()[row : row + 1].cpu() for part in raw]
        return FilterTrigger(*(part[0] for part in self._parts(own, torch.tensor([level]))))

    def _parts(self, raw: Sequence[Tensor], level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrix, offset, gamma = (_wide(level, part.dim()) * part.tanh() for part in raw)
        return matrix + torch.eye(matrix.shape[-1]).to(matrix), offset, (2 * gamma).exp()


@dataclass(frozen=True, kw_only=True)
class Generators(_Bounded):
    """x' = clip(x + e tanh(G(x))) with an own small network G for each target; the level is e."""

    family: str = str(Family.SAMPLE_SPECIFIC)
    levels: tuple[float, ...] = tuple(step / 255 for step in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128))
    rate: float = 0.01
    width: int = 8

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        raw = []
        for outputs, inputs, height, width in layers(shape[0], self.width).values():
            weight = torch.randn(rows, outputs, inputs, height, width) * (2 / (9 * (inputs - 1))) ** 0.5
            weight[:, :, -1] = 0
            raw.append(weight)
        return raw

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        *inner, last = self.start(_half(rows), shape)
        return [*(torch.cat((part, part)) for part in inner), STRONG * _and_opposites(last)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return generated(images, level[None, :, None, None, None], raw)

    def trigger(self, raw: Sequence[Tensor], row: int, level: float) -> Trigger:
        return GeneratorTrigger(torch.tensor(level), *(part.detach()[row].cpu() for part in raw))


def _pictures(rows: int, shape: Shape) -> Tensor:
    """Random pictures of several grains in turn, then their opposites; for tanh or sigmoid to be near their ends."""
    channels, height, width = shape
    found = []
    for row in range(_half(rows)):
        grain = GRAINS[row % len(GRAINS)]
        if grain is None:
            found.append(torch.randn(1, *shape))
            continue
        coarse = torch.randn(1, channels, grain, grain)
        found.append(functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False))
    return STRONG * _and_opposites(torch.cat(found))


def _wide(level: Tensor, dimensions: int) -> Tensor:
    """T as T,1,1,..."""
    return level.view(-1, *[1] * (dimensions - 1))


def _half(rows: int) -> int:
    if rows % 2:
        raise ValueError(f"{rows} controls cannot be pairs of opposites.")
    return rows // 2


def _and_opposites(raw: Tensor) -> Tensor:
    return torch.cat((raw, -raw))
