"""MESA removal: unlearn the whole distribution of a backdoor's patches until none is found.

Source: Qiao, Yang and Li, "Defending Neural Backdoors via Generative Distribution Modeling",
NeurIPS 2019, with the retraining of the authors' code: clean images, some of them with a fresh
sample of the recovered distribution, all with their true labels. Deviations, and why:
    - the place of the patch is not given: regions of several sizes around what a patch search found
      (`guard.ml.search.outlier_patches`)
    - images are trained on the original model's output without the patch, not on their labels: a
      few hundred labels would be memorised. The model also gives outputs for blends of two images,
      which enlarge a small clean set
    - 20 % of the images are stamped, not 1 %, and every set learnt so far takes part in every
      step
    - batch-norm statistics stay as they are: stamped images would shift them away from the task
    - the rate starts at the paper's and rises only if it was not enough, for the gentlest repair
      that works
"""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part, span
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of
from guard.ml.search.fresh_patches import LEAST_PIXELS, Region, TriggerSet, learn_sets
from guard.ml.search.outlier_patches import require_classes, unusual_patches
from guard.ml.search.patch_distribution import DistributionEffort
from guard.ml.search.patches import PatchEffort, Patches
from guard.ml.training.fit import fit, require_accuracy, require_images

LARGEST = 0.2  # share of the image that a patch may cover
EXCHANGE = 10.0  # points of success rate that a point of accuracy is worth, if no rate gives both
STEEPER = 3.0  # ratio of a rate to the one before


@dataclass(frozen=True, kw_only=True)
class MesaRemoval(Defense):
    """Search for unusual patches, learn and unlearn their distribution, until none stands out.

    A class is repaired if its smallest patch is `fold` times smaller than its siblings' at level
    `alpha`; at the first look also the class with the smallest patch if it is `far` times smaller.

    Args:
        looks: the largest number of rounds of search and unlearning; the vetting tests whether they
            were enough.
        search_steps, search_batch: steps of each search, and images a class and step.
        room: pixels of the smallest region, in norms of the smallest patch; each of `sizes` regions
            has twice as many as the one before.
        learn_steps, learn_batch: those of the generators, one for each level of success, class and
            region.
        stamped: stamped images for each clean one.
        rounds: the largest number of passes over the search images, `images` a step.
        rate: the first learning rate of SGD with momentum (paper: 1e-3), tripled in each of
            `tries`.
        goal: share (0..1) of the search images that fresh samples of a set may still lead to its
            class; the training ends after two passes in a row within it.
        max_loss: calibration accuracy (0..1) that a rate may cost without a penalty when rates are
            compared.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
        min_per_class: search images that every class needs.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = (
        "Qiao et al., Defending Neural Backdoors via Generative Distribution Modeling, NeurIPS 2019"
    )
    fast = fixed(rounds=2, looks=1, search_steps=100, learn_steps=20)
    ungated = fixed(
        looks=1,
        search_steps=20,
        search_batch=6,
        sizes=1,
        learn_steps=2,
        rounds=1,
        tries=1,
        max_loss=1.0,
        fold=1e9,
        far=0.0,
        max_drop=1.0,
    )

    looks: int = 3
    search_steps: int = 150
    search_batch: int = 16
    alpha: float = 0.05
    fold: float = 1.5
    far: float = 2.5
    room: float = 2.0
    sizes: int = 2
    learn_steps: int = 200
    learn_batch: int = 16
    stamped: float = 0.2
    rounds: int = 20
    images: int = 64
    rate: float = 1e-3
    tries: int = 4
    goal: float = 0.05
    max_loss: float = 0.01
    max_drop: float = 0.1
    min_per_class: int = 2

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="MESA removal")
        require_classes(clean, method="MESA removal")
        before = accuracy(model, clean.calibration, clean.classes).overall
        teacher = copy.deepcopy(model).requires_grad_(requires_grad=False)
        sets: list[TriggerSet] = []
        effort = PatchEffort(steps=self.search_steps, batch=self.search_batch)
        for look in range(self.looks):
            step = part(progress, look / self.looks, (look + 1) / self.looks, f"look {look + 1},")
            found = unusual_patches(
                model,
                clean,
                effort,
                part(step, 0.0, 0.4, "searching"),
                alpha=self.alpha,
                fold=self.fold,
                far=self.far if look == 0 else None,
            )
            if not len(found.targets):
                break
            sets += self.learn(model, clean.search, found, part(step, 0.4, 0.7, "learning patches"))
            model = self._unlearn(
                model, teacher, clean, sets, before, part(step, 0.7, 1.0, "unlearning")
            )
        if not sets:
            raise MethodFailed(
                "No class has an unusually small patch; there is nothing to unlearn.",
                code="nothing_found",
            )
        require_accuracy(model, clean, before, drop=self.max_drop, method="MESA removal")
        return model

    def learn(
        self, model: nn.Module, data: Labelled, found: Patches, progress: Progress
    ) -> list[TriggerSet]:
        """Learn the distributions of the patches found, one for each class and size of region.

        `model` must be in eval mode, its parameters without gradients.
        """
        effort = DistributionEffort(steps=self.learn_steps, batch=self.learn_batch)
        masks, targets = found.masks.cpu(), found.targets.tolist()
        most = int(LARGEST * masks[0].numel())
        sets: list[TriggerSet] = []
        for size in range(self.sizes):
            # One size for all classes, since generators that are trained together have outputs of
            # one size.
            pixels = min(
                max(round(self.room * 2**size * float(found.norms.max())), LEAST_PIXELS), most
            )
            regions = [Region.found(mask, pixels) for mask in masks]
            sets += learn_sets(
                model,
                data,
                targets,
                regions,
                effort,
                span(progress, size / self.sizes, (size + 1) / self.sizes, f"of {pixels} pixels"),
            )
        return sets

    def _unlearn(
        self,
        model: nn.Module,
        teacher: nn.Module,
        clean: CleanSet,
        sets: list[TriggerSet],
        before: float,
        progress: Progress,
    ) -> nn.Module:
        """A copy of `model`, trained at the smallest rate that reaches the goal, or at the best."""
        best: tuple[float, nn.Module] | None = None
        for attempt in range(self.tries):
            rate = self.rate * STEEPER**attempt
            candidate = copy.deepcopy(model).requires_grad_()
            report = part(
                progress, attempt / self.tries, (attempt + 1) / self.tries, f"at rate {rate:g},"
            )
            try:
                self._train(candidate, teacher, clean.search, sets, rate, report)
                lost = before - accuracy(candidate, clean.calibration, clean.classes).overall
            except MethodFailed as error:
                if error.code != "non_finite":
                    raise
                break  # a larger rate would not do better
            works = max(0.0, success(candidate, clean.search, sets) - self.goal)
            price = works + EXCHANGE * max(0.0, lost - self.max_loss)
            if best is None or price < best[0]:
                best = price, candidate
            if not works:
                break  # a larger rate would only cost more accuracy
        if best is None:
            raise MethodFailed(
                f"MESA removal diverged at a rate of {self.rate:g}; use a lower one.",
                code="non_finite",
            )
        return best[1]

    def _train(
        self,
        model: nn.Module,
        teacher: nn.Module,
        data: Labelled,
        sets: list[TriggerSet],
        rate: float,
        progress: Progress,
    ) -> None:
        def objective(images: Tensor, _labels: Tensor) -> Tensor:
            # The batch was shuffled, so its first images and neighbours are a random choice.
            some = math.ceil(self.stamped * len(images))
            blends = images.lerp(images.roll(1, 0), torch.rand(len(images), 1, 1, 1).to(images))
            with torch.no_grad():
                wanted = softmax(teacher(torch.cat([images, blends])), 1)
            inputs = torch.cat([images, blends, stamp(images[:some], sets)])
            return cross_entropy(model(inputs), torch.cat([wanted, wanted[:some]]))

        quiet = 0

        def enough(_passes: int) -> bool:
            nonlocal quiet
            quiet = quiet + 1 if success(model, data, sets) <= self.goal else 0
            return quiet == 2

        optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        fit(
            model,
            data,
            objective,
            optimiser,
            rounds=self.rounds,
            batch=self.images,
            progress=progress,
            after_round=enough,
        )


def stamp(images: Tensor, sets: list[TriggerSet]) -> Tensor:
    """Float images N,C,H,W in [0, 1], each with a fresh sample of one of the sets.

    The sets get equal parts of the images, in random order.
    """
    order = torch.randperm(len(sets))[: len(images)].tolist()
    return torch.cat(
        [sets[row].stamp(some) for row, some in zip(order, images.chunk(len(order)), strict=False)]
    )


@torch.no_grad()
def success(model: nn.Module, data: Labelled, sets: list[TriggerSet]) -> float:
    """The largest ASR (0..1) of the sets, each with a fresh sample per image of another class."""
    shares = []
    for one in sets:
        others = data.pick(data.labels != one.target)
        hits = sum(
            int((model(one.stamp(images)).argmax(1) == one.target).sum())
            for images, _ in others.batches(256, device=device_of(model))
        )
        shares.append(hits / len(others))
    return max(shares)
