"""SAU, shared adversarial unlearning: unlearn what fools a model and its repaired copy alike.

Paper: Wei, Zhang, Zha, Wu, "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared
Adversarial Examples", NeurIPS 2023, arXiv 2307.10562. Deviations:
    - clean predictions are computed once a batch, the reference's once in all, not in every inner
      step (same values, about half the work); the model's are those of the clean pass that is
      trained on, whose backward pass runs at once, so that its graph is freed before the search
    - convolution weights are stored as NHWC while it runs (same numbers but for rounding)
    - images whose shared adversarial example is found leave the inner loop (their gradient would be
      zero)
    - only the gradient with respect to the perturbation is computed; the frozen reference
      accumulates none
    - `step` and `decay` are ours; the published step equals the radius
    - the weights kept are those of the best of the last rounds, by accuracy on clean calibration
      images minus the loss of the class that lost most; published: the last round's. The reference
      assigns shared adversarial examples to a wrong class, and unlearning them can reduce the
      recall of that class
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.evidence import Accuracy
from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of, predict
from guard.ml.suitability import channels_first, channels_last
from guard.ml.training.fit import fit, require_accuracy, require_images
from guard.ml.training.shared_adversarial import Ball, loss


@dataclass(frozen=True, kw_only=True)
class Sau(Defense):
    """Unlearn shared adversarial examples; batch-norm statistics stay as they are.

    Args:
        rounds: passes over the search images (paper: 100 on CIFAR-10).
        batch: images a step (reference code: 256; smaller steps more often suit a CPU).
        rate: Adam's learning rate (reference code: 1e-4 at ten times as many images).
        decay: whether the rate rises at first and falls to zero at the end (one cycle); published:
            constant.
        norm: "linf" or "l2", the ball that perturbations live in.
        rho: its radius, in pixel values 0..1 (paper: 0.2, L-infinity).
        steps: number of inner steps; `step` their length in units of `rho`.
        lambda_clean, lambda_unlearn, lambda_adversarial, lambda_share: lambda 1 to 4 of the paper.
        judged: the best weights (see `worth`) of this share (0..1) of the rounds, the last ones,
            are kept; 0: those of the last round.
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = (
        "Wei et al., Shared Adversarial Unlearning, NeurIPS 2023, arXiv 2307.10562"
    )
    fast = fixed(rounds=1, batch=60)
    ungated = fixed(rounds=1, max_drop=1.0)

    rounds: int = 25
    batch: int = 64
    rate: float = 1e-3
    decay: bool = True
    norm: str = "linf"
    rho: float = 0.2
    steps: int = 5
    step: float = 1.0
    lambda_clean: float = 1.0
    lambda_unlearn: float = 1.0
    lambda_adversarial: float = 0.01
    lambda_share: float = 1.0
    judged: float = 0.25
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        if self.norm not in ("linf", "l2"):
            raise MethodFailed(
                f"SAU supports the norms linf and l2, not {self.norm!r}.", code="bad_parameters"
            )
        require_images(clean, per_class=self.min_per_class, method="SAU")
        before = accuracy(model, clean.calibration, clean.classes)
        channels_last(model)
        reference = copy.deepcopy(model).requires_grad_(requires_grad=False)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.rate, amsgrad=True)
        kept = _Kept(model, clean, before, after=self.rounds - math.ceil(self.judged * self.rounds))
        labels, believed = (
            classes.to(device_of(model))
            for classes in (clean.search.labels, predict(reference, clean.search))
        )
        # Numbered instead of labelled, so that a shuffled batch can look up labels and predictions.
        numbered = Labelled(clean.search.images, torch.arange(len(clean.search)))
        fit(
            model,
            numbered,
            lambda images, at: self.terms(model, reference, images, labels[at], believed[at]),
            optimiser,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="SAU,",
            decay=self.decay,
            after_round=kept.look,
        )
        kept.restore()
        channels_first(model)
        require_accuracy(model, clean, before.overall, drop=self.max_drop, method="SAU")
        return model

    def terms(
        self,
        model: nn.Module,
        reference: nn.Module,
        images: Tensor,
        labels: Tensor,
        believed: Tensor,
    ) -> Iterator[Tensor]:
        """The scalar terms of the outer objective on one batch, which are added up.

        They are the clean cross-entropy and the shared adversarial risk.

        Args:
            model: the model that is repaired.
            reference: the model before the repair.
            images: float N,C,H,W in [0, 1].
            labels: int64 N.
            believed: the reference's predictions on the clean images, int64 N.
        """
        logits = model(images)
        mine = logits.detach().argmax(1)
        yield self.lambda_clean * cross_entropy(logits, labels)
        del logits
        yield self.lambda_unlearn * loss(
            model, reference, images, labels, mine, believed, self.ball
        )

    @property
    def ball(self) -> Ball:
        """The settings of the inner search."""
        return Ball(
            norm=self.norm,
            rho=self.rho,
            steps=self.steps,
            step=self.step,
            fool=self.lambda_adversarial,
            agree=self.lambda_share,
        )


def worth(before: Accuracy, now: Accuracy) -> float:
    """Accuracy minus the largest loss of recall of a class, in -1..1."""
    lost = max(old - new for old, new in zip(before.per_class, now.per_class, strict=True))
    return now.overall - max(0.0, lost)


class _Kept:
    """Keeps the weights of the best round after round `after`; the latest of equally good ones."""

    def __init__(self, model: nn.Module, clean: CleanSet, before: Accuracy, *, after: int) -> None:
        self._model, self._clean, self._before, self._after = model, clean, before, after
        self._best = -math.inf
        self._weights: list[Tensor] = []

    def look(self, finished: int) -> bool:
        """Evaluate the current weights after `finished` rounds; never ends the training."""
        if finished > self._after:
            now = worth(
                self._before, accuracy(self._model, self._clean.calibration, self._clean.classes)
            )
            if now >= self._best:
                # Buffers need no copy: batch-norm statistics stay as they are.
                self._best, self._weights = (
                    now,
                    [weight.detach().clone() for weight in self._model.parameters()],
                )
        return False

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the best weights, if any round was evaluated."""
        if self._weights:
            for weight, best in zip(self._model.parameters(), self._weights, strict=True):
                weight.copy_(best)
