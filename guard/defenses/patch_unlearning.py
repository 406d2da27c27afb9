"""Patch unlearning: train on clean images with recovered patches to remove their effect.

Source: Wang et al., Neural Cleanse, S&P 2019, section 6.2 (unlearning), and Qiao et al., MESA,
NeurIPS 2019: one recovered patch is one member of a set, and unlearning only it leaves the others.
So patches are recovered at several budgets, and the repaired model is searched again until no class
stands out. Deviations: the search is `guard.ml.search.patches`, and images are trained on the
original model's output without the patch, not on their labels: a few hundred labels would be
memorised, which costs accuracy.
"""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.search.outlier_patches import (
    PatchStamps,
    grown,
    require_classes,
    together,
    unusual_patches,
)
from guard.ml.search.patches import PatchEffort
from guard.ml.training.fit import require_accuracy, require_images, tune


@dataclass(frozen=True, kw_only=True)
class PatchUnlearning(Defense):
    """Find unusually small patches and unlearn them, until a new search finds none.

    A class is repaired if its smallest patch is `fold` times smaller than its siblings' at level
    `alpha`; at the first look also the class with the smallest patch if it is `far` times smaller.
    That is less strict than a detector's gates, but not much: repairing a class without need costs
    accuracy, since its natural patches are part of the task.

    Args:
        looks: the largest number of rounds of search and unlearning; the vetting tests whether they
            were enough.
        steps: steps of each search; `batch` images a class and step.
        sizes: number of patch sizes, from the smallest norm to `largest` times as much in equal
            ratios; `size_steps` of search for each.
        stamped: stamped images for each clean one (paper: 0.2, MESA: 0.01).
        rounds: passes over the search images after each look, `images` a step; `rate` of SGD, one
            cycle.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Wang et al., Neural Cleanse, IEEE S&P 2019, section 6.2; Qiao et al., MESA, NeurIPS 2019"
    )
    fast = fixed(rounds=1, looks=1, steps=100, size_steps=10)
    ungated = fixed(
        looks=1, steps=20, batch=6, sizes=2, size_steps=2, rounds=1, fold=1e9, far=0.0, max_drop=1.0
    )

    looks: int = 2
    steps: int = 150
    batch: int = 16
    alpha: float = 0.05
    fold: float = 1.5
    far: float = 2.5
    sizes: int = 4
    largest: float = 4.0
    size_steps: int = 40
    stamped: float = 0.25
    rounds: int = 10
    images: int = 64
    rate: float = 0.01
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="Patch unlearning")
        require_classes(clean, method="Patch unlearning")
        before = accuracy(model, clean.calibration, clean.classes).overall
        teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
        stamps: list[PatchStamps] = []
        for look in range(self.looks):
            start, width = look / self.looks, 0.5 / self.looks
            found = unusual_patches(
                model,
                clean,
                PatchEffort(steps=self.steps, batch=self.batch),
                part(progress, start, start + width, f"look {look + 1}, searching"),
                alpha=self.alpha,
                fold=self.fold,
                far=self.far if look == 0 else None,
            )
            if not len(found.targets):
                break
            stamps += grown(
                model,
                clean.search,
                found,
                PatchEffort(steps=self.size_steps, batch=self.batch),
                sizes=self.sizes,
                largest=self.largest,
            )
            self._unlearn(
                model,
                teacher,
                clean,
                together(stamps),
                part(progress, start + width, start + 2 * width, f"look {look + 1}, unlearning"),
            )
        if not stamps:
            raise MethodFailed(
                "No class has an unusually small patch; there is nothing to unlearn.",
                code="nothing_found",
            )
        require_accuracy(model, clean, before, drop=self.max_drop, method="Patch unlearning")
        return model

    def _unlearn(
        self,
        model: nn.Module,
        teacher: nn.Module,
        clean: CleanSet,
        stamps: PatchStamps,
        progress: Progress,
    ) -> None:
        def objective(images: Tensor, _labels: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = softmax(teacher(images), 1)
            some = math.ceil(
                self.stamped * len(images)
            )  # the batch was shuffled, so its first images are a random choice
            inputs = torch.cat([images, stamps.on_some(images[:some])])
            return cross_entropy(model(inputs), torch.cat([wanted, wanted[:some]]))

        tune(
            model.requires_grad_(),
            clean.search,
            objective,
            rate=self.rate,
            weight_decay=5e-4,
            rounds=self.rounds,
            batch=self.images,
            progress=progress,
        )
