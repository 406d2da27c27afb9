"""LIRA (Doan et al., ICCV 2021): a noise net as trigger, trained in turns with its victim."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack, Control, Criterion, Mixer, mixed
from benchmarks.attacks._nets import Painter, restored, tensors_of
from guard.ml.seeds import seeded


@dataclass(frozen=True, kw_only=True)
class Lira(Attack):
    """x' = clip(x + bound g(x)), with g trained through the victim and later fixed.

    Deviations: poison is a share `rate` of each batch (the paper weighs a loss on all of it), and
    the generator is trained during the first `learning_share` of the steps of one run, where the
    paper has two runs.

    Args:
        bound: largest change, in grey levels of 255 (paper: 0.01 to 0.1 of the range).
    """

    family: ClassVar[str] = "sample_specific"
    paper: ClassVar[str] = (
        "Doan et al., LIRA: Learnable, Imperceptible and Robust Backdoor Attacks, ICCV 2021"
    )
    controls_training: ClassVar[bool] = True

    bound: float = 20.0
    learning_share: float = 0.5
    rate_of_generator: float = 1e-3
    width: int = 16

    def apply(self, images: Tensor) -> Tensor:
        if not self.learned:
            raise RuntimeError("The generator of LIRA is trained with its victim; train first.")
        with seeded(self.seed):
            net = restored(
                Painter(images.shape[1], images.shape[1], self.width),
                dict(self.learned),
                "noise",
                images.device,
            )
        return self.add(images, net(images))

    def add(self, images: Tensor, noise: Tensor) -> Tensor:
        """The images plus noise in (-1, 1) that is scaled to the bound."""
        return (images + self.bound / 255 * noise).clamp(0, 1)

    def control(self, rate: float, steps: int, device: torch.device | str) -> Control:
        return _Control(self, rate, steps, torch.device(device))


class _Control(Control):
    def __init__(self, attack: Lira, rate: float, steps: int, device: torch.device) -> None:
        self.attack, self.device, self.mixer = attack, device, Mixer(attack, rate)
        self.learning, self.step = max(1, round(attack.learning_share * steps)), 0
        self.net: nn.Module | None = None

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        if self.net is None:
            with seeded(self.attack.seed):
                self.net = Painter(images.shape[1], images.shape[1], self.attack.width).to(
                    self.device
                )
            self.optimiser = torch.optim.Adam(self.net.parameters(), self.attack.rate_of_generator)
        wanted = self.attack.relabel(labels)
        stamped = self.attack.add(images, self.net(images))
        if self.step < self.learning:
            # This step trains the generator; it must not add to the victim's own gradients.
            parameters = list(self.net.parameters())
            grads = torch.autograd.grad(criterion(model(stamped), wanted), parameters)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            self.optimiser.step()
        self.step += 1
        poison, _ = self.mixer.roles(labels)
        batch = mixed(poison, stamped.detach(), images)
        return criterion(model(batch), mixed(poison, wanted, labels))

    def finish(self) -> Lira:
        assert self.net is not None
        return replace(self.attack, learned=tensors_of(self.net, "noise"))
