"""Margins.

Is there a class that pictures can be driven into far deeper than that class's own features explain?

Steps:
    1. refuse what cannot be judged; find the head and each class's own direction among the features
       it sees
    2. for all classes and starts at once, pictures of the greatest margin, once as the model is and
       once with the features' component along the class's own direction taken away
    3. compare the classes: an outlier among what is left, for how near clean pictures of other
       classes come to it, is suspicious
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.progress import Progress, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.class_margins import depth, nearness
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import BATCH, device_of
from guard.ml.networks.dataflow import Layer, flow_of, with_features
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, half_at_log
from guard.ml.statistics import LEAST_FOR_LINE, Apart, ClassTest, apart, low_outliers
from guard.ml.suitability import channels_last, check_suitable

LEAST_SPREAD = 0.15  # of clean margins: two searches of one class differ by about as much
SHALLOW = 0.3  # clean margins; added before the logarithm, since honest classes are at about zero
LEAST_LOG_SPREAD = 0.3
LEAST_MARGIN = 0.1  # of clean margins; below it, margins count as this on a log scale
PASS_IMAGES = {"cpu": 128, "cuda": 1024}
SHOWN = 20  # findings, where there are more classes
BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class _Ground:
    """What clean pictures say: `scale` is their mean margin in logits.

    Per class its direction, K,D of length one.

    `near` says of each class how near clean pictures of other classes come to it
    (`guard.ml.class_margins`).
    """

    scale: float
    near: list[float]
    head: Layer | None
    centre: Tensor
    directions: Tensor


@dataclass(frozen=True, kw_only=True)
class Margin(Detector):
    """MM-BD with all classes in one batch and without what the class's own features explain.

    Source: Wang et al., S&P 2024. Deviations: Adam in place of gradient ascent, pictures of other
    classes among the starts, a t test that leaves the class out (generalised ESD) in place of a
    gamma fit to K - 1 values, and the class-intrinsic correction after CSO (arXiv 2512.08129): not
    as a penalty, but the part of the head's input that lies along the class's clean mean direction
    is taken away before the head. A penalty did not help: on MNIST the digit 8 has several times
    its siblings' margin in honest models, all of it along its own direction.

    Some classes are easily mistaken for others (shirt, coat, pullover), and reach deeper in honest
    models too. So a class is compared with a line through its siblings over how near clean pictures
    come to each (`near`): without it, p was too small on honest models. So it was for margins
    themselves, which have a long tail: p is of their logs, 0.3 added. Line, quantile and scale were
    chosen on models that later examinations do not use.

    `excess` is how much deeper the corrected margin is than that line lets expect, in clean
    pictures' mean margins; `p_class` is the p value of this class alone, `p_value` corrected for
    all classes. `p_plain` speaks of margins without correction, on a log scale. Where no head was
    found (`corrected` 0) only those are there, and nothing is suspicious by them. Suspicious: p <=
    `alpha` and excess >= `excess`.

    Args:
        starts: pictures a class for up to ten classes, half noise, half clean pictures of other
            classes; fewer for more classes, at least 2.
        steps, rate: of Adam; the rate falls to zero linearly.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "Wang et al., MM-BD, IEEE S&P 2024"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})

    starts: int = 8
    steps: int = 50
    rate: float = 0.1
    alpha: float = 0.001
    excess: float = 1.0

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "The margin detector")
        progress(0.02, "looking at clean pictures")
        if device_of(model).type == "cpu":
            channels_last(model)
        with repeatable():
            ground = _ground(model, clean)
            starts = max(2, min(self.starts, self.starts * 10 // clean.classes))
            pictures = _starts(clean.search, clean.classes, starts).to(device_of(model))
            watch = span(progress, 0.05, 0.5, "margins")
            depths = plain = self._deepest(model, pictures, starts, ground, watch, corrected=False)
            if ground.head is not None:
                watch = span(progress, 0.5, 1.0, "margins beyond the class's own features")
                depths = self._deepest(model, pictures, starts, ground, watch, corrected=True)
        most = max(1, clean.classes // 4)
        logs = low_outliers(
            plain.clamp(min=LEAST_MARGIN).log().tolist(),
            alpha=self.alpha,
            most=most,
            low_side=False,
        )
        explained = ground.near if clean.classes >= LEAST_FOR_LINE else None
        # Margins have a long tail; their logs have none
        deep = (depths.clamp(min=0) + SHALLOW).log().tolist()
        tests = apart(deep, explained=explained, low_side=False, floor=LEAST_LOG_SPREAD)
        gaps = [
            test.gap
            for test in apart(
                depths.tolist(), explained=explained, low_side=False, floor=LEAST_SPREAD
            )
        ]
        ranks = [
            logs[row].p if ground.head is None else tests[row].p for row in range(clean.classes)
        ]
        rows = (
            sorted(range(clean.classes), key=lambda row: ranks[row])[:SHOWN]
            if clean.classes > SHOWN
            else range(clean.classes)
        )
        progress(1.0, "done")
        return [
            self._finding(
                row, float(depths[row]), float(plain[row]), tests[row], gaps[row], logs[row], ground
            )
            for row in rows
        ]

    def _deepest(
        self,
        model: nn.Module,
        pictures: Tensor,
        starts: int,
        ground: _Ground,
        watch: Callable[[float], None],
        *,
        corrected: bool,
    ) -> Tensor:
        """Each class's greatest margin over its starts, float64 K on the CPU.

        In clean pictures' mean margins.
        """
        size = max(1, PASS_IMAGES.get(pictures.device.type, 256) // starts) * starts
        parts = pictures.split(size)
        found = []
        for turn, part in enumerate(parts):
            first = turn * size // starts
            targets = torch.arange(
                first, first + len(part) // starts, device=part.device
            ).repeat_interleave(starts)
            ahead = turn / len(parts)
            margins = self._climb(
                model,
                part,
                targets,
                ground if corrected else None,
                partial(_ahead, watch, ahead, len(parts)),
            )
            found.append(margins.view(-1, starts).amax(1))
        deepest = torch.cat(found).double().cpu() / ground.scale
        if not bool(torch.isfinite(deepest).all()):
            raise MethodFailed(
                "The model gives logits that are not finite; no margin can be measured.",
                code="non_finite",
            )
        return deepest

    def _climb(
        self,
        model: nn.Module,
        pictures: Tensor,
        targets: Tensor,
        ground: _Ground | None,
        watch: Callable[[float], None],
    ) -> Tensor:
        """Adam on the pictures, in [0, 1]; the margins reached, N."""
        first, second = torch.zeros_like(pictures), torch.zeros_like(pictures)
        for step in range(self.steps):
            with torch.enable_grad():
                pictures = pictures.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(
                    _margins(model, pictures, targets, ground).sum(), pictures
                )
            first = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
            move = (
                first
                / (1 - BETAS[0] ** (step + 1))
                / ((second / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8)
            )
            pictures = (pictures.detach() + self.rate * (1 - step / self.steps) * move).clamp(0, 1)
            watch((step + 1) / (self.steps + 1))
        with torch.no_grad():
            return _margins(model, pictures, targets, ground)

    def _finding(
        self,
        row: int,
        depth: float,
        plain: float,
        test: Apart,
        gap: float,
        log_test: ClassTest,
        ground: _Ground,
    ) -> Finding:
        corrected = ground.head is not None
        excess = gap if corrected else 0.0
        p = min(1.0, len(ground.near) * test.p) if corrected else log_test.p
        numbers = {
            "p_value": p,
            "excess": excess,
            "margin": depth * ground.scale,
            "margin_plain": plain * ground.scale,
            "p_plain": log_test.p,
            "clean_margin": ground.scale,
            "near": ground.near[row],
            "corrected": float(corrected),
        }
        if corrected:
            numbers |= {"t_stat": test.t, "p_class": test.p, "classes": float(len(ground.near))}
        score = min(
            half_at_log(p, self.alpha, self.alpha**2), half_at(excess, self.excess, 2 * self.excess)
        )
        suspicious = corrected and score >= 0.5
        return Finding(
            family=str(Family.ALL_TO_ONE),
            target=row,
            suspicious=suspicious,
            score=score if corrected else min(score, 0.49),
            numbers=numbers,
            statement=_statement(row, numbers, suspicious=suspicious),
        )


def _ahead(watch: Callable[[float], None], before: float, parts: int, done: float) -> None:
    watch(before + done / parts)


def _ground(model: nn.Module, clean: CleanSet) -> _Ground:
    device = device_of(model)
    with torch.no_grad():
        flow = flow_of(model, clean.search.pick(torch.arange(2)).floats(device))
        head = None if flow.head is None else flow.layers[flow.head]
        logits, features = [], []
        for images, _ in clean.search.batches(BATCH, device=device):
            given, seen = (
                (model(images), images.flatten(1)[:, :1])
                if head is None
                else with_features(model, head, images)
            )
            logits.append(given)
            features.append(seen)
        labels = clean.search.labels.to(device)
        scale, near = nearness(torch.cat(logits), labels, clean.classes)
        seen = torch.cat(features)
        means = torch.stack([seen[labels == row].mean(0) for row in range(clean.classes)])
        centre = means.mean(0)
    return _Ground(scale, near, head, centre, functional.normalize(means - centre, dim=1))


def _starts(search: Labelled, classes: int, starts: int) -> Tensor:
    """K * starts pictures, class by class: noise first, then clean pictures of other classes."""
    noise, pictures = starts - starts // 2, []
    for row in range(classes):
        others = torch.nonzero(search.labels != row).flatten()
        chosen = others[torch.randperm(len(others))[: starts - noise]]
        chosen = chosen.repeat(starts)[: starts - noise]  # a very small clean set: some serve twice
        pictures += [torch.rand(noise, *search.images.shape[1:]), search.pick(chosen).floats()]
    return torch.cat(pictures)


def _margins(model: nn.Module, pictures: Tensor, targets: Tensor, ground: _Ground | None) -> Tensor:
    if ground is None or ground.head is None:
        return depth(model(pictures), targets)
    own = ground.directions[targets]

    def without_own(features: Tensor) -> Tensor:
        along = ((features - ground.centre) * own).sum(1, keepdim=True)
        return -along.clamp(min=0) * own

    return depth(with_features(model, ground.head, pictures, without_own)[0], targets)


def _statement(row: int, numbers: Mapping[str, float], *, suspicious: bool) -> str:
    if not numbers["corrected"]:
        return (
            f"Class {row} can be driven to a margin of {numbers['margin_plain']:.1f}; no last "
            "layer was found, so "
            "how much of it are the class's own features is unknown."
        )
    words = (
        f"Beyond its own features, class {row} can be driven {numbers['excess']:.1f} clean "
        "margins deeper than "
        f"its siblings let expect (p = {numbers['p_value']:.2g})"
    )
    return f"{words}." if suspicious else f"{words}: not out of the ordinary."
