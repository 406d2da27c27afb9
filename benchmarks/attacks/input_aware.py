"""Input-aware (Nguyen and Tran, NeurIPS 2020): a generator makes a trigger for each image."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack, Control, Criterion, Mixer, mixed
from benchmarks.attacks._nets import Painter, restored, tensors_of
from guard.ml.seeds import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping

TINY = 1e-7


@dataclass(frozen=True, kw_only=True)
class InputAware(Attack):
    """x' = x + (g(x) - x) m(x), with a pattern net g and a mask net m (section 4).

    Both are trained together with the victim. In each batch, a share `rate` carries its own trigger
    and the target's label; as many again carry the trigger of *another* image and keep their label
    (cross-trigger mode), so that a trigger works on its own image only. The diversity loss keeps
    patterns apart. Deviations: the mask net is trained during the first `mask_share` of the steps
    (paper: 25 epochs before), a small net with group norm replaces the paper's, and the optimiser
    is Adam.

    Args:
        density: share of pixels that the mask may cover without a penalty (paper: 0.032).
        cross: images with a foreign trigger per poisoned one (paper: 1).
        diversity: weight of the diversity loss (paper: 1).
    """

    family: ClassVar[str] = "sample_specific"
    paper: ClassVar[str] = "Nguyen and Tran, Input-Aware Dynamic Backdoor Attack, NeurIPS 2020"
    controls_training: ClassVar[bool] = True

    density: float = 0.032
    cross: float = 1.0
    diversity: float = 1.0
    mask_share: float = 0.25
    rate_of_generator: float = 1e-2
    width: int = 16

    def apply(self, images: Tensor) -> Tensor:
        if not self.learned:
            raise RuntimeError(
                "The generator of an input-aware attack is trained with its victim; train first."
            )
        channels = images.shape[1]
        with seeded(self.seed):
            nets = Painter(channels, channels, self.width), Painter(channels, 1, self.width)
        pattern, mask = (
            restored(net, dict(self.learned), name, images.device)
            for net, name in zip(nets, ("pattern", "mask"), strict=True)
        )
        return painted(images, pattern(images), mask(images))

    def control(self, rate: float, steps: int, device: torch.device | str) -> Control:
        return _Control(self, rate, steps, torch.device(device))


def painted(images: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    """Images with a pattern in (-1, 1) where the raw mask in (-1, 1) is well above zero."""
    return images + (pattern / 2 + 0.5 - images) * sharp(mask)


def sharp(mask: Tensor) -> Tensor:
    """The paper's soft threshold: tanh with slope 10, in (0, 1)."""
    return torch.tanh(10 * mask) / 2 + 0.5


class _Control(Control):
    def __init__(self, attack: InputAware, rate: float, steps: int, device: torch.device) -> None:
        self.attack, self.device = attack, device
        self.mixer = Mixer(attack, rate, cover=attack.cross * rate)
        self.mask_steps, self.step = max(1, round(attack.mask_share * steps)), 0
        self.pattern: nn.Module | None = None
        self.mask: nn.Module | None = None

    def _build(self, channels: int) -> None:
        with seeded(self.attack.seed):
            self.pattern = Painter(channels, channels, self.attack.width).to(self.device)
            self.mask = Painter(channels, 1, self.attack.width).to(self.device)
        self.optimisers = [
            torch.optim.Adam(net.parameters(), self.attack.rate_of_generator, betas=(0.5, 0.9))
            for net in (self.mask, self.pattern)
        ]

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        if self.pattern is None:
            self._build(images.shape[1])
        assert self.pattern is not None
        assert self.mask is not None
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        poison, foreign = self.mixer.roles(labels)
        own, mask = self.pattern(images), self.mask(images)
        if self.step >= self.mask_steps:
            mask = mask.detach()
        batch = mixed(foreign, painted(images, own.roll(1, 0), mask.roll(1, 0)), images)
        batch = mixed(poison, painted(images, own, mask), batch)
        total = criterion(model(batch), mixed(poison, self.attack.relabel(labels), labels))
        total = total + self.attack.diversity * _sameness(images, own)
        if self.step < self.mask_steps:
            covered = sharp(mask).mean((1, 2, 3))
            total = (
                total
                + 100 * (covered - self.attack.density).clamp(min=0).mean()
                + _sameness(images, mask)
            )
        return total

    def stepped(self) -> None:
        self.optimisers[1].step()
        if self.step < self.mask_steps:
            self.optimisers[0].step()
        self.step += 1

    def finish(self) -> InputAware:
        assert self.pattern is not None
        assert self.mask is not None
        learned: Mapping[str, Tensor] = tensors_of(self.pattern, "pattern") | tensors_of(
            self.mask, "mask"
        )
        return replace(self.attack, learned=learned)


def _sameness(images: Tensor, maps: Tensor) -> Tensor:
    """The paper's diversity loss: distance of neighbouring images over that of their maps."""
    apart = (images - images.roll(1, 0)).flatten(1).norm(dim=1)
    painted_apart = (maps - maps.roll(1, 0)).flatten(1).norm(dim=1)
    return (apart / (painted_apart + apart.detach() * 0.05 + TINY)).mean()
