"""Attractor: rank classes by how much they absorb random changes of images.

Steps:
    1. refuse models and clean sets that cannot be judged
    2. draw batteries of changes from the installation's secret, and count where the changed images
       of other classes go
    3. subtract what small networks trained on the clean set show (kept with the clean set)
    4. test each class against its siblings
"""

from dataclasses import dataclass
from typing import ClassVar

from guard.detectors._views import ByViews
from guard.ml.search.class_ranking import ATTRACTION


@dataclass(frozen=True, kw_only=True)
class Attractor(ByViews):
    """The attraction of `guard.ml.search.class_views` alone; `pair` uses it with another view.

    Source: our own design. Parameters and numbers are those of `pair`.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none"
    names: ClassVar[tuple[str, ...]] = (ATTRACTION,)
    called: ClassVar[str] = "The attractor"
