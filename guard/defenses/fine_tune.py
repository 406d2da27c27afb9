"""Plain fine-tuning on clean data: the baseline that every other defense must beat.

Deviation from the usual baseline (a fixed small rate): the rate is the largest at which the model
still recovers its clean accuracy, since a small rate leaves a model in the minimum to which the
poisoned training led. The choice depends on clean calibration accuracy only.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.training.fit import require_images, tune


@dataclass(frozen=True, kw_only=True)
class FineTune(Defense):
    """Minimise cross-entropy on the search images by SGD with momentum, one cycle of the rate.

    Batch-norm statistics are updated.

    Args:
        rounds: passes over the search images.
        batch: images a step.
        rate: the first learning rate tried; halved after each try that lost too much accuracy.
        tries: how many rates are tried.
        max_drop: calibration accuracy (0..1) that a try may lose; one image may always be lost.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "baseline; see Liu et al., Fine-Pruning, RAID 2018, section 4"
    fast = fixed(rounds=1, rate=1e-3)
    ungated = fixed(rounds=1, tries=1, max_drop=1.0)

    rounds: int = 20
    batch: int = 64
    rate: float = 0.1
    tries: int = 8
    max_drop: float = 0.01
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="Fine-tuning")
        before = accuracy(model, clean.calibration, clean.classes).overall
        allowed = max(self.max_drop, 1 / len(clean.calibration))
        now, rate = 0.0, self.rate
        for index in range(self.tries):
            start = index / self.tries

            def part(done: float, note: str = "", start: float = start) -> None:
                progress(start + done / self.tries, note)

            candidate = copy.deepcopy(model)
            try:
                self._tune(candidate, clean, rate, part)
                now = accuracy(candidate, clean.calibration, clean.classes).overall
            except MethodFailed as failure:
                if failure.code != "non_finite":
                    raise
                now = 0.0  # it diverged: the rate is too large; the next one is smaller
            if now >= before - allowed and _finite(candidate):
                return candidate
            rate /= 2
        raise MethodFailed(
            f"Fine-tuning lowered the accuracy on the calibration images from {before:.1%} to "
            f"{now:.1%} at every rate "
            f"from {self.rate:g} down to {rate * 2:g}; add images to the clean set.",
            code="accuracy_collapsed",
        )

    def _tune(self, model: nn.Module, clean: CleanSet, rate: float, progress: Progress) -> None:
        tune(
            model,
            clean.search,
            lambda images, labels: cross_entropy(model(images), labels),
            rate=rate,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            weight_decay=5e-4,
            note=f"fine-tuning at rate {rate:g},",
        )


def _finite(model: nn.Module) -> bool:
    """Whether all weights and running statistics are finite, which accuracy may not reveal."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())
