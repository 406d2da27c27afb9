"""A verdict with its reasons, before the facts are added."""

from dataclasses import dataclass

from guard.core.states import Verdict


@dataclass(frozen=True)
class Ruling:
    """What the rules say; `natural`: only triggers that siblings have as well were found.

    `blind`: a copy is to be repaired though no trigger is proven.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    repairable: bool = False
    natural: bool = False
    blind: bool = False
