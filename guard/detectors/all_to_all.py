"""All-to-all inversion: find one weak trigger that sends every class to one other class.

Steps, for each stamp (patch, blend, warp):
    1. optimise some tries and one control together, from the strongest level downwards; the control
       sees the same images under permuted labels, where no trigger can move a class as a whole
    2. keep the largest level at which the control fails, or else the smallest level. If the control
       succeeds, it has found a trigger that sends all images to one class. If it fails, not even
       the easiest class can be reached, so the level is lower than that of any class's all-to-one
       trigger
    3. read the mapping pi from the search images, and measure its rate and the control's on the
       calibration images
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from guard.core.evidence import Finding
from guard.core.planned import NONE, Passes, Plan, Sizes
from guard.core.progress import Progress, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, half_at_log
from guard.ml.search import passes
from guard.ml.search.engine import Pace, TriggerSearch, Watch, descend
from guard.ml.search.families import Blends, Patches, Searchable, Warps
from guard.ml.search.label_permutations import Departures, cyclic_share, mapping_of, shuffled
from guard.ml.suitability import channels_last, check_suitable
from guard.ml.triggers import BlendTrigger, MappedTrigger, PatchTrigger, WarpTrigger

STAMPS: tuple[Searchable, ...] = (
    Patches(),
    Blends(),
    Warps(levels=(0.5, 0.75, 1.0, 1.5, 2.0, 3.0)),
)
MOST_STEP = 200  # images a step; with many classes there are fewer of each
MOST_MEASURED = 1000  # calibration images
# A stamp that does not reach this rate in half of the time will not pass the gate in the rest
HOPELESS = 0.3


@dataclass(frozen=True, kw_only=True)
class AllToAll(Detector):
    """One trigger for all classes, and the class to which it sends each of them.

    Source: our own design. The setting is the all-to-all attack of BadNets (Gu et al., 2017) and
    the X2X attacks of UMD (Xiang et al., ICML 2023). With pi the mapping of classes, `x2x_asr` is
    the mean over classes i of the share of class i that goes to pi(i), `distinct` the number of
    different pi(i), `cyclic` the share of classes that the best shift explains. If the rate of the
    control exceeds 1 / `ratio` even at the smallest level, `informative` is 0: no rate could pass
    the gate.

    A finding is suspicious if x2x_asr >= `asr` and at least `ratio` times the control's, and at
    least the share `images` of all classes are some pi(i): fewer mean an all-to-one backdoor, which
    other detectors cover, or a few classes that attract images in any model. `score` is the least
    of three scores, each 0.5 at its gate. `natural_asr` is the control's rate. There is one
    finding, of the most suspicious stamp.

    Args:
        ceiling: the rate (0..1) that the control may reach at the level that is kept.
        tries: rows besides the control; the best on the search images counts.
        per_class: the largest number of images of a class in a step.
        window: steps between two looks of the host; `windows`: their number, over all levels of a
            stamp together.
        least: windows at the level that is kept.
        asr, ratio: gates on the rate.
        images: gate (0..1) on the share of classes in the image of pi, not a number of images.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "Gu et al., BadNets, 2017 (all-to-all); Xiang et al., UMD, ICML 2023"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ALL)})

    ceiling: float = 0.4
    tries: int = 1
    per_class: int = 5
    window: int = 8
    windows: int = 12
    least: int = 3
    asr: float = 0.6
    ratio: float = 2.0
    images: float = 0.7

    def _pace(self, classes: int) -> Pace:
        batch = classes * max(2, min(self.per_class, MOST_STEP // classes))
        return Pace(batch=batch, window=self.window, windows=self.windows, least=self.least)

    def planned(self, sizes: Sizes) -> Plan:
        rows, found = self.tries + 1, [NONE, NONE, NONE]
        for kind in STAMPS:
            more = passes.descent(self._pace(sizes.classes), len(kind.levels), rows)
            found = [one + other for one, other in zip(found, more, strict=True)]
        votes = 2 * rows * (sizes.search + min(sizes.calibration, MOST_MEASURED)) * len(STAMPS)
        least, usual, most = (one + Passes(forward=sizes.calibration + votes) for one in found)
        return Plan(least=least, usual=usual, most=most, triggers=(1, 1))

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        check_suitable(model, clean, "All-to-all inversion")
        progress(0.02, "searching for mappings")
        if device_of(model).type == "cpu":
            channels_last(model)
        calibration = clean.calibration.pick(torch.randperm(len(clean.calibration))[:MOST_MEASURED])
        seen = CleanSet(clean.name, clean.digest, clean.classes, clean.search, calibration)
        found: list[Finding] = []
        share = 0.97 / len(STAMPS)
        with repeatable():
            for turn, kind in enumerate(STAMPS):
                start = 0.02 + turn * share
                found.append(
                    self._look(
                        model,
                        seen,
                        kind,
                        span(
                            progress,
                            start,
                            start + share,
                            f"searching for mappings by {kind.family}",
                        ),
                    )
                )
        progress(1.0, "done")
        return [max(found, key=lambda finding: finding.score)]

    def _look(self, model: nn.Module, clean: CleanSet, kind: Searchable, watch: Watch) -> Finding:
        classes, device = clean.classes, device_of(model)
        control = shuffled(clean.search)
        labels = torch.stack([clean.search.labels] * self.tries + [control.labels]).to(device)
        pace = self._pace(classes)
        search = TriggerSearch(
            model, kind, clean.search, Departures(labels, classes), pace, kind.levels[-1]
        )

        def too_strong(rates: Tensor) -> bool:
            return float(rates[-1]) > self.ceiling

        descend(search, too_strong, lambda rates: float(rates[:-1].max()) < HOPELESS, watch)
        # The predictions do not depend on the labels; only the counts do.
        own = search.votes(clean.search, classes)
        other = search.votes(control, classes)[-1]
        best = int(_rates(own[:-1], mapping_of(own[:-1])).argmax())
        mapping, null = mapping_of(own[best]), mapping_of(other)
        calibration = clean.calibration
        rate = float(_rates(search.votes(calibration, classes)[best], mapping))
        control_rate = float(_rates(search.votes(shuffled(calibration), classes)[-1], null))
        return self._finding(search, best, mapping, rate, control_rate)

    def _finding(
        self, search: TriggerSearch, row: int, mapping: Tensor, rate: float, control: float
    ) -> Finding:
        distinct = len(mapping.unique())
        ratio = rate / max(control, 1 / len(mapping))
        score = min(
            half_at(rate, self.asr, 1.0),
            half_at_log(ratio, self.ratio, self.ratio**2),
            half_at(distinct / len(mapping), self.images, 1.0),
        )
        numbers = {
            "x2x_asr": rate,
            "natural_asr": control,
            "ratio": ratio,
            "distinct": float(distinct),
            "cyclic": cyclic_share(mapping),
            "budget": float(search.level[row]),
            "informative": float(control * self.ratio <= 1),
        }
        suspicious = score >= 0.5
        stamp = search.trigger(row)
        assert isinstance(stamp, (PatchTrigger, BlendTrigger, WarpTrigger))  # noqa: S101 - for mypy
        return Finding(
            family=str(Family.ALL_TO_ALL),
            target=str(Family.ALL_TO_ALL),
            suspicious=suspicious,
            score=score,
            numbers=numbers,
            trigger=MappedTrigger(stamp, mapping),
            statement=_statement(search.kind.family, mapping, numbers, suspicious=suspicious),
        )


def _rates(votes: Tensor, mapping: Tensor) -> Tensor:
    """The mean share of the classes present that goes where `mapping` says, from ...,K,K votes."""
    hits = votes.gather(-1, mapping[..., None])[..., 0].double()
    trials = votes.sum(-1).double()
    return (hits / trials.clamp(min=1)).sum(-1) / (trials > 0).sum(-1)


def _statement(
    family: str, mapping: Tensor, numbers: Mapping[str, float], *, suspicious: bool
) -> str:
    if not numbers["informative"]:
        return (
            f"Even the weakest {family} trigger leads all classes to one; nothing can be concluded "
            "about mappings."
        )
    pairs = ", ".join(f"{label} to {other}" for label, other in enumerate(mapping.tolist()[:10]))
    more = "" if len(mapping) <= 10 else ", ..."
    text = (
        f"One {family} trigger leads {numbers['x2x_asr']:.0%} of each class's images to one "
        "other class "
        f"({pairs}{more}), {numbers['distinct']:.0f} different ones; under permuted labels the "
        "same search reaches "
        f"{numbers['natural_asr']:.0%}"
    )
    return f"{text}." if suspicious else f"{text}: not out of the ordinary."
