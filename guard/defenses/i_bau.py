"""I-BAU: unlearn a universal perturbation by an implicit hypergradient.

Paper: Zeng, Chen, Park, Mao, Jin, Jia, "Adversarial Unlearning of Backdoors via Implicit
Hypergradient", ICLR 2022, arXiv 2110.03735: min over theta, max over a shared perturbation delta.
The second half of the gradient, (d delta / d theta)^T dH/d delta, comes from the fixed point delta
= Phi(delta, theta) of a step of ascent, by K terms of its Neumann series. Values of the reference
code are in brackets below. Deviations, and why:
    - the fixed point is that of the current batch; the reference code always uses that of the first
      batch, although delta is trained on all of them
    - inside Phi the labels are the model's own predictions, as they are while delta is learnt; the
      code mixes predictions and true labels
    - delta stays in a ball, as in the paper and in one notebook of the authors; in the scripts it
      is unbounded
    - the series ends when its terms grow: Phi is not a contraction there, and the published sum is
      noise
    - at least one image of a batch carries delta; in the code a batch under 100 has none
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import accuracy, device_of
from guard.ml.training.fit import require_accuracy, require_images

Loss = Callable[[Tensor], Tensor]  # of delta


@dataclass(frozen=True, kw_only=True)
class IBau(Defense):
    """Alternate between learning one perturbation for all images and unlearning it.

    Batch-norm statistics stay as they are.

    Args:
        rounds: number of alternations (5, with ten times as many images).
        batch: images a step (100).
        rate: Adam's for the weights (1e-3).
        delta_rate: SGD's for the perturbation (10), one pass a round from zero.
        penalty: weight of its squared norm (0.001).
        size: its largest root mean square over an image (L2 norm 10 on 3x32x32, which is 0.18).
        terms: K of the Neumann series (5).
        inner_rate: length of the ascent step in Phi (0.1).
        portion: share of a batch that carries the perturbation (0.01), at least one image.
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Zeng et al., I-BAU, ICLR 2022, arXiv 2110.03735"
    fast = fixed(rounds=1)
    ungated = fixed(rounds=1, batch=64, max_drop=1.0)

    rounds: int = 10
    batch: int = 50
    rate: float = 1e-3
    delta_rate: float = 10.0
    penalty: float = 0.001
    size: float = 0.18
    terms: int = 5
    inner_rate: float = 0.1
    portion: float = 0.01
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="I-BAU")
        before = accuracy(model, clean.calibration, clean.classes).overall
        weights: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        optimiser = torch.optim.Adam(weights, lr=self.rate)
        # The fused kernels of attention have no second derivative; the plain one does.
        with sdpa_kernel(SDPBackend.MATH):
            for turn in range(self.rounds):
                report = part(
                    progress,
                    turn / self.rounds,
                    (turn + 1) / self.rounds,
                    f"I-BAU, round {turn + 1} of {self.rounds},",
                )
                delta = self.perturbation(model, clean.search, part(report, 0.0, 0.2, "perturbing"))
                self._unlearn(
                    model,
                    clean.search,
                    delta,
                    weights,
                    optimiser,
                    part(report, 0.2, 1.0, "unlearning"),
                )
        require_accuracy(model, clean, before, drop=self.max_drop, method="I-BAU")
        return model

    def perturbation(self, model: nn.Module, data: Labelled, progress: Progress) -> Tensor:
        """One perturbation for all images, float 1,C,H,W of root mean square at most `size`."""
        device = device_of(model)
        delta = torch.zeros(1, *data.images.shape[1:], device=device)
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        for step, (images, _) in enumerate(
            data.batches(self.batch, generator=generator, device=device)
        ):
            (gradient,) = torch.autograd.grad(
                self.inner(model, images)(delta.requires_grad_()), delta
            )
            delta = delta.detach() - self.delta_rate * gradient
            delta = delta * (self.size / delta.square().mean().sqrt().clamp_min(1e-12)).clamp(max=1)
            progress(step * self.batch / len(data))
        return delta

    def inner(self, model: nn.Module, images: Tensor) -> Loss:
        """The loss of a perturbation on one batch, minimal where predictions change most.

        `images` are float N,C,H,W in [0, 1].
        """
        with torch.no_grad():
            predicted = model(images).argmax(1)

        def loss(delta: Tensor) -> Tensor:
            # Not the square of a norm, whose second derivative at zero is NaN.
            return self.penalty * delta.square().sum() - cross_entropy(
                model(images + delta), predicted
            )

        return loss

    def _unlearn(
        self,
        model: nn.Module,
        data: Labelled,
        delta: Tensor,
        weights: list[Tensor],
        optimiser: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        for step, (images, labels) in enumerate(
            data.batches(self.batch, generator=generator, device=delta.device)
        ):
            some = max(1, int(self.portion * len(images)))  # of a shuffled batch

            def outer(
                shift: Tensor, images: Tensor = images, labels: Tensor = labels, some: int = some
            ) -> Tensor:
                return cross_entropy(
                    model(torch.cat([images[:some] + shift, images[some:]])), labels
                )

            found = hypergradient(
                outer,
                self.inner(model, images),
                delta,
                weights,
                rate=self.inner_rate,
                terms=self.terms,
            )
            if not bool(
                torch.isfinite(torch.stack([gradient.abs().sum() for gradient in found]).sum())
            ):
                raise MethodFailed(
                    f"The gradient was not finite at step {step + 1}; the model is broken or the "
                    "rate "
                    "too high.",
                    code="non_finite",
                )
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient  # handed over, not copied
            optimiser.step()
            progress((step + 1) * self.batch / max(len(data), (step + 1) * self.batch))


def hypergradient(
    outer: Loss, inner: Loss, delta: Tensor, weights: Sequence[Tensor], *, rate: float, terms: int
) -> list[Tensor]:
    """The gradient of `outer` at the minimum of `inner`, by implicit differentiation.

    With Phi(d) = d - rate * inner'(d): v = sum over k < `terms` of ((dPhi/dd)^T)^k d outer / dd,
    and the result is d outer / d weights + (dPhi / d weights)^T v (paper, section 3). It is exact
    for infinitely many terms if Phi is a contraction; the series ends before a term that is no
    smaller than the one before it.

    Args:
        outer, inner: scalar losses of a perturbation, which depend on the weights.
        delta: the (approximate) minimum of `inner`, float 1,C,H,W.
        weights: leaf tensors with gradients; the result has a tensor of the same shape for each.
        rate: step length in Phi.
        terms: the largest number of terms.
    """
    delta = delta.detach().requires_grad_()
    pull, *direct = torch.autograd.grad(
        outer(delta), [delta, *weights], allow_unused=True, materialize_grads=True
    )
    (slope,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    if (
        slope.grad_fn is None
    ):  # piecewise linear, without curvature: delta does not depend on the weights
        return direct
    term, series = pull, pull if terms else torch.zeros_like(pull)
    for _ in range(terms - 1):
        (bent,) = torch.autograd.grad(
            slope, delta, term, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        before, term = term, term - rate * bent
        if not bool(term.norm() < before.norm()):
            break
        series = series + term
    indirect = torch.autograd.grad(
        slope, weights, -rate * series, allow_unused=True, materialize_grads=True
    )
    return [one + other for one, other in zip(direct, indirect, strict=True)]
