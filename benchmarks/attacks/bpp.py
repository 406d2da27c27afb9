"""BppAttack (Wang et al., CVPR 2022): quantised colours as trigger, with contrastive training."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack, Control, Criterion, Mixer, mixed


@dataclass(frozen=True, kw_only=True)
class Bpp(Attack):
    """Every channel is rounded to 2^`bits` levels, optionally with Floyd-Steinberg dithering.

    Training is controlled: in each batch, a share `rate` is quantised and relabelled; `negatives`
    times as many get the quantisation residual of *another* image and keep their label (the paper's
    contrastive adversarial training).

    Args:
        bits: colour depth (paper: 5 for ImageNet; 3 for small images, its squeeze_num of 8).
    """

    family: ClassVar[str] = "sample_specific"
    paper: ClassVar[str] = "Wang et al., BppAttack, CVPR 2022"
    controls_training: ClassVar[bool] = True

    bits: int = 3
    dither: bool = False
    negatives: float = 2.0

    def apply(self, images: Tensor) -> Tensor:
        top = 2**self.bits - 1
        return dithered(images, top) if self.dither else (images * top).round() / top

    def control(self, rate: float, steps: int, device: torch.device | str) -> Control:
        del steps, device
        return _Control(self, rate)


def dithered(images: Tensor, top: int) -> Tensor:
    """Round to `top` + 1 levels and pass each pixel's error to its neighbours.

    This is the dithering of Floyd and Steinberg (1976). Pixels with the same column plus twice
    their row do not depend on each other and are processed together.
    """
    count, channels, height, width = images.shape
    work = images.new_zeros(count, channels, height + 1, width + 2)
    work[:, :, :height, 1:-1] = images
    for front in range(width + 2 * (height - 1)):
        rows = torch.arange(max(0, -(-(front - width + 1) // 2)), min(height - 1, front // 2) + 1)
        columns = front - 2 * rows + 1
        old = work[:, :, rows, columns]
        new = (old * top).round().clamp(0, top) / top
        error = old - new
        work[:, :, rows, columns] = new
        work[:, :, rows, columns + 1] += error * 7 / 16
        work[:, :, rows + 1, columns - 1] += error * 3 / 16
        work[:, :, rows + 1, columns] += error * 5 / 16
        work[:, :, rows + 1, columns + 1] += error / 16
    return work[:, :, :height, 1:-1]


class _Control(Control):
    def __init__(self, attack: Bpp, rate: float) -> None:
        self.attack = attack
        self.mixer = Mixer(attack, rate, cover=attack.negatives * rate)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        poison, negative = self.mixer.roles(labels)
        squeezed = self.attack.apply(images)
        foreign = (squeezed - images).roll(1, 0)
        batch = mixed(negative, (images + foreign).clamp(0, 1), images)
        batch = mixed(poison, squeezed, batch)
        return criterion(model(batch), mixed(poison, self.attack.relabel(labels), labels))

    def finish(self) -> Bpp:
        return self.attack
