"""How numbers with thresholds become one score in 0..1."""

import math


def least_score(
    *, p: tuple[float, float], fold: tuple[float, float], rate: tuple[float, float]
) -> float:
    """The least of three linear scores in 0..1, each 0.5 at its gate.

    Each argument is (value, gate).

    log p is 1 at the gate squared, log fold likewise, a rate at 1. So it is at least 0.5 exactly if
    all gates hold.
    """
    return min(
        half_at_log(p[0], p[1], p[1] ** 2),
        half_at_log(fold[0], fold[1], fold[1] ** 2),
        half_at(rate[0], rate[1], 1.0),
    )


def half_at(value: float, gate: float, full: float) -> float:
    """0.5 at `gate`, 1 at `full`, linear, within 0..1; `full` may lie below `gate`."""
    return min(1.0, max(0.0, 0.5 + 0.5 * (value - gate) / (full - gate)))


def half_at_log(value: float, gate: float, full: float) -> float:
    """As `half_at` on a log scale.

    For p values and ratios, all positive but for `value`, which may be 0.
    """
    return half_at(math.log(max(value, 1e-300)), math.log(gate), math.log(full))
