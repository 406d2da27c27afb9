"""Margins: find a class whose largest margin exceeds what the class's own features explain.

Steps:
    1. refuse models and clean sets that cannot be judged; find the head and each class's direction
       in the feature space before it
    2. for all classes and starts at once, maximise the margin over images, once with the model as
       it is and once without the features' component along the class's own direction
    3. compare the remaining margins of the classes, given how near clean images of other classes
       come to each; an outlier is suspicious
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
from guard.core.planned import Passes, Plan, Sizes
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
SHALLOW = 0.3  # of clean margins; added before the logarithm, since honest classes are near zero
LEAST_LOG_SPREAD = 0.3
LEAST_MARGIN = 0.1  # of clean margins; below it, margins count as this on a log scale
PASS_IMAGES = {"cpu": 128, "cuda": 1024}
SHOWN = 20  # the number of findings if there are more classes
BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class _Ground:
    """Statistics of clean images; `scale` is their mean margin in logits.

    `near` is how near clean images of other classes come to each class (`guard.ml.class_margins`).
    `centre` (D) is the mean of the class means of the features, `directions` (K,D, of length one)
    point from it to each class mean.
    """

    scale: float
    near: list[float]
    head: Layer | None
    centre: Tensor
    directions: Tensor


@dataclass(frozen=True, kw_only=True)
class Margin(Detector):
    """MM-BD with all classes in one batch, corrected for what the class's own features explain.

    Source: Wang et al., S&P 2024. Deviations: Adam in place of gradient ascent, images of other
    classes among the starts, a t test that leaves the class out (generalised ESD) in place of a
    gamma fit to K - 1 values, and the class-intrinsic correction after CSO (arXiv 2512.08129). The
    correction is not a penalty: the part of the head's input that lies along the class's clean mean
    direction is removed before the head. A penalty did not help: on MNIST the digit 8 has several
    times its siblings' margin in honest models, all of it along its own direction.

    Some classes are easily mistaken for others (shirt, coat, pullover) and have larger margins in
    honest models too. So a class is compared with a line through its siblings over how near clean
    images come to each (`near`); without it, p was too small on honest models. It was also too
    small for the margins themselves, which have a long tail, so p is that of log(margin + 0.3).
    Line, quantile and scale were chosen on models that later evaluations do not use.

    `excess` is how much the corrected margin exceeds that line, in units of clean images' mean
    margin; `p_class` is the p value of this class alone, `p_value` is corrected for all classes.
    If no head was found (`corrected` is 0), margins are those without the correction
    (`margin_plain`), `p_plain` is their p value on a log scale, and nothing is suspicious. A
    finding is suspicious if p <= `alpha` and excess >= `excess`.

    Args:
        starts: images a class for up to ten classes, half noise, half clean images of other
            classes; fewer for more classes, at least 2.
        steps, rate: of Adam; the rate falls to zero linearly.
        alpha, excess: the gates.
    """

    version: ClassVar[int] = 5
    paper: ClassVar[str] = "Wang et al., MM-BD, IEEE S&P 2024"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})

    starts: int = 8
    steps: int = 50
    rate: float = 0.1
    alpha: float = 0.001
    excess: float = 1.0

    def _tries(self, classes: int) -> int:
        return max(2, min(self.starts, self.starts * 10 // classes))

    def planned(self, sizes: Sizes) -> Plan:
        looked = Passes(forward=sizes.calibration + sizes.search + 2)
        starts = sizes.classes * self._tries(sizes.classes)
        climb = Passes(forward=starts, searched=starts * self.steps)
        return Plan.exactly(looked + climb)

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "The margin detector")
        progress(0.02, "measuring clean images")
        if device_of(model).type == "cpu":
            channels_last(model)
        with repeatable():
            ground = _ground(model, clean)
            starts = self._tries(clean.classes)
            images = _starts(clean.search, clean.classes, starts).to(device_of(model))
            watch = span(progress, 0.05, 1.0, "margins")
            depths = self._deepest(model, images, starts, ground, watch)
        most = max(1, clean.classes // 4)
        logs = low_outliers(
            depths.clamp(min=LEAST_MARGIN).log().tolist(),
            alpha=self.alpha,
            most=most,
            low_side=False,
        )
        explained = ground.near if clean.classes >= LEAST_FOR_LINE else None
        # Margins have a long tail; their logs do not.
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
            self._finding(row, float(depths[row]), tests[row], gaps[row], logs[row], ground)
            for row in rows
        ]

    def _deepest(
        self,
        model: nn.Module,
        images: Tensor,
        starts: int,
        ground: _Ground,
        watch: Callable[[float], None],
    ) -> Tensor:
        """The largest margin of each class over its starts, float64 K on the CPU.

        The unit is the mean margin of clean images; beyond the class's own features where the head
        is known.
        """
        size = max(1, PASS_IMAGES.get(images.device.type, 256) // starts) * starts
        parts = images.split(size)
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
                ground,
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
        images: Tensor,
        targets: Tensor,
        ground: _Ground,
        watch: Callable[[float], None],
    ) -> Tensor:
        """Maximise the margins by Adam on the images, in [0, 1]; returns the margins, float N.

        They are NaN where the model gave no finite answer on the way: its gradient leads nowhere
        there, and the climb would end beside what it was kept from.
        """
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        sound = torch.ones(len(images), dtype=torch.bool, device=images.device)
        for step in range(self.steps):
            with torch.enable_grad():
                images = images.detach().requires_grad_()
                margins = _margins(model, images, targets, ground)
                (gradient,) = torch.autograd.grad(margins.sum(), images)
            sound &= margins.detach().isfinite()
            first = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
            move = (
                first
                / (1 - BETAS[0] ** (step + 1))
                / ((second / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8)
            )
            images = (images.detach() + self.rate * (1 - step / self.steps) * move).clamp(0, 1)
            watch((step + 1) / (self.steps + 1))
        with torch.no_grad():
            return _margins(model, images, targets, ground).where(sound, torch.nan)

    def _finding(
        self,
        row: int,
        depth: float,
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
            "clean_margin": ground.scale,
            "near": ground.near[row],
            "corrected": float(corrected),
        }
        if corrected:
            numbers |= {"t_stat": test.t, "p_class": test.p, "classes": float(len(ground.near))}
        else:
            numbers |= {"margin_plain": depth * ground.scale, "p_plain": log_test.p}
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
    """K * starts images, class by class: noise first, then clean images of other classes."""
    noise, images = starts - starts // 2, []
    for row in range(classes):
        others = torch.nonzero(search.labels != row).flatten()
        chosen = others[torch.randperm(len(others))[: starts - noise]]
        chosen = chosen.repeat(starts)[: starts - noise]  # in a very small clean set some repeat
        images += [torch.rand(noise, *search.images.shape[1:]), search.pick(chosen).floats()]
    return torch.cat(images)


def _margins(model: nn.Module, images: Tensor, targets: Tensor, ground: _Ground) -> Tensor:
    if ground.head is None:
        return depth(model(images), targets)
    own = ground.directions[targets]

    def without_own(features: Tensor) -> Tensor:
        along = ((features - ground.centre) * own).sum(1, keepdim=True)
        return -along.clamp(min=0) * own

    return depth(with_features(model, ground.head, images, without_own)[0], targets)


def _statement(row: int, numbers: Mapping[str, float], *, suspicious: bool) -> str:
    if not numbers["corrected"]:
        return (
            f"Class {row} can be driven to a margin of {numbers['margin_plain']:.1f}; no last "
            "layer was found, so "
            "how much of it are the class's own features is unknown."
        )
    text = (
        f"Beyond its own features, class {row} can be driven {numbers['excess']:.1f} clean "
        "margins deeper than "
        f"predicted from its siblings (p = {numbers['p_value']:.2g})"
    )
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."
