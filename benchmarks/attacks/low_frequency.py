"""Low-frequency trigger (Zeng et al., ICCV 2021): a perturbation that a low-pass filter keeps."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.attacks._base import Attack, ModelFactory
from benchmarks.attacks._surrogate import descend, surrogate
from guard.ml.cleanset import Labelled


@dataclass(frozen=True, kw_only=True)
class LowFrequency(Attack):
    """A smooth pattern, optimised on a surrogate, added to every image and clipped.

    Deviation: the pattern is made smooth by construction (a Gaussian filter inside the
    optimisation) and bounded in l-infinity, where the paper filters a perturbation bounded in l-2
    after each step.

    Args:
        bound: largest change, in grey levels of 255.
        blur: standard deviation of the filter as a share of the image's side.
    """

    family: ClassVar[str] = "additive"
    paper: ClassVar[str] = (
        "Zeng et al., Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective, ICCV 2021"
    )

    bound: float = 24.0
    blur: float = 0.1
    steps: int = 60
    surrogate_epochs: int = 2

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        model = surrogate(data, model_factory, device, epochs=self.surrogate_epochs, seed=self.seed)
        start = torch.randn(data.images.shape[1:], generator=self._generator(1))
        wanted = replace(self, classes=classes).relabel(data.labels)
        (raw,) = descend(
            model,
            data,
            wanted,
            (start,),
            lambda images, raw: self._add(images, self.smooth(raw)),
            steps=self.steps,
            rate=0.05,
            seed=self.seed,
        )
        return replace(self, classes=classes, learned={"pattern": self.smooth(raw)})

    def smooth(self, raw: Tensor) -> Tensor:
        """The raw pattern C,H,W, filtered and scaled to the bound, in units of [0, 1] images."""
        for dim in (1, 2):
            side = raw.shape[dim]
            reach = max(1, round(3 * self.blur * side))
            run = torch.arange(-reach, reach + 1, device=raw.device)
            kernel = torch.exp(-0.5 * (run / (self.blur * side)) ** 2)
            kernel = (kernel / kernel.sum()).reshape(1, 1, -1)
            moved = raw.movedim(dim, -1)
            rows = functional.pad(moved.reshape(-1, 1, side), (reach, reach), mode="replicate")
            raw = functional.conv1d(rows, kernel).reshape(moved.shape).movedim(-1, dim)
        return self.bound / 255 * raw / raw.abs().amax().clamp(min=1e-6)

    def apply(self, images: Tensor) -> Tensor:
        if not self.learned:
            raise RuntimeError("The low-frequency pattern is optimised; call prepare first.")
        return self._add(images, self.learned["pattern"].to(images))

    def _add(self, images: Tensor, pattern: Tensor) -> Tensor:
        return (images + pattern).clamp(0, 1)
