"""FST, feature shift tuning: train from a fresh classifier that is pushed away from the old one.

Paper: Min, Qin, Shen, Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning",
NeurIPS 2023, arXiv 2310.01875: reinitialise the last linear layer, train all weights on
cross-entropy + alpha * <W, W_old>, and after every step scale W to the norm of W_old. Plain
fine-tuning stays near a poisoned model's features, above all at low poison rates. Values of the
reference code are in brackets below. Deviations: smaller batches and more passes, since a small
clean set would otherwise give a fresh classifier too few steps; the layer is found by data flow,
not by its name.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.networks.heads import head_of
from guard.ml.training.fit import require_accuracy, require_images, tune


@dataclass(frozen=True, kw_only=True)
class Fst(Defense):
    """Tune all weights, starting from a fresh head; batch-norm statistics are updated.

    Args:
        rounds: passes over the search images (10, with more images).
        batch: images a step (128).
        rate, momentum: of SGD (0.01, 0.9), one cycle.
        alpha: weight of the inner product with the old head (0.1).
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Min et al., Feature Shift Tuning, NeurIPS 2023, arXiv 2310.01875"
    fast = fixed(rounds=4)
    ungated = fixed(rounds=1, batch=64, max_drop=1.0)

    rounds: int = 20
    batch: int = 32
    rate: float = 0.01
    momentum: float = 0.9
    alpha: float = 0.1
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="FST")
        before = accuracy(model, clean.calibration, clean.classes).overall
        weight, bias = head_of(model, clean, method="FST")
        old = weight.detach().clone()
        norm = old.norm()
        reinitialise(weight, bias)

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(model(images), labels) + self.alpha * (weight * old).sum()

        @torch.no_grad()
        def keep_norm() -> None:
            weight.mul_(norm / weight.norm().clamp_min(1e-12))

        keep_norm()
        tune(
            model,
            clean.search,
            objective,
            rate=self.rate,
            momentum=self.momentum,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="FST,",
            after_step=keep_norm,
        )
        require_accuracy(model, clean, before, drop=self.max_drop, method="FST")
        return model


@torch.no_grad()
def reinitialise(weight: Tensor, bias: Tensor | None) -> None:
    """Redraw weight (float K,D) and bias (K) in place, uniformly within +-1 / sqrt(D).

    Draws from torch's global CPU generator.
    """
    bound = weight[0].numel() ** -0.5
    for tensor in (weight, bias):
        if tensor is not None:
            tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound))
