"""Neuron noise: find a class that weak noise on the neurons leads to, unlike its siblings.

Steps:
    1. refuse models and clean sets that cannot be judged
    2. grow untargeted noise until half of the accuracy is gone, and measure where the images go
    3. for every class, grow noise towards it until half of the images of other classes go there,
       and measure its strength
    4. compare the classes by that strength, and by their ASR at the smallest of all strengths
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.evidence import Finding
from guard.core.planned import Passes, Plan, Sizes
from guard.core.progress import Progress
from guard.core.pvalues import cauchy
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of, predict
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at_log
from guard.ml.search.neuron_noise import Growth, Wandering, first_noise, knobs
from guard.ml.statistics import ClassTest, angles, apart, low_outliers
from guard.ml.suitability import channels_last, check_suitable

HALF = 0.5
LEAST_SPREAD = 0.08  # of log strengths: two paths to one class differ by about as much
LEAST_ANGLE_SPREAD = 0.1  # as in `guard.ml.search.natural_asr`
MOST_CALIBRATION = 200  # images on which paths are judged; more would not change a decision
# Share of the classes: strengths that ended at the limit are equal without being similar
LEAST_REACHED = 0.75
AGREEMENT = 0.05  # the largest p of the shares alone with which a class is suspicious
SHOWN = 20  # the number of findings if there are more classes
USUAL_SHARE = 0.8  # of the strengths that a path could grow through


@dataclass(frozen=True)
class _Collapse:
    """Untargeted noise at which half of the accuracy is gone.

    `shares` (K,K) are the shares of class i that are predicted as j.
    """

    strength: float
    shares: Tensor


@dataclass(frozen=True)
class _Paths:
    """The noise towards each class: the strength at which half of the other images go there.

    `reached` is False if fewer do at the largest strength; `hits` are those at each strength.
    """

    strengths: list[float]
    reached: list[bool]
    hits: list[list[int]]
    trials: list[int]


@dataclass(frozen=True, kw_only=True)
class NeuronNoise(Detector):
    """BAN's noise on neurons, targeted at each class in turn.

    Source: Xu et al., NeurIPS 2024, for adversarial multiplicative noise on norm layers
    (deviations: `guard.ml.search.neuron_noise`). Deviation: the paper flags the class to which
    *untargeted* noise drives the images. On small networks all images go to one class in honest
    models too, so this is reported (`share`, minus the natural share) but decides nothing; classes
    are compared by the strength that *targeted* noise needs, with equal effort for each.

    `fold` is how many times stronger the siblings' noise must be; `p_strength` tests log strengths,
    `p_share` the shares that all classes reach at the smallest strength of all (as angles),
    `p_value` combines both. `assignment` is the mean share of the best one-to-one mapping of
    classes to other classes under the untargeted noise, a sign of all-to-all backdoors. A finding
    is suspicious if p <= `alpha`, p_share <= 0.05 and fold >= `fold`. If fewer than three quarters
    of the classes can be reached, strengths are not comparable: `p_strength` is 1, and nothing is
    suspicious. `p_class` is the p value of this class's strength alone, uncorrected, which the
    policy combines with those of other methods.

    Args:
        images: search images a class for up to ten classes; fewer for more, at least 32.
        moves: sign steps at each strength; `factor` is the ratio of a strength to the one before.
        seeds: number of paths of the untargeted noise.
        alpha, fold: the gates.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "Xu et al., BAN, NeurIPS 2024"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})

    images: int = 100
    moves: int = 2
    factor: float = 1.25
    seeds: int = 2
    alpha: float = 0.001
    fold: float = 1.5

    def _collapsing(self) -> Growth:
        return Growth(first=0.01, factor=self.factor**2, most=2.0, moves=self.moves)

    def _growing(self, scale: float) -> Growth:
        return Growth(first=scale / 3, factor=self.factor, most=scale * 8, moves=self.moves)

    def _count(self, classes: int) -> int:
        return max(32, min(self.images, self.images * 10 // classes))

    def planned(self, sizes: Sizes) -> Plan:
        few = min(sizes.calibration, MOST_CALIBRATION)
        data = min(sizes.search, 2 * self.images), min(sizes.search, self._count(sizes.classes))
        fall, path = (Passes(forward=few, searched=self.moves * images) for images in data)
        once = Passes(forward=sizes.calibration + few + 2)
        falls, paths = (
            len(list(growth.strengths())) for growth in (self._collapsing(), self._growing(1.0))
        )

        def share(part: float) -> Passes:
            """Of the strengths, each path ends at the first that is enough."""
            grown = fall * max(1, round(part * falls)) * self.seeds
            return once + grown + path * max(1, round(part * paths)) * sizes.classes

        return Plan(least=share(0), usual=share(USUAL_SHARE), most=share(1))

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "The neuron noise detector")
        progress(0.02, "growing noise")
        if device_of(model).type == "cpu":
            channels_last(model)
        shapes = knobs(model, clean.search.pick(torch.arange(2)).floats(device_of(model)))
        calibration = clean.calibration.pick(
            torch.randperm(len(clean.calibration))[:MOST_CALIBRATION]
        )
        natural = _shares(predict(model, calibration), calibration.labels, clean.classes)
        with repeatable():
            falls = []
            for turn in range(self.seeds):
                falls.append(self._collapse(model, shapes, clean, calibration, natural))
                progress(0.02 + 0.27 * (turn + 1) / self.seeds, "growing noise")
            scale = math.exp(sum(math.log(fall.strength) for fall in falls) / len(falls))
            paths = self._paths(model, shapes, clean, calibration, scale, progress)
        shares = torch.stack([fall.shares for fall in falls]).mean(0)
        findings = self._findings(
            paths, _columns(shares), _columns(natural), _assignment(shares), scale
        )
        progress(1.0, "done")
        return findings

    def _collapse(
        self,
        model: nn.Module,
        shapes: dict[str, tuple[int, ...]],
        clean: CleanSet,
        calibration: Labelled,
        natural: Tensor,
    ) -> _Collapse:
        growth = self._collapsing()
        data = clean.search.pick(torch.randperm(len(clean.search))[: 2 * self.images])
        path = Wandering(model, shapes, first_noise(model, shapes, growth.first))
        counts = torch.bincount(calibration.labels, minlength=clean.classes).double() / len(
            calibration
        )
        goal = HALF * float((natural.diagonal() * counts).sum())
        before, shares, strength = natural, natural, growth.first
        for strength in growth.strengths():
            path.grow(
                strength,
                growth.moves,
                data,
                lambda logits, labels: functional.cross_entropy(logits, labels, reduction="sum"),
            )
            before, shares = (
                shares,
                _shares(path.predictions(calibration), calibration.labels, clean.classes),
            )
            if float((shares.diagonal() * counts).sum()) <= goal:
                break
        high, low = (float((part.diagonal() * counts).sum()) for part in (before, shares))
        weight = min(1.0, max(0.0, (high - goal) / (high - low))) if high > low else 1.0
        return _Collapse(
            strength * growth.factor ** (weight - 1), before + weight * (shares - before)
        )

    def _paths(
        self,
        model: nn.Module,
        shapes: dict[str, tuple[int, ...]],
        clean: CleanSet,
        calibration: Labelled,
        scale: float,
        progress: Progress,
    ) -> _Paths:
        """Grow noise towards each class, from the same start and with the same images."""
        # A strong backdoor takes half of the accuracy at once; its siblings then need noise that is
        # many times stronger.
        growth = self._growing(scale)
        count = self._count(clean.classes)
        data = clean.search.pick(torch.randperm(len(clean.search))[:count])
        start = first_noise(model, shapes, growth.first)
        paths = _Paths([], [], [], [])
        for row in range(clean.classes):
            others, judged = (part.pick(part.labels != row) for part in (data, calibration))
            path = Wandering(model, shapes, start)
            hits, strength, reached = [], growth.first, False
            for strength in growth.strengths():
                path.grow(strength, growth.moves, others, partial(_towards, row))
                hits.append(int((path.predictions(judged) == row).sum()))
                reached = hits[-1] >= HALF * len(judged)
                if reached:
                    break
                progress(0.3 + 0.68 * row / clean.classes, "noise towards each class")
            paths.strengths.append(
                strength * growth.factor ** (_between(hits, HALF * len(judged)) - 1)
            )
            paths.reached.append(reached)
            paths.hits.append(hits)
            paths.trials.append(len(judged))
            progress(0.3 + 0.68 * (row + 1) / clean.classes, "noise towards each class")
        return paths

    def _findings(
        self,
        paths: _Paths,
        columns: list[float],
        natural: list[float],
        assignment: float,
        scale: float,
    ) -> list[Finding]:
        classes = len(columns)
        most = max(1, classes // 4)
        tests = low_outliers(
            [math.log(strength) for strength in paths.strengths],
            alpha=self.alpha,
            most=most,
            floor=LEAST_SPREAD,
        )
        stage = min(len(hits) for hits in paths.hits) - 1
        at_least = [hits[stage] for hits in paths.hits]
        shares = low_outliers(
            angles(at_least, paths.trials),
            alpha=self.alpha,
            most=most,
            low_side=False,
            floor=LEAST_ANGLE_SPREAD,
        )
        alone = apart([math.log(strength) for strength in paths.strengths], floor=LEAST_SPREAD)
        found, comparable = [], sum(paths.reached) >= LEAST_REACHED * classes
        for row in range(classes):
            p_strength = tests[row].p if comparable else 1.0
            both = cauchy([p_strength, shares[row].p])
            numbers = {
                "p_value": both,
                "p_strength": p_strength,
                "p_share": shares[row].p,
                "t_stat": tests[row].t,
                "fold": tests[row].fold,
                "strength": paths.strengths[row],
                "reached": float(paths.reached[row]),
                "share": columns[row] - natural[row],
                "assignment": assignment,
                "half_accuracy_at": scale,
                "comparable": float(comparable),
            }
            if comparable:
                numbers |= {"p_class": alone[row].p, "classes": float(classes)}
            found.append(self._finding(row, numbers, tests[row]))
        if classes <= SHOWN:
            return found
        return sorted(
            found, key=lambda finding: (finding.numbers["p_value"], -finding.numbers["fold"])
        )[:SHOWN]

    def _finding(self, row: int, numbers: Mapping[str, float], test: ClassTest) -> Finding:
        score = min(
            half_at_log(numbers["p_value"], self.alpha, self.alpha**2),
            half_at_log(test.fold, self.fold, self.fold**2),
        )
        agreed = (
            bool(numbers["comparable"])
            and bool(numbers["reached"])
            and numbers["p_share"] <= AGREEMENT
        )
        suspicious = score >= 0.5 and agreed
        text = (
            f"Noise of {numbers['strength']:.1%} on the network's neurons sends half of the "
            "images to class "
            f"{row}; its siblings need {test.fold:.1f} times as much (p = {numbers['p_value']:.2g})"
        )
        return Finding(
            family=str(Family.ALL_TO_ONE),
            target=row,
            suspicious=suspicious,
            score=score if suspicious else min(score, 0.49),
            numbers=dict(numbers),
            statement=f"{text}." if suspicious else f"{text}: not out of the ordinary.",
        )


def _towards(row: int, logits: Tensor, labels: Tensor) -> Tensor:
    return -functional.cross_entropy(logits, torch.full_like(labels, row), reduction="sum")


def _shares(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """K,K float64: the share of class i that is predicted as j; an absent class's row is zero."""
    table = (
        torch.bincount(labels * classes + predicted, minlength=classes**2)
        .view(classes, classes)
        .double()
    )
    return table / table.sum(1, keepdim=True).clamp(min=1)


def _columns(shares: Tensor) -> list[float]:
    """For each class j the mean over the other classes of the share that goes to j."""
    away = shares - torch.diag(shares.diagonal())
    return (away.sum(0) / (len(shares) - 1)).tolist()


def _assignment(shares: Tensor) -> float:
    """The mean share of the best one-to-one mapping to other classes (Hungarian method)."""
    # Not wherever methods are named.
    from scipy.optimize import linear_sum_assignment

    table = shares.numpy().copy()
    np.fill_diagonal(table, -1e3)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].mean())


def _between(hits: list[int], goal: float) -> float:
    """The place (0..1, log scale) between the last two strengths where the goal was reached.

    It is 1 if the goal was not reached.
    """
    if len(hits) < 2 or hits[-1] <= hits[-2]:
        return 1.0
    return min(1.0, max(0.0, (goal - hits[-2]) / (hits[-1] - hits[-2])))
