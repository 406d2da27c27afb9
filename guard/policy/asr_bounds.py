"""Upper bounds on attack success rates that hold for several looks at once; pure Python."""

import math
from collections.abc import Sequence

from guard.core.evidence import AsrEstimate, Evidence, Finding
from guard.core.pvalues import exact_upper

ERROR = 0.05  # two-sided, over all looks together: the upper side alone errs in at most 2.5 %
# How far the ASR of the attacker's own trigger may exceed the bound on the recovered one: the
# largest excess on ten detected development models was 0.038 (nine had at most 0.001). A
# calibration replaces this number by its own.
UNSEEN = 0.04


def overall(estimates: Sequence[AsrEstimate], looks: int | None = None) -> float:
    """An upper bound that holds for all of the rates at once.

    It is the largest of their bounds at error `ERROR` / `looks`.

    Args:
        looks: how many rates were measured, if `estimates` are a selection of them; by default
            all were. With one look the bound is the estimate's own `high` (Wilson).

    Returns:
        0..1; a bound that cannot be computed is 1. Never below an estimate's own `high`.
    """
    count = max(len(estimates) if looks is None else looks, len(estimates), 1)
    bounds = [_bound(estimate, count) for estimate in estimates]
    return max(bounds, default=1.0)


def of_suspects(
    usable: Sequence[Evidence], accused: Sequence[Finding], margin: float = UNSEEN
) -> float | None:
    """The overall bound on the accused triggers' ASR (0..1); None where nothing is accused.

    All rates that were measured for an accused class count as looks, in whatever family, suspicious
    or not: the accused ones are a selection from these, so that the bounds are simultaneous over
    the families examined. For an accused class whose trigger was not recovered the bound is 1.

    Args:
        margin: how far the ASR of the attacker's own trigger may exceed that of the recovered one:
            a search ends where a trigger works well, while the attacker trained for theirs.
    """
    if not accused:
        return None
    targets = {finding.target for finding in accused}
    measured = {finding.target for finding in accused if finding.asr is not None}
    if targets - measured:
        return 1.0
    looks = sum(
        finding.asr is not None and finding.target in targets
        for item in usable
        for finding in item.findings
    )
    bound = overall([finding.asr for finding in accused if finding.asr is not None], looks)
    return min(1.0, bound + margin) if math.isfinite(margin) and margin >= 0 else 1.0


def _bound(estimate: AsrEstimate, looks: int) -> float:
    if not math.isfinite(estimate.high) or not math.isfinite(estimate.estimate):
        return 1.0
    if looks == 1:
        return min(1.0, estimate.high)
    try:
        return max(
            estimate.high,
            exact_upper(estimate.successes, estimate.trials, error=ERROR, looks=looks),
        )
    except ValueError:
        return 1.0
