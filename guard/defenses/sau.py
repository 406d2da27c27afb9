"""SAU, shared adversarial unlearning: find what fools the model and its repaired copy alike, then disagree on it.

Paper: Wei, Zhang, Zha, Wu, "Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial
Examples", NeurIPS 2023, arXiv 2307.10562. Deviations:
    - clean predictions are computed once a batch, not in every inner step (same values, about half the work)
    - images whose shared adversarial example is found leave the inner loop (they had no gradient any more)
    - only the gradient to the perturbation is taken; the frozen reference collects none
    - `step` and `decay` are ours; the published step equals the radius
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.contracts import Progress
from guard.core.errors import MethodFailed
from guard.defenses._base import Defense
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.shared_adversarial import Ball, loss
from guard.ml.train import fit, require_accuracy, require_images


@dataclass(frozen=True, kw_only=True)
class Sau(Defense):
    """Unlearn shared adversarial examples; batch-norm statistics stay as they are.

    Args:
        rounds: passes over the search images (paper: 100 on CIFAR-10).
        batch: images a step (reference code: 256; smaller steps more often suit a CPU).
        rate: Adam's learning rate (reference code: 1e-4 at ten times as many images).
        decay: whether the rate rises at first and falls to zero at the end (one cycle); published: constant.
        norm: "linf" or "l2", the ball that perturbations live in.
        rho: its radius, in pixel values 0..1 (paper: 0.2, L-infinity).
        steps: inner steps; `step` their length in units of `rho`.
        lambda_clean, lambda_unlearn, lambda_adversarial, lambda_share: lambda 1 to 4 of the paper.
        min_per_class: search images that every class needs.
        max_drop: calibration accuracy (0..1) whose loss ends the repair.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Wei et al., Shared Adversarial Unlearning, NeurIPS 2023, arXiv 2307.10562"

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
    min_per_class: int = 5
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        if self.norm not in ("linf", "l2"):
            raise MethodFailed(f"SAU knows the norms linf and l2, not {self.norm!r}.", code="bad_parameters")
        require_images(clean, per_class=self.min_per_class, method="SAU")
        before = accuracy(model, clean.calibration, clean.classes).overall
        reference = copy.deepcopy(model).requires_grad_(requires_grad=False)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.rate, amsgrad=True)
        fit(model, clean.search, lambda images, labels: self.loss(model, reference, images, labels), optimiser,
            rounds=self.rounds, batch=self.batch, progress=progress, note="SAU,", decay=self.decay)
        require_accuracy(model, clean, before, drop=self.max_drop, method="SAU")
        return model

    def loss(self, model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """The outer objective on one batch: clean cross-entropy plus the shared adversarial risk."""
        logits = model(images)
        with torch.no_grad():
            believed = reference(images).argmax(1)
        shared = loss(model, reference, images, labels, logits.argmax(1), believed, self.ball)
        return self.lambda_clean * cross_entropy(logits, labels) + self.lambda_unlearn * shared

    @property
    def ball(self) -> Ball:
        """Where the inner search looks, and how."""
        return Ball(norm=self.norm, rho=self.rho, steps=self.steps, step=self.step, fool=self.lambda_adversarial,
                    agree=self.lambda_share)
