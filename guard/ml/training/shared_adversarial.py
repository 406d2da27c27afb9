"""Shared adversarial examples: changed images that two networks misclassify alike.

Source: Wei et al., "Shared Adversarial Unlearning", NeurIPS 2023, arXiv 2307.10562: what is left of
a network's backdoor in its repaired copy is bounded by how often both can be led to the same wrong
class. The search here finds only some of these examples, so a measured risk lies below the true
one.
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

_TINY = 1e-8  # lower bound of a probability before its logarithm is taken
_MOST = (
    0.999  # the unlearning loss has no gradient where less than 0.1 % is left on the wrong class
)


@dataclass(frozen=True, kw_only=True)
class AdversarialSearch(ABC):
    """The permitted changes of an image, and the search for one that fools two models.

    Args:
        steps: number of gradient steps.
        step: their length in units of the radius.
        fool, agree: weights of the two aims, that both models are wrong and that they are wrong
            alike (lambda 3 and 4 of the paper).
    """

    steps: int = 5
    step: float = 1.0
    fool: float = 0.01
    agree: float = 1.0

    @abstractmethod
    def start(self, images: Tensor) -> Tensor:
        """The change that the search starts from, for each of the float images N,C,H,W."""

    @abstractmethod
    def worn(self, images: Tensor, change: Tensor) -> Tensor:
        """The images, float N,C,H,W, each under its own change; differentiable in `change`."""

    @abstractmethod
    def moved(self, change: Tensor, gradient: Tensor) -> Tensor:
        """One step down the gradient, projected to the permitted changes; shape as `change`."""

    def find(
        self,
        model: nn.Module,
        reference: nn.Module,
        images: Tensor,
        labels: Tensor,
        mine: Tensor,
        theirs: Tensor,
    ) -> Tensor:
        """One change per image, for `worn`, that makes both models wrong alike if one is found.

        Args:
            model, reference: the two models, which return logits N,K.
            images: float N,C,H,W in [0, 1].
            labels: int64 N.
            mine, theirs: predictions of `model` and of `reference` on the clean images, int64 N.
                Success is counted against these, not against the labels.
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
            # An example that was found is kept; the search goes on for the others.
            change[active[~shared]] = self.moved(eps.detach(), gradient)[~shared]
            active = active[~shared]
        return change


@dataclass(frozen=True, kw_only=True)
class Ball(AdversarialSearch):
    """A change that is added to the pixels, float N,C,H,W.

    `norm` is "linf" or "l2", `rho` the radius in pixel values 0..1.
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
class Bend(AdversarialSearch):
    """A change that warps the image, float N,2,k,k in -1..1.

    These are shifts at k x k points, in units of `bend` times the image's longer side. This is our
    addition to the paper, which perturbs pixels only. The flow is that of
    `guard.ml.triggers.warp`; the search starts at random (torch's global CPU generator).
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
    search: AdversarialSearch,
) -> Tensor:
    """The scalar loss of one batch that stops `model` from being wrong where `reference` is.

    Args:
        model: the model that is repaired.
        reference: the model before the repair.
        images: float N,C,H,W in [0, 1].
        labels: int64 N.
        mine, theirs: predictions of the two models on the clean images, int64 N.
        search: finds the shared adversarial examples.
    """
    shifted = search.worn(images, search.find(model, reference, images, labels, mine, theirs))
    with torch.no_grad():
        wrong = reference(shifted).argmax(1)
    # Divided by the whole batch, not by the number of suspects, as in the paper's code: few
    # suspects weigh little.
    return (unlearning(model(shifted), wrong) * suspects(wrong, labels, theirs)).sum() / len(labels)


def suspects(wrong: Tensor, labels: Tensor, believed: Tensor) -> Tensor:
    """Mask (bool N) of the images on which the perturbation makes the reference wrong.

    Args:
        wrong: its predictions under the perturbation, int64 N.
        labels: int64 N.
        believed: its predictions on the clean images, int64 N.
    """
    return (wrong != labels) & (wrong != believed)


def unlearning(logits: Tensor, wrong: Tensor) -> Tensor:
    """Loss -log(1 - p_wrong), as the mean of its two equal forms, clamped as in the paper's code.

    Args:
        logits: float N,K.
        wrong: the class to unlearn for each image, int64 N.

    Returns:
        One loss for each image, float N.
    """
    p = logits.softmax(1)
    own = p.gather(1, wrong[:, None])[:, 0]
    others = p.scatter(1, wrong[:, None], 0.0).sum(1)
    return (
        -((1e-6 + others.clamp(max=_MOST)).log() + (1 + 1e-6 - own.clamp(min=1 - _MOST)).log()) / 2
    )


def risk(
    model: nn.Module,
    reference: nn.Module,
    data: Labelled,
    search: AdversarialSearch,
    batch: int = 64,
) -> float:
    """The share (0..1) of images for which `search` changes both predictions to the same class.

    Raises:
        MethodFailed: there are no images, or a logit is not finite.
    """
    if not len(data):
        raise MethodFailed("A risk needs at least one image.", code="too_few_images")
    device, hits = device_of(model), 0
    with evaluating(model), evaluating(reference):
        for images, labels in data.batches(batch, device=device):
            with torch.no_grad():
                mine, theirs = _predicted(model, images), _predicted(reference, images)
            shifted = search.worn(
                images, search.find(model, reference, images, labels, mine, theirs)
            )
            with torch.no_grad():
                one, other = _predicted(model, shifted), _predicted(reference, shifted)
            hits += int(((one == other) & (one != mine) & (other != theirs)).sum())
    return hits / len(data)


def _predicted(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    if not bool(torch.isfinite(logits).all()):
        raise MethodFailed(
            "The model gives logits that are not finite; it cannot be measured.", code="non_finite"
        )
    return logits.argmax(1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two batches of log probabilities N,K; float N in 0..log 2."""
    p, q = log_p.exp().clamp_min(_TINY), log_q.exp().clamp_min(_TINY)
    middle = ((p + q) / 2).log()
    return (p * (p.log() - middle)).sum(1) / 2 + (q * (q.log() - middle)).sum(1) / 2


def direction(gradient: Tensor, norm: str) -> Tensor:
    """The steepest direction of unit length in `norm`, of a float gradient N,C,H,W."""
    return gradient.sign() if norm == "linf" else gradient / _length(gradient)


def project(shift: Tensor, norm: str, rho: float) -> Tensor:
    """The nearest point in the ball of radius `rho`, for each of the float shifts N,C,H,W."""
    return shift.clamp(-rho, rho) if norm == "linf" else shift * (rho / _length(shift)).clamp(max=1)


def _length(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
