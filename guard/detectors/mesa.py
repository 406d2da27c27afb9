"""MESA: learn the whole distribution of patches for classes that a short patch search points at.

Steps:
    1. refuse models and clean sets that cannot be judged; search briefly for the smallest patch of
       every class
    2. take at most `candidates` classes whose norm is `fold` times below their siblings'; without
       one, nothing is suspicious
    3. for each candidate, train one generator of patches of equal size for it and for each of its
       siblings, and test whether its patches work and the siblings' do not
    4. for a candidate that passes the gates, train the staircase of all levels, and measure the
       mean and the best ASR of its samples
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from guard.core.evidence import Finding, TriggerLike
from guard.core.planned import Passes, Plan, Sizes
from guard.core.progress import Progress, span
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of, predict
from guard.ml.precision import repeatable
from guard.ml.scoring import least_score
from guard.ml.search import passes
from guard.ml.search.fresh_patches import LEAST_PIXELS, Region, TriggerSet, learn_sets, successes
from guard.ml.search.natural_asr import LEAST_ANGLE_SPREAD
from guard.ml.search.patch_distribution import LEVELS, DistributionEffort
from guard.ml.search.patches import PatchEffort, Patches, smallest_patches
from guard.ml.statistics import ClassTest, angles, low_outliers
from guard.ml.suitability import channels_last, check_suitable

MOST_ASKED = 12  # classes that are compared; of more, the ones with the smallest patches
MOST_CALIBRATION = 400  # images on which samples are measured
LOOK_ALPHA = 0.1  # the comparison needs any set of patches, not the most spread out
# Pixels of the region, in norms of the smallest patch: masks are soft, these patches are opaque
ROOM = 2.0
MOST_PIXELS = 64
SEARCH_WINDOW = 5  # as in the prescreen of patch inversion


@dataclass(frozen=True)
class _Look:
    """ASR on the calibration part of generators of equal size and effort, one for each class."""

    pixels: int
    rates: dict[int, float]
    tests: dict[int, ClassTest]

    def natural(self, row: int) -> float:
        return max(
            rate
            for other, rate in self.rates.items()
            if other != row and not self.tests[other].outlier
        )


@dataclass(frozen=True, kw_only=True)
class Mesa(Detector):
    """Max-entropy staircase approximation of the trigger distribution after a short patch search.

    Source: Qiao et al., NeurIPS 2019 (`guard.ml.search.patch_distribution`). Deviations: the region
    is the one that the search found instead of a known 3x3 square, only suspected classes are
    learnt, and the verdict comes from a test against the sibling classes. A finding is suspicious
    if p <= `alpha`, fold >= `fold` and the mean ASR in the comparison (`asr_look`) >= `asr`; its
    score is at least 0.5 exactly then. The trigger that it carries is the best of `samples` on the
    calibration part; `asr_mean` and `asr_worst` are over all samples, `information` (nats) measures
    how spread out they are. `natural_asr` is the best ASR of the siblings that are not outliers.

    Args:
        search_steps: steps of the short search, with `search_batch` images a class and step.
        candidates: the largest number of classes that are examined.
        look_steps: steps of each generator that is compared; `learn_steps` of each level of the
            staircase.
        batch: patches, each on its own image, a generator and step.
        samples: number of patches that are drawn from the staircase.
        alpha, fold, asr: the gates.
        square: the paper's prior: a square of this side in pixels, anywhere; 0 for the region that
            the search finds.
    """

    version: ClassVar[int] = 2
    paper: ClassVar[str] = (
        "Qiao et al., Defending Neural Backdoors via Generative Distribution Modeling, NeurIPS 2019"
    )
    families: ClassVar[frozenset[str]] = frozenset({"patch"})

    search_steps: int = 100
    search_batch: int = 8
    candidates: int = 2
    look_steps: int = 120
    learn_steps: int = 300
    batch: int = 16
    samples: int = 24
    alpha: float = 0.01
    fold: float = 1.7
    asr: float = 0.8
    square: int = 0

    def planned(self, sizes: Sizes) -> Plan:
        effort = PatchEffort(steps=self.search_steps, batch=self.search_batch)
        search = passes.patches(effort, sizes.classes) + Passes(forward=sizes.calibration)
        few, rows = min(sizes.calibration, MOST_CALIBRATION), min(MOST_ASKED, sizes.classes)
        judged = Passes(
            forward=(rows + self.samples) * few,
            searched=(self.look_steps * rows + self.learn_steps * len(LEVELS)) * self.batch,
        )
        most = search + judged * self.candidates
        return Plan(least=search, usual=search, most=most, triggers=(0, self.candidates))

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "MESA")
        progress(0.02, "searching for patches")
        if device_of(model).type == "cpu":
            channels_last(model)
        calibration = clean.calibration.pick(
            torch.randperm(len(clean.calibration))[:MOST_CALIBRATION]
        )
        with repeatable():
            effort = PatchEffort(
                steps=self.search_steps, batch=self.search_batch, window=SEARCH_WINDOW
            )
            patches = smallest_patches(
                model,
                clean.search,
                torch.arange(clean.classes),
                effort,
                span(progress, 0.02, 0.4, "searching for patches"),
            )
            tests = low_outliers(
                patches.norms.log().tolist(), alpha=self.alpha, most=max(1, clean.classes // 4)
            )
            order = patches.norms.argsort(stable=True).tolist()
            chosen = [
                row
                for row in order[: self.candidates]
                if patches.reached[row] and tests[row].fold >= self.fold
            ]
            found = {}
            for turn, row in enumerate(chosen):
                watch = _part(
                    progress, 0.4 + 0.6 * turn / len(chosen), 0.4 + 0.6 * (turn + 1) / len(chosen)
                )
                found[row] = self._judge(
                    model, clean.search, calibration, patches, row, tests[row].fold, watch
                )
        progress(1.0, "done")
        return [found.get(row) or _quiet(row, patches, tests[row]) for row in range(clean.classes)]

    def _judge(
        self,
        model: nn.Module,
        search: Labelled,
        calibration: Labelled,
        patches: Patches,
        row: int,
        fold: float,
        progress: Progress,
    ) -> Finding:
        look = self._look(
            model,
            search,
            calibration,
            patches,
            row,
            span(progress, 0.0, 0.5, "measuring sibling classes"),
        )
        p = min(
            1.0, look.tests[row].p * len(patches.norms) / len(look.rates)
        )  # classes that were not compared count as tests too
        rate, natural = look.rates[row], look.natural(row)
        numbers = {
            "mask_l1": float(patches.norms[row]),
            "fold": fold,
            "p_value": p,
            "budget": float(look.pixels),
            "natural_asr": natural,
            "asr_look": rate,
            "asr_calibration": rate,
        }
        trigger: TriggerLike | None = None
        score = self._score(p, fold, rate)
        if score >= 0.5:
            region = self._region(patches, row, look.pixels)
            effort = DistributionEffort(steps=self.learn_steps, batch=self.batch)
            learnt = learn_sets(
                model, search, [row], [region], effort, span(progress, 0.5, 0.9, "learning patches")
            )
            trigger, numbers = self._measured(model, calibration, learnt[0], numbers)
        text = (
            f"Sampled patches of {look.pixels} pixels lead to class {row} on {rate:.0%} of the "
            f"images, those of the best sibling class on {natural:.0%} (p = {p:.2g})"
        )
        suspicious = score >= 0.5
        return Finding(
            family="patch",
            target=row,
            suspicious=suspicious,
            score=score,
            numbers=numbers,
            trigger=trigger,
            statement=f"{text}." if suspicious else f"{text}: not out of the ordinary.",
        )

    def _look(
        self,
        model: nn.Module,
        search: Labelled,
        calibration: Labelled,
        patches: Patches,
        row: int,
        watch: Callable[[float], None],
    ) -> _Look:
        """Train one generator for each class at the highest level, with equal pixels and effort."""
        pixels = min(max(round(ROOM * float(patches.norms[row])), LEAST_PIXELS), MOST_PIXELS)
        pixels = self.square**2 or pixels
        rows = patches.norms.argsort(stable=True)[:MOST_ASKED].tolist()
        regions = [self._region(patches, other, pixels) for other in rows]
        effort = DistributionEffort(steps=self.look_steps, batch=self.batch)
        sets = learn_sets(
            model, search, rows, regions, effort, watch, levels=LEVELS[:1], alpha=LOOK_ALPHA
        )
        hits, trials = zip(*(successes(model, calibration, learnt) for learnt in sets), strict=True)
        tests = low_outliers(
            angles(hits, trials),
            alpha=self.alpha,
            most=max(1, len(rows) // 4),
            low_side=False,
            floor=LEAST_ANGLE_SPREAD,
        )
        rates = {other: hit / trial for other, hit, trial in zip(rows, hits, trials, strict=True)}
        return _Look(pixels, rates, dict(zip(rows, tests, strict=True)))

    def _region(self, patches: Patches, row: int, pixels: int) -> Region:
        mask = patches.masks[row].cpu()
        return Region.square(mask, self.square) if self.square else Region.found(mask, pixels)

    def _measured(
        self, model: nn.Module, calibration: Labelled, learnt: TriggerSet, numbers: dict[str, float]
    ) -> tuple[TriggerLike, dict[str, float]]:
        """The best sample, and the rates of all samples on the calibration part."""
        others = calibration.pick(calibration.labels != learnt.target)
        triggers = learnt.triggers(self.samples)
        rates = [
            float((predict(model, others, trigger=trigger) == learnt.target).double().mean())
            for trigger in triggers
        ]
        best = max(range(len(rates)), key=rates.__getitem__)
        mean = sum(rates) / len(rates)
        return triggers[best], {
            **numbers,
            "asr_mean": mean,
            "asr_worst": min(rates),
            "asr_calibration": rates[best],
            "information": float(learnt.staircase.information.mean()),
        }

    def _score(self, p: float, fold: float, rate: float) -> float:
        return least_score(p=(p, self.alpha), fold=(fold, self.fold), rate=(rate, self.asr))


def _quiet(row: int, patches: Patches, test: ClassTest) -> Finding:
    numbers = {"mask_l1": float(patches.norms[row]), "fold": test.fold, "p_value": test.p}
    return Finding(
        family="patch",
        target=row,
        suspicious=False,
        score=0.0,
        numbers=numbers,
        statement=f"Class {row} is not unusual in the short search; its patches were not learnt.",
    )


def _part(progress: Progress, start: float, end: float) -> Progress:
    """A progress callback whose range 0..1 is `start`..`end` of the given one."""

    def report(done: float, note: str = "") -> None:
        progress(start + (end - start) * done, note)

    return report
