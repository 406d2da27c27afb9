"""Trigger inversion beyond patches: find a class reached by a far weaker change than its siblings.

Steps, for each kind of trigger (fine and smooth patterns and waves that are added; warp, filter,
sample-specific):
    1. for every class, search for the minimal trigger that sends `goal` of the search images there
       (`guard.ml.search.minimal`)
    2. take as candidates the classes whose level is at least `fold` times below their siblings' and
       whose trigger works on the calibration images; without one, nothing is suspicious
    3. for each candidate, measure the ASR of *every* class at its level (natural ASR)
    4. test the log levels and those rates (as angles) for outliers and combine the tests; then
       apply the gates on p, fold and ASR
    5. give a suspicious class the strongest trigger at which its siblings stay behind
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from guard.core.evidence import Finding
from guard.core.planned import NONE, Passes, Plan, Sizes
from guard.core.progress import Progress, span
from guard.core.pvalues import cauchy
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, least_score
from guard.ml.search import passes
from guard.ml.search.engine import Pace, Watch
from guard.ml.search.families import Additions, Filters, Generators, Searchable, Warps, Waves
from guard.ml.search.minimal import MinimalKit, MinimalTriggers, minimal_triggers
from guard.ml.search.natural_asr import Look, Siblings
from guard.ml.statistics import ClassTest, apart, low_outliers
from guard.ml.suitability import channels_last, check_suitable

SMOOTH = 8  # points a side of a pattern without fine noise
FAMILIES: tuple[Searchable, ...] = (
    Additions(),
    Additions(points=SMOOTH),
    Waves(),
    Warps(),
    Filters(),
    Generators(),
)
MOST_STEP = 240  # images a step, all classes together; with many classes each gets fewer
LEAST_BATCH = 3
MOST_MEASURED = 4000  # calibration images under a trigger, all classes together
LEAST_MEASURED = 100
OUTLIER = 0.01  # level at which a class counts as an outlier itself, and no longer as a sibling
# Lower bound of the spread of log levels in `p_class_...`, which are combined with other methods'
ALONE_SPREAD = 0.1
LEAST_REACHED = 0.5  # share of the classes: if fewer are reached, levels do not separate them


@dataclass(frozen=True, kw_only=True)
class HiddenInversion(Detector):
    """Minimal triggers of six kinds for all classes at once.

    Source: our own design; the families are those of UNICORN (Wang et al., ICLR 2023), without its
    feature-space masks: clip(x + e tanh u), a bicubic flow, a tone curve, clip(x + e tanh G(x))
    with a small network for each class. Classes are compared by their minimal level, as by the norm
    for patches, not by their rates at one common level, where either every class is reached or
    none. Added patterns are searched among all patterns, smooth ones and single waves separately,
    since networks are so fragile to fine noise that a smooth trigger does not stand out next to it;
    p is corrected for the kinds of one family. A blended image is found as the pattern that it
    adds, so the additive family covers blends too; if that family is not informative, a finding
    reports the same for blends.

    A finding is suspicious if `p_method` <= `alpha` (`p_value` corrected for the families, so that
    `alpha` is the level of the whole method), fold >= `fold`, ASR on the calibration part >= `asr`,
    and `excess` more than the best sibling reaches at its level; its score is at least 0.5 exactly
    then. `level` is the smallest level that worked, `budget` that of the trigger that the finding
    carries; `random_asr` is the ASR of the third best of `controls` random triggers at the smallest
    level. The last finding is about no single class: it reports for every class how unusual its
    level is in the kind where it is most unusual (`p_class_0` and so on, corrected for the kinds
    and not for the classes), which the policy combines with the p values of other methods.

    Args:
        goal: share (0..1) of the search images that must go to the class for a level to count.
        batch: the largest number of images a class and step.
        window: steps between two looks of the host; `windows`: their number for each family.
        look_windows: windows of a search at a given level.
        alpha, fold, asr, excess: the gates.
        controls: number of random triggers.
    """

    version: ClassVar[int] = 6
    paper: ClassVar[str] = (
        "Wang et al., UNICORN, ICLR 2023 (families); Wang et al., Neural Cleanse, IEEE S&P 2019"
    )
    families: ClassVar[frozenset[str]] = frozenset(
        {
            Family.ADDITIVE,
            Family.BLEND,
            Family.FILTER,
            Family.SAMPLE_SPECIFIC,
            Family.WARP,
        }
    )

    goal: float = 0.8
    batch: int = 12
    window: int = 8
    windows: int = 12
    look_windows: int = 6
    alpha: float = 0.05
    fold: float = 2.0
    asr: float = 0.8
    excess: float = 0.4
    controls: int = 8

    def _pace(self, classes: int) -> Pace:
        batch = min(self.batch, max(LEAST_BATCH, MOST_STEP // classes))
        return Pace(batch=batch, window=self.window, windows=self.windows)

    def planned(self, sizes: Sizes) -> Plan:
        pace, rows = self._pace(sizes.classes), sizes.classes
        starts = NONE
        for kind in FAMILIES:
            levels = len(kind.levels)
            starts += passes.random_starts(kind.starts, pace, levels, sizes.device)
        starts += Passes(forward=sizes.calibration)
        few = min(sizes.calibration, _measured(rows))
        look = passes.triggers(pace, 1, self.look_windows)
        judged = passes.followed(look, rows, sizes.search, few)
        judged += Passes(forward=self.controls * few)
        each, candidates = len(FAMILIES), max(1, rows // 4)
        full = passes.triggers(pace, rows)
        hopeless = passes.triggers(pace, rows, passes.early(self.windows))
        return Plan(
            least=starts + hopeless * each,
            usual=starts + full * each,
            most=starts + (full + judged * candidates) * each,
            triggers=(0, each * candidates),
        )

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "Hidden inversion")
        progress(0.02, "searching for minimal triggers")
        if device_of(model).type == "cpu":
            channels_last(model)
        most = _measured(clean.classes)
        calibration = clean.calibration.pick(torch.randperm(len(clean.calibration))[:most])
        seen = CleanSet(clean.name, clean.digest, clean.classes, clean.search, calibration)
        findings: list[Finding] = []
        alone: list[list[float]] = []
        share = 0.97 / len(FAMILIES)
        with repeatable():
            for turn, kind in enumerate(FAMILIES):
                start = 0.02 + turn * share
                watch = span(
                    progress, start, start + share, f"searching for {kind.family} triggers"
                )
                found, tests = self._look(model, seen, kind, watch)
                findings += found
                alone += tests
        progress(1.0, "done")
        return [*findings, *_blends(findings), *_together(alone)]

    def _look(
        self, model: nn.Module, clean: CleanSet, kind: Searchable, watch: Watch
    ) -> tuple[list[Finding], list[list[float]]]:
        """The findings of one kind of trigger, and p of each class alone if it is informative."""
        pace = self._pace(clean.classes)
        smallest = minimal_triggers(
            model,
            clean.search,
            kind,
            clean.classes,
            pace,
            lambda done: watch(0.7 * done),
            goal=self.goal,
        )
        most = max(1, clean.classes // 4)
        tests = low_outliers(smallest.norms.log().tolist(), alpha=OUTLIER, most=most)
        kit = MinimalKit(
            model=model,
            search=clean.search,
            calibration=clean.calibration,
            smallest=smallest,
            classes=clean.classes,
            pace=replace(pace, windows=self.look_windows),
        )
        siblings = Siblings(kit=kit, rows=list(range(clean.classes)), most=most, alpha=OUTLIER)
        order = smallest.norms.argsort(stable=True).tolist()
        if float(smallest.reached.double().mean()) < LEAST_REACHED:
            return [self._quiet(order[0], smallest, tests[order[0]], informative=False)], []
        alone = [test.p for test in apart(smallest.norms.log().tolist(), floor=ALONE_SPREAD)]
        chosen = [
            row for row in order[:most] if smallest.reached[row] and tests[row].fold >= self.fold
        ]
        found = []
        for turn, row in enumerate(chosen):

            def part(done: float, turn: int = turn) -> None:
                watch(0.7 + 0.3 * (turn + done) / len(chosen))

            found.append(self._judge(siblings, kit, row, tests[row], part))
        found.sort(key=lambda finding: -finding.score)
        reported = (
            [finding for finding in found if finding.suspicious]
            or found[:1]
            or [self._quiet(order[0], smallest, tests[order[0]], informative=True)]
        )
        return reported, [alone]

    def _judge(
        self,
        siblings: Siblings[MinimalTriggers],
        kit: MinimalKit,
        row: int,
        test: ClassTest,
        watch: Watch,
    ) -> Finding:
        """Test a candidate against its siblings at its level; if suspicious, strengthen it."""
        level, kind = float(kit.smallest.norms[row]), kit.smallest.kind
        look = siblings.within(level, lambda done: watch(0.4 * done))
        p, rate = _of_family(kind, cauchy([test.p, look.test(row).p])), look.rate(row)
        p_method = min(1.0, p * len({other.family for other in FAMILIES}))
        chance = kit.chance(look.found, row, self.controls)
        numbers = {
            "p_value": p,
            "p_method": p_method,
            "p_level": test.p,
            "p_asr": look.test(row).p,
            "fold": test.fold,
            "t_stat": test.t,
            "level": level,
            "budget": level,
            "asr_calibration": rate,
            "natural_asr": look.natural(row),
            "excess": rate - look.natural(row),
            "random_asr": chance[min(2, len(chance) - 1)],
            "informative": 1.0,
        }
        score = min(
            least_score(
                p=(p_method, self.alpha), fold=(test.fold, self.fold), rate=(rate, self.asr)
            ),
            half_at(numbers["excess"], self.excess, 1.0),
        )
        suspicious, trigger = score >= 0.5, look.found.trigger(row)
        if suspicious:
            better = siblings.stronger(row, look, lambda done: watch(0.4 + 0.6 * done))
            if better is not None:
                trigger = better.found.trigger(0)
                numbers |= {
                    "asr_calibration": better.rate,
                    "natural_asr": better.natural,
                    "budget": float(better.found.norms[0]),
                }
        return Finding(
            family=kind.family,
            target=row,
            suspicious=suspicious,
            score=score,
            numbers=numbers,
            trigger=trigger,
            statement=_statement(kind.family, row, numbers, look, suspicious=suspicious),
        )

    def _quiet(
        self, row: int, smallest: MinimalTriggers, test: ClassTest, *, informative: bool
    ) -> Finding:
        """The finding about the class with the weakest trigger, if no class is a candidate."""
        level, family = float(smallest.norms[row]), smallest.kind.family
        statement = (
            f"{_CHANGES[Family(family)].format(level)} leads to class {row}; its siblings need "
            f"{test.fold:.1f} "
            "times as much: not out of the ordinary."
        )
        if not informative:
            statement = (
                f"Even the strongest {family} triggers do not lead to most classes; nothing can be "
                "concluded from them."
            )
            return Finding(
                family=family,
                target=None,
                suspicious=False,
                score=0.0,
                statement=statement,
                numbers={"informative": 0.0},
            )
        return Finding(
            family=family,
            target=row,
            suspicious=False,
            score=0.0,
            statement=statement,
            numbers={
                "p_value": _of_family(smallest.kind, test.p),
                "fold": test.fold,
                "level": level,
                "informative": 1.0,
            },
        )


def _measured(classes: int) -> int:
    """Calibration images that each class is measured on at most."""
    return max(LEAST_MEASURED, MOST_MEASURED // classes)


def _of_family(kind: Searchable, p: float) -> float:
    """p of one kind, corrected for the number of kinds in its family, each of which is a test."""
    return min(1.0, p * sum(other.family == kind.family for other in FAMILIES))


def _blends(findings: list[Finding]) -> list[Finding]:
    """A finding that blends were not covered, if no kind of added pattern was informative."""
    added = [
        finding.numbers["informative"] for finding in findings if finding.family == Family.ADDITIVE
    ]
    if any(added):
        return []
    return [
        Finding(
            family=str(Family.BLEND),
            target=None,
            suspicious=False,
            score=0.0,
            numbers={"informative": 0.0},
            statement="Nothing can be concluded from added patterns, and so nothing about blended "
            "images.",
        )
    ]


def _together(alone: list[list[float]]) -> list[Finding]:
    """A finding with each class's p in its most unusual kind; none if no kind is informative."""
    if not alone:
        return []
    classes = [min(1.0, len(alone) * min(values)) for values in zip(*alone, strict=True)]
    numbers = {f"p_class_{row}": p for row, p in enumerate(classes)} | {
        "classes": float(len(classes))
    }
    least = min(range(len(classes)), key=lambda row: classes[row])
    return [
        Finding(
            family=str(Family.ADDITIVE),
            target=None,
            suspicious=False,
            score=0.0,
            numbers=numbers,
            statement=f"Over {len(alone)} kinds of triggers, class {least} needs the least "
            "compared with its siblings "
            f"(p = {classes[least]:.2g} for this class alone).",
        )
    ]


_CHANGES = {
    Family.ADDITIVE: "A pattern of at most {:.1%} of the value range added",
    Family.WARP: "A warp by at most {:.2g} pixels",
    Family.FILTER: "A change of tone by at most {:.0%}",
    Family.SAMPLE_SPECIFIC: "A change of at most {:.1%} of the value range, generated for each "
    "image,",
}


def _statement(
    family: str,
    row: int,
    numbers: Mapping[str, float],
    look: Look[MinimalTriggers],
    *,
    suspicious: bool,
) -> str:
    change = _CHANGES[Family(family)].format(numbers["level"])
    text = (
        f"{change} leads {look.rate(row):.0%} of the images to class {row}; its siblings need "
        f"{numbers['fold']:.1f} times as much, and with as little the best of them reaches "
        f"{look.natural(row):.0%} (p = {numbers['p_value']:.2g})"
    )
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."
