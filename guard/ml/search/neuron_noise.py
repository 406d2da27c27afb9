"""Bounded adversarial noise on a network's neurons, which leaves the network itself unchanged.

After BAN (Xu et al., NeurIPS 2024): scales and shifts of norm layers become p (1 + d) with |d| <=
eps, and d moves by the sign of a loss's gradient. If there is no norm layer with parameters, each
output channel of the weighted layers gets one factor. Deviations: `Wandering.grow` raises eps step
by step and starts from the noise of the last eps, so that one path shows at which strength
something happens; the gradient is that of all images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of
from guard.ml.networks.dataflow import flow_of

PASS_IMAGES = {"cpu": 128, "cuda": 1024}
#: From logits N,K and labels N to the sum that the noise is to increase.
Gain = Callable[[Tensor, Tensor], Tensor]


def knobs(model: nn.Module, images: Tensor) -> dict[str, tuple[int, ...]]:
    """The names of the parameters that get noise, and its shapes, which broadcast to theirs.

    `images` are float N,C,H,W in [0, 1] on the model's device.
    """
    layers = flow_of(model, images).layers
    own = dict(model.named_parameters())
    names = [
        name
        for layer in layers
        if layer.kind == "norm"
        for name in (layer.weight_name, layer.bias_name)
        if name
    ]
    if not names:
        names = [layer.weight_name for layer in layers if layer.weight_name]
    if not names:
        names = list(own)
    return {
        name: (own[name].shape[0], *[1] * (own[name].dim() - 1))
        if own[name].dim() > 1
        else tuple(own[name].shape)
        for name in dict.fromkeys(names)
    }


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Strengths `first`, `first` * `factor`, ... up to `most`, with `moves` sign steps each."""

    first: float
    factor: float
    most: float
    moves: int

    def strengths(self) -> Iterator[float]:
        """Each strength once, in ascending order."""
        strength = self.first
        while strength <= self.most * (1 + 1e-9):
            yield strength
            strength *= self.factor


class Wandering:
    """One noise that grows step by step; `model` keeps its parameters."""

    def __init__(
        self, model: nn.Module, shapes: dict[str, tuple[int, ...]], start: dict[str, Tensor]
    ) -> None:
        self.model = model
        self.own = {
            name: parameter for name, parameter in model.named_parameters() if name in shapes
        }
        self.noise = start

    def grow(self, strength: float, moves: int, data: Labelled, gain: Gain) -> None:
        """Take `moves` steps up the gradient of `gain` over all of `data`, within +-`strength`."""
        names = list(self.noise)
        for _ in range(moves):
            noise = {name: value.detach().requires_grad_() for name, value in self.noise.items()}
            total = [torch.zeros_like(value) for value in noise.values()]
            for images, labels in data.batches(
                _pass_images(self.model), device=device_of(self.model)
            ):
                with torch.enable_grad():
                    value = gain(self._run(images, noise), labels)
                    parts = torch.autograd.grad(
                        value,
                        [noise[name] for name in names],
                        materialize_grads=True,
                        allow_unused=True,
                    )
                total = [one + two for one, two in zip(total, parts, strict=True)]
            step = 2 * strength / moves
            self.noise = {
                name: (noise[name].detach() + step * way.sign()).clamp(-strength, strength)
                for name, way in zip(names, total, strict=True)
            }

    @torch.no_grad()
    def predictions(self, data: Labelled) -> Tensor:
        """Predicted classes under the noise, int64 N on the CPU.

        Raises:
            MethodFailed: a logit is not finite.
        """
        parts, broken = [], torch.zeros((), dtype=torch.bool, device=device_of(self.model))
        for images, _ in data.batches(_pass_images(self.model), device=device_of(self.model)):
            logits = self._run(images, self.noise)
            broken = broken | ~torch.isfinite(logits).all()
            parts.append(logits.argmax(1))
        if bool(broken):
            raise MethodFailed(
                "Under noise on its neurons the model gives logits that are not finite.",
                code="non_finite",
            )
        return torch.cat(parts).cpu()

    def _run(self, images: Tensor, noise: dict[str, Tensor]) -> Tensor:
        noisy = {name: parameter * (1 + noise[name]) for name, parameter in self.own.items()}
        logits: Tensor = functional_call(self.model, noisy, (images,))
        return logits


def first_noise(
    model: nn.Module, shapes: dict[str, tuple[int, ...]], strength: float
) -> dict[str, Tensor]:
    """Float noise of the given shapes, uniform in +-`strength`, on the model's device.

    Draws from torch's global CPU generator.
    """
    device = device_of(model)
    return {
        name: ((torch.rand(shape) * 2 - 1) * strength).to(device) for name, shape in shapes.items()
    }


def _pass_images(model: nn.Module) -> int:
    return PASS_IMAGES.get(device_of(model).type, 256)
