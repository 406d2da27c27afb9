"""The pair: rank classes by two views of the network that follow no gradient.

Steps:
    1. refuse models and clean sets that cannot be judged
    2. measure how badly each class's row of the head is aligned with its images
    3. measure how much each class absorbs random changes, of two batteries
    4. subtract what small networks trained on the clean set show (kept with the clean set)
    5. test each class against its siblings by both views together
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from guard.core.evidence import Finding
from guard.core.progress import Progress, silent, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.search.class_ranking import ALIGNMENT, ATTRACTION, ranked, views_of
from guard.ml.search.natural_views import natural_views
from guard.ml.suitability import channels_last, check_suitable


@dataclass(frozen=True, kw_only=True)
class Pair(Detector):
    """Head alignment and attractor together, by Stouffer's method.

    Source: our own design; see `guard.ml.search.class_views`. It names the classes that searches
    should look at first. A finding is suspicious if `p_ranking` <= `alpha`, a level that is
    provisional: natural attractors are many, and honest models have not been measured enough, so no
    packaged policy has this detector. Where no head is found, the attractor alone is used. With
    fewer than seven classes nothing is tested.

    Args:
        alpha: the gate.
        batteries: how many batteries of changes are tried, each on other images.
        references: how many networks are trained on the clean set; 0 for none.
        rounds: passes over the clean set in their training.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none; the alignment of head and class means: arXiv 2411.12914"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})
    searches: ClassVar[bool] = False
    draws_battery: ClassVar[bool] = True

    alpha: float = 0.001
    batteries: int = 2
    references: int = 2
    rounds: int = 20

    @classmethod
    def quick(cls) -> dict[str, Any]:
        return {"batteries": 1, "references": 0}

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        progress(0.01, "checking")
        check_suitable(model, clean, "The pair")
        if device_of(model).type == "cpu":
            channels_last(model)
        with repeatable():
            views, referenced = views_of(
                model,
                clean,
                names=(ALIGNMENT, ATTRACTION),
                batteries=self.batteries,
                references=self.references,
                rounds=self.rounds,
                watch=span(progress, 0.02, 0.98, "comparing classes"),
            )
        progress(1.0, "done")
        return ranked(views, alpha=self.alpha, referenced=referenced, drawn=True)

    def prepare(
        self, clean: CleanSet, device: torch.device, *, progress: Progress = silent
    ) -> None:
        """Train the references, which takes longer than all the rest."""
        with repeatable():
            natural_views(
                clean,
                self.references,
                self.rounds,
                self.batteries,
                lambda done: progress(done, "training reference models"),
                device,
            )
