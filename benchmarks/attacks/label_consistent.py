"""Label-consistent (Turner et al., 2019): a patch on hard images of the target, clean-label."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack, ModelFactory
from benchmarks.attacks._surrogate import adversarial, surrogate
from guard.ml.cleanset import Labelled


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(Attack):
    """Adversarial noise hides the class, so that only 3x3 checkers in the four corners are learnt.

    Args:
        bound: of the adversarial noise, in grey levels of 255 (paper: 16 in l-infinity for
            CIFAR-10).
        amplitude: strength of the patch during training, in (0, 1]; it is 1 at test time (section
            5.3).
    """

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = "Turner et al., Label-Consistent Backdoor Attacks, 2019"
    clean_label: ClassVar[bool] = True

    bound: float = 32.0
    amplitude: float = 1.0
    size: int = 3
    surrogate_epochs: int = 3
    surrogate: nn.Module | None = field(default=None, repr=False, compare=False)

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        model = surrogate(data, model_factory, device, epochs=self.surrogate_epochs, seed=self.seed)
        return replace(self, classes=classes, surrogate=model)

    def apply(self, images: Tensor) -> Tensor:
        return self._corners(images, 1.0)

    def plant(self, images: Tensor) -> Tensor:
        if self.surrogate is None:
            raise RuntimeError(
                "Label-consistent poison is made on a surrogate; call prepare first."
            )
        assert self.target is not None
        own = torch.full((len(images),), self.target)
        return self._corners(
            adversarial(self.surrogate, images, own, bound=self.bound / 255), self.amplitude
        )

    def _corners(self, images: Tensor, amplitude: float) -> Tensor:
        run = torch.arange(self.size)
        checker = ((run[:, None] + run[None]) % 2 == 0).to(images)
        stamped = images.clone()
        for rows in (slice(None, self.size), slice(-self.size, None)):
            for columns in (slice(None, self.size), slice(-self.size, None)):
                corner = stamped[:, :, rows, columns]
                stamped[:, :, rows, columns] = corner + amplitude * (checker - corner)
        return stamped
