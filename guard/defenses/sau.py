"""SAU, shared adversarial unlearning: find what fools the model and its repaired copy alike, then disagree on it.

Paper: Wei, Zhang, Zha, Wu, "Shared Adversarial Unlearning", NeurIPS 2023, arXiv 2307.10562.
"""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guard.core.contracts import Progress
from guard.core.errors import MethodFailed
from guard.defenses._base import Defense
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.train import fit, require_accuracy, require_images

_TINY = 1e-8


@dataclass(frozen=True, kw_only=True)
class Sau(Defense):
    """
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Wei et al., Shared Adversarial Unlearning, NeurIPS 2023, arXiv 2307.10562"

    rounds: int = 100
    batch: int = 256
    rate: float = 1e-4
    decay: bool = False
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
        require_images(clean, per_class=self.min_per_class, method="SAU")
        before = accuracy(model, clean.calibration, clean.classes).overall
        reference = copy.deepcopy(model).requires_grad_(requires_grad=False)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.rate, amsgrad=True)
        fit(model, clean.search, lambda images, labels: self.loss(model, reference, images, labels), optimiser,
            rounds=self.rounds, batch=self.batch, progress=progress, note="SAU", decay=self.decay)
        require_accuracy(model, clean, before, drop=self.max_drop, method="SAU")
        return model

    def loss(self, model, reference, images, labels):
        logits = model(images)
        with torch.no_grad():
            believed = reference(images).argmax(1)
        shifted = images + self.perturb(model, reference, images, labels, logits.argmax(1), believed)
        with torch.no_grad():
            wrong = reference(shifted).argmax(1)
        suspicious = suspects(wrong, labels, believed)
        unlearn = (unlearning(model(shifted), wrong) * suspicious).sum() / len(labels)
        return self.lambda_clean * F.cross_entropy(logits, labels) + self.lambda_unlearn * unlearn

    def perturb(self, model, reference, images, labels, mine, theirs):
        shift = project(torch.full_like(images, self.rho), self.norm, self.rho)
        active = torch.arange(len(images), device=images.device)
        for _ in range(self.steps):
            eps = shift[active].requires_grad_()
            inputs, truth = images[active] + eps, labels[active]
            log_p, log_q = F.log_softmax(model(inputs), 1), F.log_softmax(reference(inputs), 1)
            moved, moved_ref = log_p.argmax(1) != mine[active], log_q.argmax(1) != theirs[active]
            shared = moved & moved_ref & (log_p.argmax(1) == log_q.argmax(1))
            fool = (F.nll_loss(log_p, truth, reduction="none") * ~moved
                    + F.nll_loss(log_q, truth, reduction="none") * ~moved_ref).sum() / -2
            agree = (jensen_shannon(log_p, log_q) * ~shared).sum()
            objective = (self.lambda_adversarial * fool + self.lambda_share * agree) / len(images)
            if bool(shared.all()):
                break
            (gradient,) = torch.autograd.grad(objective, eps)
            eps = eps.detach() - self.step * self.rho * direction(gradient, self.norm)
            shift[active] = project(eps, self.norm, self.rho)
            active = active[~shared]
        return shift


def jensen_shannon(log_p, log_q):
    p, q = log_p.exp().clamp_min(_TINY), log_q.exp().clamp_min(_TINY)
    middle = ((p + q) / 2).log()
    return (p * (p.log() - middle)).sum(1) / 2 + (q * (q.log() - middle)).sum(1) / 2


def suspects(wrong, labels, believed):
    return (wrong != labels) & (wrong != believed)


def unlearning(logits, wrong):
    p = logits.softmax(1)
    own = p.gather(1, wrong[:, None])[:, 0]
    others = p.scatter(1, wrong[:, None], 0.0).sum(1)
    return -((1e-6 + others.clamp(max=0.999)).log() + (1 + 1e-6 - own.clamp(min=0.001)).log()) / 2


def direction(gradient, norm):
    if norm == "linf":
        return gradient.sign()
    return gradient / _length(gradient)


def project(shift, norm, rho):
    if norm == "linf":
        return shift.clamp(-rho, rho)
    return shift * (rho / _length(shift)).clamp(max=1)


def _length(x):
    return x.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
