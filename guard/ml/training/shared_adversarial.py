"""Shared adversarial examples: a changed picture on which two networks err alike.

Source: Wei et al., "Shared Adversarial Unlearning", NeurIPS 2023, arXiv 2307.10562: what is left of
a network's backdoor in its repaired copy is bounded by how often both can be led to the same wrong
class. The search here finds only some of these examples, so that a measured risk lies below the
true one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, nll_loss

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of, evaluating
from guard.ml.triggers.warp import each_warped

_TINY = 1e-8  # what a probability is clamped to before its logarithm
_MOST = (
    0.999  # the unlearning loss has no gradient where less than 0.1 % is left on the wrong class
)


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """How pictures may be changed, and how such a change is sought.

    Args:
        steps: of the search; `step` their length in units of the radius.
        fool, agree: weights of the two aims, to err and to err alike (lambda 3 and 4 of the paper).
    """

    steps: int = 5
    step: float = 1.0
    fool: float = 0.01
    agree: float = 1.0

    @abstractmethod
    def start(self, images: Tensor) -> Tensor:
        """Where the search begins, a change for each of the images N,C,H,W."""

    @abstractmethod
    def worn(self, images: Tensor, change: Tensor) -> Tensor:
        """The images, each under its own change; differentiable in `change`."""

    @abstractmethod
    def moved(self, change: Tensor, gradient: Tensor) -> Tensor:
        """One step down the gradient, and back to what is allowed."""

    def find(
        self,
        model: nn.Module,
        reference: nn.Module,
        images: Tensor,
        labels: Tensor,
        mine: Tensor,
        theirs: Tensor,
    ) -> Tensor:
        """One change an image, for `worn`, on which both models err alike where that was found.

        Args:
            mine: what `model` says of the clean images; `theirs` what `reference` says. Success is
                counted against these, not against the labels.
        """
        change = self.start(images)
        active = torch.arange(len(images), device=images.device)
        for _ in range(self.steps):
            eps = change[active].requires_grad_()
            inputs, truth = self.worn(images[active], eps), labels[active]
            log_p, log_q = log_softmax(model(inputs), 1), log_softmax(reference(inputs), 1)
            moved, moved_ref = log_p.argmax(1) != mine[active], log_q.argmax(1) != theirs[active]
            shared = moved & moved_ref & (log_p.argmax(1) == log_q.argmax(1))
            if bool(shared.all()):
                break
            fool = (
                nll_loss(log_p, truth, reduction="none") * ~moved
                + nll_loss(log_q, truth, reduction="none") * ~moved_ref
            ).sum() / -2
            agree = (jensen_shannon(log_p, log_q) * ~shared).sum()
            (gradient,) = torch.autograd.grad(
                (self.fool * fool + self.agree * agree) / len(images), eps
            )
            # A found example is kept; the others go on.
            change[active[~shared]] = self.moved(eps.detach(), gradient)[~shared]
            active = active[~shared]
        return change


@dataclass(frozen=True, kw_only=True)
class Ball(Search):
    """What is added to the pixels, N,C,H,W.

    `norm` "linf" or "l2", `rho` its radius, in pixel values 0..1.
    """

    norm: str = "linf"
    rho: float = 0.2

    def start(self, images: Tensor) -> Tensor:
        return project(torch.full_like(images, self.rho), self.norm, self.rho)

    def worn(self, images: Tensor, change: Tensor) -> Tensor:
        return images + change

    def moved(self, change: Tensor, gradient: Tensor) -> Tensor:
        return project(
            change - self.step * self.rho * direction(gradient, self.norm), self.norm, self.rho
        )


@dataclass(frozen=True, kw_only=True)
class Bend(Search):
    """How a picture is bent, N,2,k,k in -1..1.

    Shifts at k x k points, 1 is `bend` of the picture's longer side.

    Own addition to the paper, which perturbs pixels alone. The flow is that of
    `guard.ml.triggers.warp`; the search begins at random (torch's global CPU generator).
    """

    step: float = 0.5
    bend: float = 0.07
    points: int = 5

    def start(self, images: Tensor) -> Tensor:
        return (torch.rand(len(images), 2, self.points, self.points) * 2 - 1).to(images)

    def worn(self, images: Tensor, change: Tensor) -> Tensor:
        return each_warped(images, change * (self.bend * max(images.shape[-2:])))

    def moved(self, change: Tensor, gradient: Tensor) -> Tensor:
        return (change - self.step * gradient.sign()).clamp(-1, 1)


def loss(
    model: nn.Module,
    reference: nn.Module,
    images: Tensor,
    labels: Tensor,
    mine: Tensor,
    theirs: Tensor,
    search: Search,
) -> Tensor:
    """What `model` is to descend in order not to err where `reference` errs, on one batch.

    A scalar.

    Args:
        mine, theirs: what the two say of the clean images.
    """
    shifted = search.worn(images, search.find(model, reference, images, labels, mine, theirs))
    with torch.no_grad():
        wrong = reference(shifted).argmax(1)
    # Divided by the whole batch, not by the number of suspects: few suspects weigh little (dossier,
    # pitfall 4).
    return (unlearning(model(shifted), wrong) * suspects(wrong, labels, theirs)).sum() / len(labels)


def suspects(wrong: Tensor, labels: Tensor, believed: Tensor) -> Tensor:
    """Images on which the reference errs because of the perturbation.

    Neither the label nor its own clean word.
    """
    return (wrong != labels) & (wrong != believed)


def unlearning(logits: Tensor, wrong: Tensor) -> Tensor:
    """-log(1 - p_wrong), as the mean of its two equal forms, clamped as in the paper's code.

    N values.
    """
    p = logits.softmax(1)
    own = p.gather(1, wrong[:, None])[:, 0]
    others = p.scatter(1, wrong[:, None], 0.0).sum(1)
    return (
        -((1e-6 + others.clamp(max=_MOST)).log() + (1 + 1e-6 - own.clamp(min=1 - _MOST)).log()) / 2
    )


def risk(
    model: nn.Module, reference: nn.Module, data: Labelled, search: Search, batch: int = 64
) -> float:
    """Share (0..1) of pictures with a change on which `search` makes both err alike.

    Against their own clean words.

    Raises:
        MethodFailed: no pictures, or a logit is not finite.
    """
    if not len(data):
        raise MethodFailed("A risk needs at least one picture.", code="too_few_images")
    device, hits = device_of(model), 0
    with evaluating(model), evaluating(reference):
        for images, labels in data.batches(batch, device=device):
            with torch.no_grad():
                mine, theirs = _said(model, images), _said(reference, images)
            shifted = search.worn(
                images, search.find(model, reference, images, labels, mine, theirs)
            )
            with torch.no_grad():
                one, other = _said(model, shifted), _said(reference, shifted)
            hits += int(((one == other) & (one != mine) & (other != theirs)).sum())
    return hits / len(data)


def _said(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    if not bool(torch.isfinite(logits).all()):
        raise MethodFailed(
            "The model gives logits that are not finite; it cannot be measured.", code="non_finite"
        )
    return logits.argmax(1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two batches of log probabilities, N values in 0..log 2."""
    p, q = log_p.exp().clamp_min(_TINY), log_q.exp().clamp_min(_TINY)
    middle = ((p + q) / 2).log()
    return (p * (p.log() - middle)).sum(1) / 2 + (q * (q.log() - middle)).sum(1) / 2


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest direction of unit length in the norm's ball."""
    return gradient.sign() if norm == "linf" else gradient / _length(gradient)


def project(shift: Tensor, norm: str, rho: float) -> Tensor:
    """The nearest point in the ball of radius `rho`."""
    return shift.clamp(-rho, rho) if norm == "linf" else shift * (rho / _length(shift)).clamp(max=1)


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
