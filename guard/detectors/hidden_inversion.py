"""Trigger inversion for what no patch shows.

Is one class reached by a far fainter change than its siblings need?

Steps, for each kind of trigger (fine and smooth patterns and waves that are added; warp, filter,
sample-specific):
    1. for every class the faintest trigger that sends `goal` of the search pictures there
       (`guard.ml.search.minimal`)
    2. classes whose level is at least `fold` times under their siblings', and whose trigger works
       on the calibration pictures, are candidates; without one, nothing is suspicious
    3. per candidate: what does *every* class reach at the candidate's level? (natural ASR)
    4. outlier tests on the log levels and on those rates (as angles), combined; then the gates on
       p, fold and ASR
    5. a suspicious class gets the strongest trigger that leaves the siblings behind
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from guard.core.evidence import Finding
from guard.core.progress import Progress, span
from guard.core.pvalues import cauchy
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, least_score
from guard.ml.search.engine import Pace, Watch
from guard.ml.search.families import Additions, Filters, Generators, Searchable, Warps, Waves
from guard.ml.search.minimal import Faint, FaintKit, faintest
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
MOST_STEP = 240  # pictures a step, all classes together; with many classes each gets fewer
LEAST_BATCH = 3
MOST_MEASURED = 4000  # calibration pictures under a trigger, all classes together
LEAST_MEASURED = 100
OUTLIER = 0.01  # level at which a class counts as an outlier itself, and no longer as a sibling
# Of log levels, the least that is believed where a class is judged with other methods' words
ALONE_SPREAD = 0.1
LEAST_REACHED = 0.5  # of the classes: where fewer are reached at all, levels do not tell them apart


@dataclass(frozen=True, kw_only=True)
class HiddenInversion(Detector):
    """Universal triggers of six kinds for all classes at once.

    Each class at the faintest level that works.

    Source: detection.md 7.4 (our own design); the families are those of UNICORN (Wang et al., ICLR
    2023), without its feature-space masks: clip(x + e tanh u), a bicubic flow, a tone curve, clip(x
    + e tanh G(x)) with a small network a
    class. Deviations from the design: not the rates of all classes at one common level decide, but
    each class's own least level, as the norm does for patches: at a common level either every class
    is reached or none. What is added is searched among all patterns, smooth ones and single waves
    apart, since networks are so fragile to fine noise that beside it a smooth trigger does not
    stand out; p is corrected for the kinds of one family. A picture that is mixed in is found as
    what it adds, so the additive family speaks about blends too; where it could tell nothing, a
    finding without numbers says so of blends.

    A finding is suspicious if `p_method` <= `alpha` (`p_value` corrected for the families, so that
    `alpha` is the level of the whole method), fold >= `fold`, ASR on the calibration part >= `asr`,
    and `excess` over what the best sibling reaches at its level; its score is at least 0.5 exactly
    then. `level` is the faintest level that worked, `budget` that of the trigger that the finding
    carries; `random_asr` is what the third best of `controls` random triggers at the faintest level
    reaches. The last finding accuses nobody: it says for every class how unusual its level is in
    the kind where it is most so (`p_class_0` and so on, corrected for the kinds and not for the
    classes), for what several methods say of one class together.

    Args:
        goal: share of the search pictures that must arrive for a level to count.
        batch: pictures a class and step, at most.
        window: steps between two looks of the host; `windows`: how many, a family.
        look_windows: of a search at a given level.
    """

    version: ClassVar[int] = 5
    paper: ClassVar[str] = (
        "Wang et al., UNICORN, ICLR 2023 (families); Wang et al., Neural Cleanse, IEEE S&P 2019"
    )
    families: ClassVar[frozenset[str]] = frozenset(
        {*(kind.family for kind in FAMILIES), str(Family.BLEND)}
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

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "Hidden inversion")
        progress(0.02, "searching for faint triggers")
        if device_of(model).type == "cpu":
            channels_last(model)
        measured = max(LEAST_MEASURED, MOST_MEASURED // clean.classes)
        calibration = clean.calibration.pick(torch.randperm(len(clean.calibration))[:measured])
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
        """All that one family says.

        And p of each class alone, in a list that is empty where it tells nothing.
        """
        batch = min(self.batch, max(LEAST_BATCH, MOST_STEP // clean.classes))
        pace = Pace(batch=batch, window=self.window, windows=self.windows)
        smallest = faintest(
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
        kit = FaintKit(
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
        told = (
            [finding for finding in found if finding.suspicious]
            or found[:1]
            or [self._quiet(order[0], smallest, tests[order[0]], informative=True)]
        )
        return told, [alone]

    def _judge(
        self, siblings: Siblings[Faint], kit: FaintKit, row: int, test: ClassTest, watch: Watch
    ) -> Finding:
        """A candidate against its siblings at its own level.

        Its strongest trigger if it is suspicious.
        """
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

    def _quiet(self, row: int, smallest: Faint, test: ClassTest, *, informative: bool) -> Finding:
        """The class with the faintest trigger, where none is a candidate."""
        level, family = float(smallest.norms[row]), smallest.kind.family
        words = (
            f"{_WORDS[Family(family)].format(level)} leads to class {row}; its siblings need "
            f"{test.fold:.1f} "
            "times as much: not out of the ordinary."
        )
        if not informative:
            words = (
                f"Even the strongest {family} triggers do not lead to most classes; they tell "
                "nothing here."
            )
            return Finding(
                family=family,
                target=None,
                suspicious=False,
                score=0.0,
                statement=words,
                numbers={"informative": 0.0},
            )
        return Finding(
            family=family,
            target=row,
            suspicious=False,
            score=0.0,
            statement=words,
            numbers={
                "p_value": _of_family(smallest.kind, test.p),
                "fold": test.fold,
                "level": level,
                "informative": 1.0,
            },
        )


def _of_family(kind: Searchable, p: float) -> float:
    """p of one kind, corrected for the kinds of its family: each was a look."""
    return min(1.0, p * sum(other.family == kind.family for other in FAMILIES))


def _blends(findings: list[Finding]) -> list[Finding]:
    """That nothing can be told of blends, where nothing could be of any pattern that is added.

    Else nothing.
    """
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
            statement="Patterns that are added tell nothing here, and so nothing of pictures "
            "mixed in.",
        )
    ]


def _together(alone: list[list[float]]) -> list[Finding]:
    """Each class at its most unusual kind, for other methods to add their words.

    Nothing where no kind could tell.
    """
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
            statement=f"Over {len(alone)} kinds of triggers class {least} needs the least beside "
            "its siblings "
            f"(p = {classes[least]:.2g} for this class alone).",
        )
    ]


_WORDS = {
    Family.ADDITIVE: "A pattern of at most {:.1%} of the value range added",
    Family.WARP: "A bending by at most {:.2g} pixels",
    Family.FILTER: "A change of tone by at most {:.0%}",
    Family.SAMPLE_SPECIFIC: "A change of at most {:.1%} of the value range, drawn anew for each "
    "picture,",
}


def _statement(
    family: str, row: int, numbers: Mapping[str, float], look: Look[Faint], *, suspicious: bool
) -> str:
    words = _WORDS[Family(family)].format(numbers["level"])
    text = (
        f"{words} leads {look.rate(row):.0%} of the pictures to class {row}; its siblings need "
        f"{numbers['fold']:.1f} times as much, and with as little the best of them reaches "
        f"{look.natural(row):.0%} (p = {numbers['p_value']:.2g})"
    )
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."
