"""The pair: rank classes by two views of the network that follow no gradient.

Steps:
    1. refuse models and clean sets that cannot be judged
    2. measure how badly each class's row of the head is aligned with its images
    3. measure how much each class absorbs random changes, of two batteries
    4. subtract what small networks trained on the clean set show (kept with the clean set)
    5. test each class against its siblings by both views together
"""

from dataclasses import dataclass
from typing import ClassVar

from guard.detectors._views import ByViews
from guard.ml.search.class_ranking import ALIGNMENT, ATTRACTION


@dataclass(frozen=True, kw_only=True)
class Pair(ByViews):
    """Head alignment and attractor together, by Stouffer's method.

    Source: our own design; see `guard.ml.search.class_views`. It names the classes that searches
    should look at first. A finding is suspicious if `p_ranking` <= `alpha`, a level that is
    provisional: natural attractors are many, and honest models have not been measured enough, so no
    packaged policy has this detector. Where no head is found, the attractor alone is used. With
    fewer than seven classes nothing is tested.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none; the alignment of head and class means: arXiv 2411.12914"
    names: ClassVar[tuple[str, ...]] = (ALIGNMENT, ATTRACTION)
    called: ClassVar[str] = "The pair"
