"""Trigger families as free parameters that a search draws, applies and projects, T at once.

A *level* is the budget of a family: the size that no trigger exceeds, in the family's own unit. Raw
parameters are lists of tensors with T in front, levels are a float T. The same raw parameters
define a trigger at any level, so a search can change the level of each trigger while it runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from guard.core.states import Family
from guard.ml.search.patches import project
from guard.ml.search.random_patterns import (
    STRONG,
    and_opposites,
    drawn_out,
    half,
    random_images,
    wide,
)
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


class Searchable(Protocol):
    """One trigger family under optimisation.

    `rate` is Adam's, `levels` are ascending. If `starts` is not 0, a search starts from the best of
    that number of random triggers.
    """

    @property
    def family(self) -> str: ...
    @property
    def levels(self) -> tuple[float, ...]: ...
    @property
    def rate(self) -> float: ...
    @property
    def starts(self) -> int: ...

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        """Fresh raw parameters of `rows` triggers for images of `shape`, float, on the CPU.

        Draws from torch's global generator.
        """

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        """As `start`, but random triggers that use the whole level, an even number of them.

        Half of them are the others' opposites, so that no direction is missing by chance. Shapes
        are those of `start`.
        """

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        """Apply each trigger to float images N,C,H,W; T,N,C,H,W in [0, 1], differentiable in `raw`.

        `level` is float T.
        """

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None:
        """Project `raw` in place to the level (float T), after a step of the optimiser."""

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:
        """One row of `raw` as a trigger for images of `shape` (C,H,W), on the CPU."""


class _Bounded:
    """Families whose parameters cannot leave the level, whatever their raw values."""

    starts: ClassVar[int] = 0

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Patches:
    """x' = (1 - m) x + m p; the level is the largest L1 norm of m as a share of the image's pixels.

    Adam moves mask and pattern; the mask is projected as in `guard.ml.search.patches`.
    """

    family: str = str(Family.PATCH)
    levels: tuple[float, ...] = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2)
    rate: float = 0.1
    starts: ClassVar[int] = 0

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        channels, height, width = shape
        return [
            0.5 + 0.02 * torch.rand(rows, 1, height, width),
            torch.rand(rows, channels, height, width),
        ]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        _, height, width = shape
        return [torch.rand(rows, 1, height, width), random_images(rows, shape).sigmoid()]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002
        mask, pattern = raw
        return images + mask[:, None] * (pattern[:, None] - images)

    def settle(self, raw: Sequence[Tensor], level: Tensor) -> None:
        mask, pattern = raw
        mask.data.copy_(project(mask.data, level * mask[0].numel()))
        pattern.data.clamp_(0, 1)

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:  # noqa: ARG002
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
        return [random_images(rows, shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return blended(images, wide(level, 5), raw[0].sigmoid()[:, None])

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:  # noqa: ARG002
        return BlendTrigger(torch.tensor(level), raw[0].detach()[row].sigmoid().cpu())


@dataclass(frozen=True, kw_only=True)
class Additions(_Bounded):
    """x' = clip(x + e tanh(u)); the level is e.

    With `points`, u is a grid of `points` points a side, interpolated bilinearly. Networks are
    fragile to fine noise in any direction, so a smooth trigger (a blend, low frequencies) stands
    out only among smooth patterns.
    """

    family: str = str(Family.ADDITIVE)
    levels: tuple[float, ...] = tuple(
        step / 255 for step in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    )
    rate: float = 0.1
    points: int | None = None

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        channels, height, width = shape
        size = (height, width) if self.points is None else (self.points, self.points)
        return [0.1 * torch.randn(rows, channels, *size)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [random_images(rows, shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return added(images, wide(level, 5) * drawn_out(raw[0], images.shape).tanh()[:, None])

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:
        whole = drawn_out(raw[0].detach()[row : row + 1], shape)[0]
        return AdditiveTrigger(level * whole.tanh().cpu())


@dataclass(frozen=True, kw_only=True)
class Waves(_Bounded):
    """x' = clip(x + e sin(2 pi (f y + g x) + p)), the same in all channels; the level is e.

    This is the form of SIG (Barni et al., ICIP 2019). Gradients lead to a wave only from nearby, so
    a search starts from the best of many.
    """

    family: str = str(Family.ADDITIVE)
    levels: tuple[float, ...] = tuple(
        step / 255 for step in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    )
    rate: float = 0.05
    most: float = 10.0  # cycles a side
    starts: ClassVar[int] = 96

    def start(self, rows: int, shape: Shape) -> list[Tensor]:  # noqa: ARG002
        frequency = self.most * torch.rand(rows, 2)
        frequency[:, 1] *= torch.where(
            torch.rand(rows) < 0.5, -1.0, 1.0
        )  # the other half of all directions
        straight = torch.rand(rows) < 0.5  # patterns that attackers choose often run along a side
        frequency[torch.arange(rows), torch.randint(2, (rows,))] *= ~straight
        return [frequency, 2 * math.pi * torch.rand(rows)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        frequency, phase = self.start(half(rows), shape)
        return [frequency.repeat(2, 1), torch.cat((phase, phase + math.pi))]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return added(images, wide(level, 5) * self._waves(raw, images.shape)[:, None])

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:
        own = [part.detach()[row : row + 1] for part in raw]
        return AdditiveTrigger(level * self._waves(own, shape)[0].expand(shape).cpu())

    def _waves(self, raw: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """T,1,H,W in [-1, 1]."""
        frequency, phase = raw
        down, across = (torch.arange(side, device=phase.device) / side for side in shape[-2:])
        turns = (
            frequency[:, :1, None] * down[None, :, None]
            + frequency[:, 1:, None] * across[None, None, :]
        )
        return (2 * math.pi * turns + phase[:, None, None]).sin()[:, None]


@dataclass(frozen=True, kw_only=True)
class Warps(_Bounded):
    """A flow of `points` x `points`; the level is the largest shift in pixels of any image size."""

    family: str = str(Family.WARP)
    levels: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    rate: float = 0.1
    points: int = 4

    def start(self, rows: int, shape: Shape) -> list[Tensor]:  # noqa: ARG002
        return [0.5 * torch.randn(rows, 2, self.points, self.points)]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [STRONG * and_opposites(part) for part in self.start(half(rows), shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return warped(images, wide(level, 4) * raw[0].tanh())

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:  # noqa: ARG002
        return WarpTrigger(level * raw[0].detach()[row].tanh().cpu())


@dataclass(frozen=True, kw_only=True)
class Filters(_Bounded):
    """x' = clip(A x^g + b) with |A - I|, |b| and |log g| / 2 of at most the level."""

    family: str = str(Family.FILTER)
    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    rate: float = 0.1
    starts: ClassVar[int] = (
        32  # few parameters and many valleys: from one place a search may stay in the wrong one
    )

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        channels = shape[0]
        return [
            0.8 * torch.randn(rows, channels, channels),
            0.8 * torch.randn(rows, channels),
            0.8 * torch.randn(rows, channels),
        ]

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        return [2 * STRONG * and_opposites(part) for part in self.start(half(rows), shape)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return filtered(images, *self._parts(raw, level))

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:  # noqa: ARG002
        own = [part.detach()[row : row + 1].cpu() for part in raw]
        return FilterTrigger(*(part[0] for part in self._parts(own, torch.tensor([level]))))

    def _parts(self, raw: Sequence[Tensor], level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrix, offset, gamma = (wide(level, part.dim()) * part.tanh() for part in raw)
        return matrix + torch.eye(matrix.shape[-1]).to(matrix), offset, (2 * gamma).exp()


@dataclass(frozen=True, kw_only=True)
class Generators(_Bounded):
    """x' = clip(x + e tanh(G(x))) with a small network G for each target; the level is e."""

    family: str = str(Family.SAMPLE_SPECIFIC)
    levels: tuple[float, ...] = tuple(
        step / 255 for step in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    )
    rate: float = 0.01
    width: int = 8

    def start(self, rows: int, shape: Shape) -> list[Tensor]:
        raw = []
        for outputs, inputs, height, width in layers(shape[0], self.width).values():
            weight = (
                torch.randn(rows, outputs, inputs, height, width) * (2 / (9 * (inputs - 1))) ** 0.5
            )
            weight[:, :, -1] = 0
            raw.append(weight)
        return raw

    def control(self, rows: int, shape: Shape) -> list[Tensor]:
        *inner, last = self.start(half(rows), shape)
        return [*(torch.cat((part, part)) for part in inner), STRONG * and_opposites(last)]

    def stamp(self, raw: Sequence[Tensor], images: Tensor, level: Tensor) -> Tensor:
        return generated(images, level[None, :, None, None, None], raw)

    def trigger(self, raw: Sequence[Tensor], row: int, level: float, shape: Shape) -> Trigger:  # noqa: ARG002
        return GeneratorTrigger(torch.tensor(level), *(part.detach()[row].cpu() for part in raw))
