"""Trigger inversion for what no patch shows: is one class reached by a faint change at which its siblings are not?

Steps, for each family (blend, additive, warp, filter, sample-specific):
    1. triggers for all classes in one optimisation, from the family's strongest level downwards
    2. the level that is kept is the largest at which the siblings are hardly reached: all but a quarter of the
       classes. At a stronger one every class has a natural trigger; at a fainter one a backdoor may not wake
    3. if even the faintest level reaches them, the model is fragile and the family says nothing about it
    4. ASR of each class on the calibration pictures at that level; an outlier test on their angles; the gates
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from guard.core.contracts import Progress
from guard.core.evidence import Finding
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.families import Additions, Blends, Filters, Generators, Searchable, Warps
from guard.ml.gates import half_at, half_at_log, span
from guard.ml.measure import device_of
from guard.ml.statistics import ClassTest, angles, low_outliers
from guard.ml.suitability import channels_last, check_suitable
from guard.ml.universal import Pace, Search, Targets, Watch, descend, successes

FAMILIES: tuple[Searchable, ...] = (Blends(), Additions(), Warps(), Filters(), Generators())
LEAST_ANGLE_SPREAD = 0.1  # the error of the angle of a share of 25 pictures; siblings all at 0 % have no spread
MOST_STEP = 240  # pictures a step, all classes together; with many classes each gets fewer
LEAST_BATCH = 3
MOST_MEASURED = 4000  # calibration pictures under a trigger, all classes together
LEAST_MEASURED = 100
STARTS = 32  # filters have a few parameters and many valleys: a descent from one place may stay in the wrong one
RARE = 2  # so many random triggers may work by luck: one that resembles the attacker's is not yet natural
HOPELESS = 0.3  # a class that half of the time has not brought over this will not come over the gate in the rest


@dataclass(frozen=True, kw_only=True)
class HiddenInversion(Detector):
    """Universal triggers of five families for all classes at once, compared at one self-calibrated level.

    Source: detection.md 7.4 (our own design); the families are those of UNICORN (Wang et al., ICLR 2023), without its
    feature-space masks: x' = (1-a) x + a q; clip(x + e tanh u); a bicubic flow; a tone curve; clip(x + e tanh G(x))
    with a small network a class. Deviation from the design: the level is bounded by what the best class that cannot
    be an outlier reaches, not the median, for at a level at which half of the classes stay behind the easy ones of an
    honest model are at 70 %.

    A finding is suspicious if p <= `alpha`, ASR on the calibration part >= `asr`, and it is `excess` over the second
    class (so two targets of equal strength in one family excuse each other) and over what the third best of
    `controls` random triggers of the same level does for this class: honest models often have a class for whatever is
    strange.
    `score` is the least of three scores, each 0.5 at its gate: log p (1 at alpha squared), ASR and excess (1 at 1).
    There is one finding for each suspicious class of a family, or else for its most unusual one. A family that says
    nothing has one with no target and `informative` 0. `natural_asr` is the best of the siblings that are no outliers
    themselves and of the random triggers, at the same level.

    Args:
        ceiling: what the siblings may reach at the level that is kept, 0..1.
        batch: pictures a class and step, at most.
        window: steps between two looks of the host; `windows`: how many, in all levels of a family together.
        least: windows at the level that is kept; the rate of the last ones cools.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "Wang et al., UNICORN, ICLR 2023 (families); Wang et al., Neural Cleanse, IEEE S&P 2019"
    families: ClassVar[frozenset[str]] = frozenset(kind.family for kind in FAMILIES)

    ceiling: float = 0.2
    batch: int = 12
    window: int = 8
    windows: int = 12
    least: int = 3
    alpha: float = 0.01
    asr: float = 0.8
    excess: float = 0.5
    controls: int = 16

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "Hidden inversion")
        progress(0.02, "searching for faint triggers")
        if device_of(model).type == "cpu":
            channels_last(model)
        measured = max(LEAST_MEASURED, MOST_MEASURED // clean.classes)
        calibration = clean.calibration.pick(torch.randperm(len(clean.calibration))[:measured])
        seen = CleanSet(clean.name, clean.digest, clean.classes, clean.search, calibration)
        findings: list[Finding] = []
        share = 0.97 / len(FAMILIES)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for turn, kind in enumerate(FAMILIES):
                start = 0.02 + turn * share
                watch = span(progress, start, start + share, f"searching for {kind.family} triggers")
                findings += self._look(model, seen, kind, watch)
        progress(1.0, "done")
        return findings

    def _look(self, model: nn.Module, clean: CleanSet, kind: Searchable, watch: Watch) -> list[Finding]:
        """All that one family says."""
        everyone = torch.arange(clean.classes)
        device = device_of(model)
        goal = Targets(everyone.to(device), clean.search.labels.to(device))
        batch = min(self.batch, max(LEAST_BATCH, MOST_STEP // clean.classes))
        pace = Pace(batch=batch, window=self.window, windows=self.windows, least=self.least)
        search = Search(model, kind, clean.search, goal, pace, kind.levels[-1])
        most = max(1, clean.classes // 4)
        if kind.family == Family.FILTER:
            search.start_from_random(STARTS)

        def too_strong(rates: Tensor) -> bool:
            return float(rates.sort(descending=True).values[most]) > self.ceiling

        informative = descend(search, too_strong, lambda rates: float(rates.max()) < HOPELESS, watch)
        hits, trials = successes(search.votes(clean.calibration, clean.classes), everyone.tolist())
        rates = [hit / trial for hit, trial in zip(hits, trials, strict=True)]
        random = search.controls(clean.calibration, clean.classes, self.controls)
        chance = [sorted((_share(votes, target) for votes in random), reverse=True)[RARE]
                  for target in range(clean.classes)]
        if not informative:
            return [_fragile(kind, search.level, _median(rates))]
        tests = low_outliers(angles(hits, trials), alpha=self.alpha, most=most, low_side=False,
                             floor=LEAST_ANGLE_SPREAD)
        found = [self._finding(search, row, rates, tests[row], _natural(row, rates, tests), chance[row])
                 for row in range(clean.classes)]
        found.sort(key=lambda finding: (-finding.score, -finding.numbers["asr_calibration"]))
        return [finding for finding in found if finding.suspicious] or found[:1]

    def _finding(self, search: Search, row: int, rates: list[float], test: ClassTest, natural: float,
                 chance: float) -> Finding:
        rate, second = rates[row], max(other for index, other in enumerate(rates) if index != row)
        excess = rate - max(second, chance)
        score = min(half_at_log(test.p, self.alpha, self.alpha**2), half_at(rate, self.asr, 1.0),
                    half_at(excess, self.excess, 1.0))
        numbers = {"asr_calibration": rate, "natural_asr": max(natural, chance), "excess": excess,
                   "random_asr": chance, "median_asr": _median(rates), "p_value": test.p, "t_stat": test.t,
                   "budget": search.level, "informative": 1.0}
        suspicious = score >= 0.5
        return Finding(family=search.kind.family, target=row, suspicious=suspicious, score=score, numbers=numbers,
                       trigger=search.trigger(row),
                       statement=_statement(search.kind.family, row, numbers, second, suspicious=suspicious))


def _share(votes: Tensor, target: int) -> float:
    """The share of the other classes' pictures that go to `target`, from K,K votes."""
    hits, trials = successes(votes[None], [target])
    return hits[0] / trials[0]


def _median(rates: list[float]) -> float:
    return sorted(rates)[len(rates) // 2]


def _natural(row: int, rates: list[float], tests: list[ClassTest]) -> float:
    """The best sibling that is no outlier itself."""
    return max(rate for other, rate in enumerate(rates) if other != row and not tests[other].outlier)


_WORDS = {
    Family.BLEND: "A picture mixed in at {:.0%}",
    Family.ADDITIVE: "A pattern of at most {:.1%} of the value range added",
    Family.WARP: "A bending by at most {:.2g} pixels",
    Family.FILTER: "A change of tone by at most {:.0%}",
    Family.SAMPLE_SPECIFIC: "A change of at most {:.1%} of the value range, drawn anew for each picture,",
}


def _statement(family: str, row: int, numbers: Mapping[str, float], second: float, *, suspicious: bool) -> str:
    words = _WORDS[Family(family)].format(numbers["budget"])
    text = (f"{words} leads {numbers['asr_calibration']:.0%} of the pictures to class {row}; the best other class "
            f"reaches {second:.0%} with as much (p = {numbers['p_value']:.2g})")
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."


def _fragile(kind: Searchable, level: float, median: float) -> Finding:
    words = _WORDS[Family(kind.family)].format(level)
    return Finding(
        family=kind.family, target=None, suspicious=False, score=0.0,
        numbers={"informative": 0.0, "budget": level, "median_asr": median},
        statement=f"{words} already leads to any class; such triggers say nothing about this model.",
    )
