"""Neural Polarizer (NPD): a small trained layer in the frozen network that filters the trigger.

Paper: Zhu, Wei, Zha, Wu, "Neural Polarizer: A Lightweight and Effective Backdoor Defense via
Purifying Poisoned Features", NeurIPS 2023, arXiv 2306.16697; numbers of its reference code are in
brackets below. The layer is a module of the returned network (`guard.ml.networks.polarizer`), and
the manifest names its place. Deviations, and why:
    - its place is found for each architecture: before the last layer or block that is followed by
      at least two weighted layers and the head and that no path bypasses (published: a ResNet
      block's inner branch, which the shortcut bypasses)
    - it starts as the identity, so that no warm-up is needed; it has no batch norm, which once
      frozen is the same affine map
    - the bound of the perturbation is per pixel, so that it means the same at every image size
    - the clean pass that determines the runner-up class also serves for training and as the start
      of the search. The trunk runs once for each change of a batch, and its features serve the
      network with and without the polarizer and the training. Caching features from one pass over
      the images to the next would save nothing: the first step of the search needs the trunk's
      graph for the clean images, and that pass gives the features anyway
    - `conditional` follows CNPD (arXiv 2502.18520): the polarizer depends on the class that the
      network predicts without it, and images are driven to any other class instead of the
      runner-up, which is not always the attacker's
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guard.core.progress import Progress
from guard.defenses._base import Defense, fixed
from guard.defenses._polarizing import halved, inserted, place_for
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy
from guard.ml.networks.polarizer import Halves, polarizer_of
from guard.ml.training.fit import fit, require_accuracy, require_images

_SLACK = 1.0001  # in the logarithm of 1 - p, as published


class Shifted(NamedTuple):
    """A change of images, float N,C,H,W, and the polarizer's input for the changed images."""

    shift: Tensor
    features: Tensor

    @classmethod
    def of(cls, halves: Halves, images: Tensor, shift: Tensor, *, slope: bool = True) -> "Shifted":
        """Run the trunk on float images N,C,H,W in [0, 1] plus `shift`, clipped to [0, 1].

        The features are differentiable in `shift` unless `slope` is False.
        """
        shift = shift.detach().requires_grad_(slope)
        return cls(shift, halves.trunk((images + shift).clamp(0, 1)))


@dataclass(frozen=True, kw_only=True)
class NeuralPolarizer(Defense):
    """Train one affine layer to make predictions invariant to the perturbation; freeze the rest.

    Args:
        rounds: passes over the search images (50).
        batch: images a step (128).
        rate, momentum, decay: of SGD (0.01, 0.9, 5e-4).
        steps: of the perturbation (2), each of `step` (0.1) along the gradient's sign, in pixel
            values 0..1.
        rho: the largest root mean square of the perturbation over an image (L2 norm 3 on 3x32x32,
            which is 0.054).
        enough: share (0..1) of the batch whose success ends the steps (0.6).
        weight_clean, weight_consistent, weight_boosted, weight_target: lambda 1 to 4 (1, 0.4, 0.4,
            0.4).
        conditional: a row of the polarizer for each class; a prediction then takes two passes.
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "Zhu et al., Neural Polarizer, NeurIPS 2023, arXiv 2306.16697"
    fast = fixed(rounds=1, batch=60)
    ungated = fixed(rounds=1, max_drop=1.0)

    rounds: int = 50
    batch: int = 64
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4
    steps: int = 2
    step: float = 0.1
    rho: float = 0.054
    enough: float = 0.6
    weight_clean: float = 1.0
    weight_consistent: float = 0.4
    weight_boosted: float = 0.4
    weight_target: float = 0.4
    conditional: bool = False
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="Neural Polarizer")
        before = accuracy(model, clean.calibration, clean.classes).overall
        place = place_for(model, clean, conditional=self.conditional)
        model.requires_grad_(requires_grad=False)
        polarized = inserted(model, place, clean.classes)
        optimiser = torch.optim.SGD(
            polarizer_of(polarized).requires_grad_().parameters(),
            lr=self.rate,
            momentum=self.momentum,
            weight_decay=self.decay,
        )
        halves = halved(polarized, clean)
        fit(
            polarized,
            clean.search,
            lambda images, labels: self.loss(halves, images, labels),
            optimiser,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
            note="Neural Polarizer,",
        )
        require_accuracy(polarized, clean, before, drop=self.max_drop, method="Neural Polarizer")
        return polarized

    def loss(self, halves: Halves, images: Tensor, labels: Tensor) -> Tensor:
        """The scalar outer objective on one batch.

        Args:
            halves: the polarized network.
            images: float N,C,H,W in [0, 1].
            labels: int64 N.
        """
        clean = Shifted.of(halves, images, torch.zeros_like(images))
        logits = self._answers(halves, clean.features.detach())[-1]
        predicted = logits.detach().argmax(1)
        others = logits.detach().scatter(1, labels[:, None], -torch.inf)
        targets = _any_other(labels, logits.shape[1]) if self.conditional else others.argmax(1)
        found = self.perturb(halves, images, targets, clean)
        moved = self._answers(halves, found.features)[-1]
        wrong = moved.detach().scatter(1, labels[:, None], -torch.inf).argmax(1)
        return (
            self.weight_clean * cross_entropy(logits, labels)
            + self.weight_consistent * cross_entropy(moved, predicted)
            + self.weight_boosted * not_that(moved, wrong).mean()
            + self.weight_target * not_that(moved, targets).mean()
        )

    def perturb(self, halves: Halves, images: Tensor, targets: Tensor, start: Shifted) -> Shifted:
        """One perturbation per image, of root mean square at most `rho`, that leads to `targets`.

        The model is the polarized one, so that the polarizer is trained on perturbations that still
        work. A conditional one must also be fooled without its polarizer; otherwise the polarizer
        would be given another class than for an attacked image.

        Args:
            halves: the polarized network.
            images: float N,C,H,W in [0, 1].
            targets: the class of each image, int64 N.
            start: where the search begins; its graph is used up, and the result has none.
        """
        here = start
        for turn in range(self.steps):
            logits = self._answers(halves, here.features)
            if float((logits[-1].argmax(1) == targets).float().mean()) > self.enough:
                break
            objective = torch.stack(
                [cross_entropy(part, targets, reduction="sum") for part in logits]
            ).sum()
            (gradient,) = torch.autograd.grad(objective, here.shift)
            shift = here.shift.detach() - self.step * gradient.sign()
            size = shift.square().flatten(1).mean(1).sqrt().clamp_min(1e-12)[:, None, None, None]
            # The gradient of the last step is not needed.
            here = Shifted.of(
                halves, images, shift * (self.rho / size).clamp(max=1), slope=turn < self.steps - 1
            )
        return Shifted(here.shift.detach(), here.features.detach())

    def _answers(self, halves: Halves, features: Tensor) -> list[Tensor]:
        """Logits of the polarized model, for a conditional one after the bare network's."""
        if not self.conditional:
            return [halves.rest(features)]
        bare = halves.rest(features)
        return [bare, halves.rest(features, bare.detach().argmax(1))]


def not_that(logits: Tensor, wrong: Tensor) -> Tensor:
    """Loss -log(1 - p_wrong), float N, of logits N,K and classes int64 N; bounded as published."""
    return -(_SLACK - logits.softmax(1).gather(1, wrong[:, None])[:, 0]).log()


def _any_other(labels: Tensor, classes: int) -> Tensor:
    """A class other than each label, drawn from torch's global CPU generator."""
    return (labels + torch.randint(1, classes, labels.shape).to(labels)) % classes
