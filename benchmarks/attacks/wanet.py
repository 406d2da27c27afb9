"""WaNet (Nguyen and Tran, ICLR 2021): a smooth warp as trigger, made precise by noise mode."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attacks._base import Attack, Control, Criterion, Mixer, mixed


@dataclass(frozen=True, kw_only=True)
class Wanet(Attack):
    """A k x k grid of offsets with mean size 1, enlarged bicubically, times `strength`/H.

    This is section 3.2 of the paper. Training is controlled: in each batch, a share `rate` is
    warped and relabelled, and `noise` times as many are warped by a disturbed field and keep their
    label (noise mode).

    Args:
        grid: control points per side (paper: 4).
        strength: s of the paper (0.5); the mean displacement is about `strength` / 2 pixels in each
            direction.
        noise: images in noise mode per poisoned one (paper: 2).
    """

    family: ClassVar[str] = "warp"
    paper: ClassVar[str] = "Nguyen and Tran, WaNet, ICLR 2021"
    controls_training: ClassVar[bool] = True

    grid: int = 4
    strength: float = 0.5
    noise: float = 2.0

    def field(self, height: int, width: int) -> Tensor:
        """Where each pixel is read from, 1,H,W,2 in grid_sample's coordinates."""
        offsets = torch.rand(1, 2, self.grid, self.grid, generator=self._generator(1)) * 2 - 1
        offsets = offsets / offsets.abs().mean()
        flow = functional.interpolate(offsets, (height, width), mode="bicubic", align_corners=True)
        return (_identity(height, width) + self.strength * flow.permute(0, 2, 3, 1) / height).clamp(
            -1, 1
        )

    def apply(self, images: Tensor) -> Tensor:
        return _sample(images, self.field(*images.shape[2:]).to(images))

    def disturbed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The same warp plus up to one pixel of noise at each place, drawn anew for each image."""
        count, _, height, width = images.shape
        noise = torch.rand(count, height, width, 2, generator=generator).to(images) * 2 - 1
        return _sample(images, (self.field(height, width).to(images) + noise / height).clamp(-1, 1))

    def control(self, rate: float, steps: int, device: torch.device | str) -> Control:
        del steps, device
        return _Control(self, rate)


class _Control(Control):
    def __init__(self, attack: Wanet, rate: float) -> None:
        self.attack = attack
        self.mixer = Mixer(attack, rate, cover=attack.noise * rate)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        poison, noisy = self.mixer.roles(labels)
        batch = mixed(noisy, self.attack.disturbed(images, self.mixer.generator), images)
        batch = mixed(poison, self.attack.apply(images), batch)
        return criterion(model(batch), mixed(poison, self.attack.relabel(labels), labels))

    def finish(self) -> Wanet:
        return self.attack


def _identity(height: int, width: int) -> Tensor:
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)[
        None
    ]


def _sample(images: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(
        images, places.expand(len(images), -1, -1, -1), align_corners=True
    )
