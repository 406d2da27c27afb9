"""What detectors share that rank classes by views of `guard.ml.search.class_views`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from guard.core.evidence import Finding
from guard.core.planned import Plan, Sizes
from guard.core.progress import Progress, silent, span
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.precision import repeatable
from guard.ml.search import passes
from guard.ml.search.class_ranking import ranked, views_of
from guard.ml.search.natural_views import is_kept, natural_views
from guard.ml.suitability import channels_last, check_suitable


@dataclass(frozen=True, kw_only=True)
class ByViews(Detector):
    """Ranks classes by the views `names`, of which attraction draws batteries of changes.

    Args:
        alpha: the gate; provisional.
        batteries: how many batteries of changes are tried, each on other images.
        references: how many networks are trained on the clean set; 0 for none.
        rounds: passes over the clean set in their training.
    """

    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})
    searches: ClassVar[bool] = False
    draws_battery: ClassVar[bool] = True
    names: ClassVar[tuple[str, ...]]
    called: ClassVar[str]
    """The method's name at the beginning of a sentence."""

    alpha: float = 0.001
    batteries: int = 2
    references: int = 2
    rounds: int = 20

    @classmethod
    def quick(cls) -> dict[str, Any]:
        return {"batteries": 1, "references": 0}

    def planned(self, sizes: Sizes) -> Plan:
        return passes.views(sizes, self.names, self.batteries, self.references, self.rounds)

    def prepared(self, clean: CleanSet, device: torch.device) -> bool:
        return is_kept(clean, self.references, self.rounds, self.batteries, device)

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        progress(0.01, "checking")
        check_suitable(model, clean, self.called)
        if device_of(model).type == "cpu":
            channels_last(model)
        with repeatable():
            views, referenced = views_of(
                model,
                clean,
                names=self.names,
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
