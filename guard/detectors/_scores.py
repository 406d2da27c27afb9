"""What detectors share about scores and progress: 0.5 at a gate, and one step's part of the whole."""

import math
from collections.abc import Callable

from guard.core.contracts import Progress


def half_at(value: float, gate: float, full: float) -> float:
    """0.5 at `gate`, 1 at `full`, linear, within 0..1; `full` may lie below `gate`."""
    return min(1.0, max(0.0, 0.5 + 0.5 * (value - gate) / (full - gate)))


def half_at_log(value: float, gate: float, full: float) -> float:
    """As `half_at` on a log scale; for p values and ratios, all positive but for `value`, which may be 0."""
    return half_at(math.log(max(value, 1e-300)), math.log(gate), math.log(full))


def span(progress: Progress, start: float, end: float, note: str) -> Callable[[float], None]:
    """The part of a progress, `start` to `end`, that one step fills."""
    return lambda done: progress(start + (end - start) * done, note)
