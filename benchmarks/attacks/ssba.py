"""SSBA (Li et al., ICCV 2021): an encoder hides a code in images by sample-specific residuals."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attacks._base import Attack, ModelFactory
from benchmarks.attacks._nets import Painter, restored, tensors_of
from guard.ml.cleanset import Labelled
from guard.ml.seeds import seeded

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Ssba(Attack):
    """x' = clip(x + bound e(x, code)), with e trained so that a decoder reads a code from x'.

    Deviations: nets that suit small images, l-2 for similarity (paper: with LPIPS and a critic), no
    simulated printing, and training on the attacker's own images.

    Args:
        bits: length of the code; the attack uses one code, drawn by the seed.
        bound: largest change, in grey levels of 255.
    """

    family: ClassVar[str] = "sample_specific"
    paper: ClassVar[str] = (
        "Li et al., Invisible Backdoor Attack with Sample-Specific Triggers, ICCV 2021"
    )

    bits: int = 8
    bound: float = 48.0
    steps: int = 200
    likeness: float = 5.0
    width: int = 16

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        del model_factory
        channels = data.images.shape[1]
        with seeded(self.seed) as generator, torch.enable_grad():
            encoder, decoder = (
                self._encoder(channels).to(device),
                _decoder(channels, self.bits, self.width).to(device),
            )
            optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
            images = data.images.to(device)
            for step in range(self.steps):
                index = torch.randint(len(images), (BATCH,), generator=generator).to(device)
                codes = torch.randint(2, (BATCH, self.bits), generator=generator).float().to(device)
                batch = images[index].float().div_(255)
                hidden = self._hide(encoder, batch, codes)
                loss = functional.binary_cross_entropy_with_logits(decoder(hidden), codes)
                # The weight of similarity grows, because the code must become readable first.
                loss = loss + self.likeness * step / self.steps * functional.mse_loss(hidden, batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        return replace(
            self,
            classes=classes,
            learned=tensors_of(encoder, "encoder") | tensors_of(decoder, "decoder"),
        )

    def code(self) -> Tensor:
        """The code that leads to the target, float 1,bits of 0 and 1."""
        return torch.randint(2, (1, self.bits), generator=self._generator(1)).float()

    def apply(self, images: Tensor) -> Tensor:
        if not self.learned:
            raise RuntimeError("The encoder of SSBA is trained; call prepare first.")
        with seeded(self.seed):
            encoder = restored(
                self._encoder(images.shape[1]), dict(self.learned), "encoder", images.device
            )
        return self._hide(encoder, images, self.code().to(images).expand(len(images), -1))

    def read(self, images: Tensor) -> Tensor:
        """What the decoder reads, float N,bits in [0, 1]; it shows whether a code is present."""
        with seeded(self.seed), torch.no_grad():
            decoder = restored(
                _decoder(images.shape[1], self.bits, self.width),
                dict(self.learned),
                "decoder",
                images.device,
            )
            return torch.sigmoid(decoder(images))

    def _encoder(self, channels: int) -> nn.Module:
        return Painter(channels + self.bits, channels, self.width)

    def _hide(self, encoder: nn.Module, images: Tensor, codes: Tensor) -> Tensor:
        planes = (2 * codes - 1)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        return (images + self.bound / 255 * encoder(torch.cat([images, planes], 1))).clamp(0, 1)


def _decoder(channels: int, bits: int, width: int) -> nn.Module:
    layers: list[nn.Module] = []
    sizes = (channels, width, 2 * width, 2 * width)
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, bits))
