"""All-to-all by levels: a trigger that scatters the classes needs less than one towards a class.

Steps, for each stamp (patch, blend, warp):
    1. search for the smallest level at which some trigger drives images out of their classes to
       several others, from several starts, whatever the mapping of classes is
    2. search for the smallest level of a trigger towards each class, with the same schedule: the
       median of these is what the network shows without a backdoor
    3. read the mapping pi from the search images, and measure its rate on the calibration images
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guard.core.evidence import Finding
from guard.core.planned import Passes, Plan, Sizes
from guard.core.progress import Progress, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.scoring import half_at, half_at_log
from guard.ml.search import passes
from guard.ml.search.engine import Pace, Targets, TriggerSearch, Watch
from guard.ml.search.families import Blends, Patches, Searchable, Warps
from guard.ml.search.label_permutations import cyclic_share, mapping_of
from guard.ml.search.scattered import Scattered, smallest_levels
from guard.ml.suitability import channels_last, check_suitable
from guard.ml.triggers import BlendTrigger, MappedTrigger, PatchTrigger, WarpTrigger

#: A search begins at the largest level; a patch covers half of the image then.
STAMPS: tuple[Searchable, ...] = (
    Patches(levels=(0.00625, 0.5)),
    Blends(levels=(0.05, 0.4)),
    Warps(levels=(0.5, 3.0)),
)
FEW_CLASSES = 12  # with more there is one image of a class in a step instead of two
MOST_MEASURED = 300  # calibration images


@dataclass(frozen=True, kw_only=True)
class AllToAllLevels(Detector):
    """One trigger for all classes, judged by the level that single classes need.

    Source: our own design; the setting is the all-to-all attack of BadNets (Gu et al., 2017), but
    no mapping is assumed. `all_to_all` compares rates at one level with a control under permuted
    labels; this one compares levels at one rate with those of single classes. With pi(i) the most
    frequent wrong class of class i, `x2x_asr` is the mean over i of the share of class i that goes
    to pi(i), `distinct` the number of different pi(i), `spread` = x2x_asr * distinct / K, and
    `ratio` the median level of single classes over this trigger's. A finding is suspicious if
    spread >= `spread` and ratio >= `ratio`. There is one finding, of the most suspicious stamp.

    Args:
        starts: triggers that are searched for at once; the best on the search images counts.
        stamps: how many stamps are tried: patches, then blends, then warps.
        window, windows: steps between two looks of the host, and their number.
        images: images in a step of the searches towards single classes.
        fooled, entropy: shares (0..1) at which a level works: of images that leave their class, and
            of log K that the entropy of where they go reaches.
        goal: the share (0..1) of images at which a level towards a class works.
        spread, ratio: the gates.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none; the setting: Gu et al., BadNets, 2017 (all-to-all)"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ALL)})

    starts: int = 6
    stamps: int = 3
    window: int = 7
    windows: int = 11
    images: int = 4
    fooled: float = 0.7
    entropy: float = 0.6
    goal: float = 0.8
    spread: float = 0.5
    ratio: float = 2.0

    @classmethod
    def quick(cls) -> dict[str, Any]:
        return {"starts": 2, "stamps": 1, "windows": 6}

    def _paces(self, classes: int) -> tuple[Pace, Pace]:
        """Of the searches towards single classes, and of the one for all."""
        each = 2 if classes <= FEW_CLASSES else 1
        single = Pace(batch=self.images, window=self.window, windows=self.windows, least=0)
        return single, replace(single, batch=each * classes)

    def planned(self, sizes: Sizes) -> Plan:
        single, wide = self._paces(sizes.classes)
        votes = self.starts * (sizes.search + min(sizes.calibration, MOST_MEASURED))
        each = passes.triggers(single, sizes.classes) + passes.triggers(wide, self.starts)
        stamps = (each + Passes(forward=votes)) * len(STAMPS[: self.stamps])
        return Plan.exactly(stamps + Passes(forward=sizes.calibration), triggers=1)

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        progress(0.01, "checking")
        check_suitable(model, clean, "The all-to-all search by levels")
        if device_of(model).type == "cpu":
            channels_last(model)
        found, share = [], 0.97 / self.stamps
        with repeatable():
            for turn, kind in enumerate(STAMPS[: self.stamps]):
                start, note = 0.02 + turn * share, f"scattering classes by {kind.family}"
                found.append(
                    self._look(model, clean, kind, span(progress, start, start + share, note))
                )
        progress(1.0, "done")
        return [max(found, key=lambda finding: finding.score)]

    def _look(self, model: nn.Module, clean: CleanSet, kind: Searchable, watch: Watch) -> Finding:
        classes, device, top = clean.classes, device_of(model), kind.levels[-1]
        labels = clean.search.labels.to(device)
        pace, wide = self._paces(classes)
        aim = Targets(torch.arange(classes, device=device), labels)
        single = TriggerSearch(model, kind, clean.search, aim, pace, top)
        usual = smallest_levels(
            single, lambda rates: rates >= self.goal, lambda done: watch(0.4 * done)
        )
        scattered = Scattered(labels, classes, self.starts)
        search = TriggerSearch(model, kind, clean.search, scattered, wide, top)
        levels = smallest_levels(
            search,
            lambda rates: (rates >= self.fooled) & (scattered.entropies() >= self.entropy),
            lambda done: watch(0.4 + 0.5 * done),
        )
        median = float(usual.levels.median())
        votes = search.votes(clean.search, classes)
        spreads = torch.stack([_spread(one, mapping_of(one))[0] for one in votes])
        scores = [
            self._score(float(spread), median / float(level))
            for spread, level in zip(spreads, levels.levels, strict=True)
        ]
        best = max(range(self.starts), key=lambda row: (scores[row], float(spreads[row])))
        mapping = mapping_of(votes[best])
        few = clean.calibration.pick(torch.randperm(len(clean.calibration))[:MOST_MEASURED])
        spread, rate = _spread(search.votes(few, classes)[best], mapping)
        watch(1.0)
        return self._finding(search, best, mapping, (float(spread), float(rate)), median)

    def _score(self, spread: float, ratio: float) -> float:
        return min(half_at(spread, self.spread, 1.0), half_at_log(ratio, self.ratio, self.ratio**3))

    def _finding(
        self,
        search: TriggerSearch,
        row: int,
        mapping: Tensor,
        seen: tuple[float, float],
        median: float,
    ) -> Finding:
        (spread, rate), level = seen, float(search.level[row])
        distinct, ratio = len(mapping.unique()), median / level
        score = self._score(spread, ratio)
        suspicious = score >= 0.5
        stamp = search.trigger(row)
        assert isinstance(stamp, (PatchTrigger, BlendTrigger, WarpTrigger))  # noqa: S101 - for mypy
        pairs = ", ".join(
            f"{label} to {other}" for label, other in enumerate(mapping.tolist()[:10])
        )
        more = "" if len(mapping) <= 10 else ", ..."
        text = (
            f"One {search.kind.family} trigger leads {rate:.0%} of each class's images to one "
            f"other class ({pairs}{more}), {distinct} different ones, at a level of {level:.2g}; a "
            f"trigger towards a single class needs {median:.2g} in the middle"
        )
        return Finding(
            family=str(Family.ALL_TO_ALL),
            target=str(Family.ALL_TO_ALL),
            suspicious=suspicious,
            score=score,
            numbers={
                "x2x_asr": rate,
                "spread": spread,
                "distinct": float(distinct),
                "cyclic": cyclic_share(mapping),
                "ratio": ratio,
                "budget": level,
                "usual": median,
            },
            trigger=MappedTrigger(stamp, mapping),
            statement=f"{text}." if suspicious else f"{text}: not out of the ordinary.",
        )


def _spread(votes: Tensor, mapping: Tensor) -> tuple[Tensor, Tensor]:
    """The rate of `mapping` in K,K votes times its share of distinct classes, and the rate."""
    hits = votes.gather(1, mapping[:, None])[:, 0].double()
    trials = votes.sum(1).double()
    rate = (hits / trials.clamp(min=1)).sum() / (trials > 0).sum()
    return rate * len(mapping.unique()) / len(mapping), rate
