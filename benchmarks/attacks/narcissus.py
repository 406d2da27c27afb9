"""Narcissus (Zeng et al., CCS 2023): clean-label, by a universal pattern of the target class."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from benchmarks.attacks._base import Attack, ModelFactory
from benchmarks.attacks._surrogate import descend, surrogate
from guard.ml.cleanset import Labelled


@dataclass(frozen=True, kw_only=True)
class Narcissus(Attack):
    """A bounded pattern, optimised on and added to images of the target class only.

    At test time it is amplified. Deviation: the surrogate is trained on the attacker's own training
    set, where the paper takes a public set of another task and fine-tunes it on the target class.

    Args:
        bound: largest change in training, in grey levels of 255 (paper: 16 for CIFAR-10).
        amplified: factor on the pattern at test time (paper: 3).
    """

    family: ClassVar[str] = "additive"
    paper: ClassVar[str] = "Zeng et al., Narcissus, CCS 2023"
    clean_label: ClassVar[bool] = True

    bound: float = 32.0
    amplified: float = 3.0
    steps: int = 100
    surrogate_epochs: int = 2

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        model = surrogate(data, model_factory, device, epochs=self.surrogate_epochs, seed=self.seed)
        assert self.target is not None
        own = data.pick(data.labels == self.target)
        start = 0.1 * torch.randn(data.images.shape[1:], generator=self._generator(1))
        (raw,) = descend(
            model,
            own,
            own.labels,
            (start,),
            lambda images, raw: self._add(images, torch.tanh(raw), 1.0),
            steps=self.steps,
            rate=0.05,
            seed=self.seed,
        )
        return replace(self, classes=classes, learned={"pattern": torch.tanh(raw)})

    def apply(self, images: Tensor) -> Tensor:
        return self._learned(images, self.amplified)

    def plant(self, images: Tensor) -> Tensor:
        return self._learned(images, 1.0)

    def _learned(self, images: Tensor, factor: float) -> Tensor:
        if not self.learned:
            raise RuntimeError("The pattern of Narcissus is optimised; call prepare first.")
        return self._add(images, self.learned["pattern"].to(images), factor)

    def _add(self, images: Tensor, pattern: Tensor, factor: float) -> Tensor:
        return (images + factor * self.bound / 255 * pattern).clamp(0, 1)
