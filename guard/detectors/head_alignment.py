"""Head alignment: rank classes by how badly their row of the head fits their own images.

Steps:
    1. refuse models and clean sets that cannot be judged, and networks without a head
    2. correlate each class's row with its class mean, in units of the features' spread
    3. test each class against its siblings
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.planned import Plan, Sizes
from guard.core.progress import Progress
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.cleanset import CleanSet
from guard.ml.precision import repeatable
from guard.ml.search import passes
from guard.ml.search.class_ranking import ALIGNMENT, ranked
from guard.ml.search.class_views import LEAST_IMAGES, deviates, head_alignment
from guard.ml.suitability import check_suitable


@dataclass(frozen=True, kw_only=True)
class HeadAlignment(Detector):
    """The head alignment of `guard.ml.search.class_views` alone; `pair` uses it with another view.

    Source: our own design, after the self-duality of neural collapse. Numbers are those of `pair`.
    It takes a fraction of a second, so no reference network is trained for it.

    Args:
        alpha: the gate; provisional, as in `pair`.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none; the alignment of head and class means: arXiv 2411.12914"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})
    searches: ClassVar[bool] = False

    alpha: float = 0.001

    def planned(self, sizes: Sizes) -> Plan:
        return passes.views(sizes, (ALIGNMENT,), 0)

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        progress(0.01, "checking")
        check_suitable(model, clean, "Head alignment")
        progress(0.2, "finding the last layer")
        with repeatable():
            values = head_alignment(model, clean)
        progress(0.7, "comparing classes")
        if values is None:
            raise MethodFailed(
                "Head alignment needs a last linear layer with one output a class and "
                f"{LEAST_IMAGES} clean images with two of each class; one of these is missing.",
                code="no_head",
            )
        views = {ALIGNMENT: deviates(values.tolist())}
        progress(0.9, "comparing classes")
        findings = ranked(views, alpha=self.alpha, referenced=False, drawn=False)
        progress(1.0, "done")
        return findings
