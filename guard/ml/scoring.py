"""One score in 0..1 from several numbers with thresholds."""

import math


def least_score(
    *, p: tuple[float, float], fold: tuple[float, float], rate: tuple[float, float]
) -> float:
    """The least of three linear scores in 0..1, each of which is 0.5 at its gate.

    Each argument is (value, gate). The scores of log p and log fold reach 1 at the square of the
    gate, that of a rate at a rate of 1. The result is at least 0.5 exactly if all three gates hold.
    """
    return min(
        half_at_log(p[0], p[1], p[1] ** 2),
        half_at_log(fold[0], fold[1], fold[1] ** 2),
        half_at(rate[0], rate[1], 1.0),
    )


def half_at(value: float, gate: float, full: float) -> float:
    """Linear score: 0.5 at `gate`, 1 at `full`, clipped to 0..1; `full` may lie below `gate`."""
    return min(1.0, max(0.0, 0.5 + 0.5 * (value - gate) / (full - gate)))


def half_at_log(value: float, gate: float, full: float) -> float:
    """`half_at` on a log scale, for p values and ratios; only `value` may be 0."""
    return half_at(math.log(max(value, 1e-300)), math.log(gate), math.log(full))
