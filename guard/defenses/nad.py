"""NAD, neural attention distillation: align a model's attention with that of a fine-tuned copy.

Paper: Li, Lyu, Koren, Lyu, Li, Ma, "Neural Attention Distillation", ICLR 2021, arXiv 2101.05930.
The student is the original model, trained on cross-entropy + sum over layers of beta *
MSE(A(student), A(teacher)); A sums |F|^p over channels and is normalised to length one for each
image. Values of the reference code are in brackets below. Deviations:
    - layers are found by experiment: the last three points that all information passes through,
      each at another resolution (or, for transformers, at thirds of the depth); never one with a
      single position, whose map is constant
    - the rate is the largest at which the teacher keeps its clean accuracy, halved from the
      published one as in our plain fine-tuning; a fixed rate ruins some models and hardly changes
      others
    - one forward pass of the student a step serves all layers
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part
from guard.defenses._base import Defense, fixed
from guard.ml.cleanset import CleanSet
from guard.ml.measure import accuracy, device_of
from guard.ml.networks.cut_points import Waypoint, waypoints
from guard.ml.training.fit import Objective, require_accuracy, require_images, tune

LAYERS = 3
PROBES = 4


@dataclass(frozen=True, kw_only=True)
class Nad(Defense):
    """Fine-tune a teacher, then train the student towards its attention.

    Batch-norm statistics are updated.

    Args:
        rounds: passes over the search images for each of the two (20).
        batch: images a step (64).
        rate: of SGD with momentum 0.9, one cycle (0.1); halved in each of `tries` until the teacher
            loses at most `max_loss` of its calibration accuracy (0..1; one image may always be
            lost), otherwise the rate that keeps most accuracy.
        decay: weight decay (1e-4).
        power: p of the attention map (2).
        beta_low, beta_middle, beta_high: weights of the three layers (500, 1000, 1000); with fewer
            layers the last weights.
        min_per_class: search images that every class needs.
        max_drop: the repair fails if it loses more calibration accuracy (0..1) than this.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = "Li et al., Neural Attention Distillation, ICLR 2021, arXiv 2101.05930"
    fast = fixed(rounds=1, rate=1e-3)
    ungated = fixed(rounds=1, tries=1, max_loss=1.0, max_drop=1.0)

    rounds: int = 20
    batch: int = 64
    rate: float = 0.1
    tries: int = 8
    max_loss: float = 0.01
    decay: float = 1e-4
    power: float = 2.0
    beta_low: float = 500.0
    beta_middle: float = 1000.0
    beta_high: float = 1000.0
    min_per_class: int = 2
    max_drop: float = 0.1

    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        require_images(clean, per_class=self.min_per_class, method="NAD")
        before = accuracy(model, clean.calibration, clean.classes).overall
        points = layers(model, clean.search.pick(torch.arange(PROBES)).floats(device_of(model)))
        betas = (self.beta_low, self.beta_middle, self.beta_high)[-len(points) :]
        teacher, rate = self._teacher(model, clean, before, part(progress, 0.0, 0.5, "teacher,"))
        teacher.requires_grad_(requires_grad=False)

        def objective(images: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                theirs = self.maps(teacher, points, images)[1]
            logits, mine = self.maps(model, points, images)
            apart = [
                beta * mse_loss(one, other)
                for beta, one, other in zip(betas, mine, theirs, strict=True)
            ]
            return cross_entropy(logits, labels) + torch.stack(apart).sum()

        self._tune(model, clean, objective, rate, part(progress, 0.5, 1.0, "student,"))
        require_accuracy(model, clean, before, drop=self.max_drop, method="NAD")
        return model

    def maps(
        self, model: nn.Module, points: list[Waypoint], images: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits N,K of float images N,C,H,W in [0, 1], and the attention map N,P per point."""
        with watching(model, [point.name for point in points]) as seen:
            logits = model(images)
        return logits, [attention(seen[point.name], self.power, point.axis) for point in points]

    def _teacher(
        self, model: nn.Module, clean: CleanSet, before: float, progress: Progress
    ) -> tuple[nn.Module, float]:
        """A copy fine-tuned at the largest rate that keeps its accuracy, and that rate.

        With a few hundred images there may be no such rate; then it is the one that keeps most
        accuracy, if it loses no more than `max_drop`.
        """
        allowed, best = max(self.max_loss, 1 / len(clean.calibration)), -math.inf
        kept: tuple[nn.Module, float] | None = None
        for attempt in range(self.tries):
            rate, teacher = self.rate / 2**attempt, copy.deepcopy(model)
            report = part(
                progress, attempt / self.tries, (attempt + 1) / self.tries, f"at rate {rate:g},"
            )
            try:
                self._tune(teacher, clean, _plain(teacher), rate, report)
                now = accuracy(teacher, clean.calibration, clean.classes).overall
            except MethodFailed as error:
                if error.code != "non_finite":
                    raise
                continue  # it diverged: the rate is too large; the next one is smaller
            if now >= before - allowed:
                return teacher, rate
            if now > best:
                best, kept = now, (teacher, rate)
        if kept is not None and best >= before - self.max_drop:
            return kept
        raise MethodFailed(
            f"NAD's teacher lost over {self.max_drop:.1%} of accuracy on the calibration images at "
            f"every rate from {self.rate:g} down; add images to the clean set.",
            code="accuracy_collapsed",
        )

    def _tune(
        self,
        model: nn.Module,
        clean: CleanSet,
        objective: Objective,
        rate: float,
        progress: Progress,
    ) -> None:
        tune(
            model,
            clean.search,
            objective,
            rate=rate,
            weight_decay=self.decay,
            rounds=self.rounds,
            batch=self.batch,
            progress=progress,
        )


def layers(model: nn.Module, images: Tensor) -> list[Waypoint]:
    """At most three points whose features are compared, from the first to the last.

    Args:
        model: in eval mode.
        images: float N,C,H,W in [0, 1] on the model's device.

    Raises:
        MethodFailed: `no_layers`: the network has no feature map that all information passes
            through.
    """
    found = [
        point for point in waypoints(model, model, images, exits=True) if math.prod(point.sides) > 1
    ][::-1]
    if not found:
        raise MethodFailed(
            "NAD finds no feature map that all information in the network passes through; this "
            "architecture has no attention to compare.",
            code="no_layers",
        )
    # Of points with no layer between them take the outermost: the end of a stage, not the norm that
    # begins the next one.
    groups: dict[tuple[int, tuple[int, ...]], list[Waypoint]] = {}
    for point in found:
        groups.setdefault((point.layers_after, point.sides), []).append(point)
    points = [
        min(reversed(group), key=lambda point: point.name.count(".")) for group in groups.values()
    ]
    tokens = len(points[-1].shape) == 3
    ends = [one for one, after in pairwise(points) if one.sides != after.sides] + points[-1:]
    if len(ends) > 1 and not tokens:
        return ends[-LAYERS:]
    alike = [point for point in points if point.shape == points[-1].shape]
    return (
        [alike[len(alike) * third // LAYERS - 1] for third in (1, 2, 3)]
        if len(alike) >= LAYERS
        else alike
    )


def attention(features: Tensor, power: float, axis: int = 1) -> Tensor:
    """The attention map N,P over P positions, of length one for each image (paper, section 3.2).

    Args:
        features: float, with N first and channels along `axis`.
        power: p.
        axis: the dimension of the channels.
    """
    return normalize(features.abs().pow(power).sum(axis).flatten(1), dim=1)


@contextmanager
def watching(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named modules in the latest pass inside the block, of any shape."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _plain(model: nn.Module) -> Objective:
    return lambda images, labels: cross_entropy(model(images), labels)
