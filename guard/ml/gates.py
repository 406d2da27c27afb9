"""How numbers with thresholds become one score, and how a step fills its part of a progress."""

import math
from collections.abc import Callable

from guard.core.contracts import Progress


def least_score(*, p: tuple[float, float], fold: tuple[float, float], rate: tuple[float, float]) -> float:
    """The least of three linear scores in 0..1, each 0.5 at its gate; each argument is (value, gate).

    log p is 1 at the gate squared, log fold likewise, a rate at 1. So it is at least 0.5 exactly if all gates hold.
    """
    return min(
        half_at(math.log(max(p[0], 1e-300)), math.log(p[1]), 2 * math.log(p[1])),
        half_at(math.log(max(fold[0], 1e-300)), math.log(fold[1]), 2 * math.log(fold[1])),
        half_at(rate[0], rate[1], 1.0),
    )


def half_at(value: float, gate: float, full: float) -> float:
    """0.5 at `gate`, 1 at `full`, linear, within 0..1."""
    return min(1.0, max(0.0, 0.5 + 0.5 * (value - gate) / (full - gate)))


def span(progress: Progress, start: float, end: float, note: str) -> Callable[[float], None]:
    """The part of a progress that one step fills."""
    return lambda done: progress(start + (end - start) * done, note)
