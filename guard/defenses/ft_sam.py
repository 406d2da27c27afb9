"""FT-SAM: fine-tune on clean data with sharpness-aware minimisation.

Paper: Zhu, Wei, Shen, Fan, Wu, "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware
Minimization", ICCV 2023, arXiv 2304.11823: min over w of max over ||e / |w||| <= rho of the clean
loss at w + e. Backdoor neurons have large weights, and a step in proportion to the weight changes
those most.
Deviations:
    - fewer steps for few images, and one cycle of the rate over all of them
    - no label smoothing, no augmentation: neither is in the paper's text
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.training.fit import require_accuracy, require_images, tune
from guard.ml.training.sharpness import uphill


@dataclass(frozen=True, kw_only=True)
class FtSam(Defense):
    """Sharpness-aware fine-tuning of all weights; works for any architecture.

    Args:
        rho: radius of the neighbourhood, relative to the weights (paper: 2 on CIFAR-10, 8 on larger
            data).
        rounds: passes over the search images (paper: 100 over 2,500 images).
        batch: images a step (paper: 256).
        rate: SGD's learning rate, with momentum 0.9 and weight decay 5e-4 (as in the paper).
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zhu et al., FT-SAM, ICCV 2023, arXiv 2304.11823"
    fast = fixed(rounds=3)
    ungated = fixed(rounds=1, max_drop=1.0)

    rho: float = 2.0
    rounds: int = 50
    batch: int = 64
    rate: float = 0.01
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="FT-SAM")
        before = accuracy(model, clean.calibration, clean.classes).overall
        ascent = partial(adaptive, rho=self.rho)
        tune(
            model,
            clean.search,
            lambda images, labels: uphill(model, images, labels, ascent, share=1.0),
            rate=self.rate,
            weight_decay=5e-4,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="FT-SAM,",
        )
        require_accuracy(model, clean, before, drop=self.max_drop, method="FT-SAM")
        return model


def adaptive(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, rho: float
) -> dict[str, Tensor]:
    """The e with ||e / |w||| <= rho that raises the loss most to first order, for each weight.

    It is rho w^2 g / || |w| g ||, with one norm over all weights w and gradients g; the result has
    their shapes, float.
    """
    scaled = [(weight * gradients[name]).norm() for name, weight in weights.items()]
    length = torch.stack(scaled).norm().clamp_min(1e-12)
    return {
        name: rho / length * weight.square() * gradients[name] for name, weight in weights.items()
    }
