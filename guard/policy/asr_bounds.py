"""Upper bounds on attack success rates that hold for several looks at once; pure Python."""

import math
from collections.abc import Sequence

from guard.core.evidence import AsrEstimate, Evidence, Finding
from guard.core.pvalues import exact_upper

ERROR = 0.05  # two-sided, over all looks together; so the upper side alone errs in at most 2.5 %
# What the attacker's own trigger achieves over the bound on the recovered one: the most that was
# seen on ten detected development models (0.038; nine of them at most 0.001). A calibration puts
# its own number in this place.
UNSEEN = 0.04


def overall(estimates: Sequence[AsrEstimate], looks: int | None = None) -> float:
    """An upper bound on every one of the rates at once.

    The largest bound at error `ERROR` / `looks`.

    Args:
        looks: how many rates were measured, of which these may be the selected ones; default:
            these. With one look the bound is the estimate's own `high` (Wilson).

    Returns:
        0..1; a bound that cannot be computed is 1. Never below an estimate's own `high`.
    """
    count = max(len(estimates) if looks is None else looks, len(estimates), 1)
    bounds = [_bound(estimate, count) for estimate in estimates]
    return max(bounds, default=1.0)


def of_suspects(
    heard: Sequence[Evidence], accused: Sequence[Finding], margin: float = UNSEEN
) -> float | None:
    """The overall bound on what the accused triggers do; None where nothing is accused.

    Looks are all rates that were measured for an accused class, in whatever family, suspicious or
    not: the accused ones are a selection from these, so the bounds are simultaneous over the
    families examined. An accused class whose trigger was not recovered is bounded by nothing: 1.

    Args:
        margin: what the attacker's own trigger may achieve over the recovered one: a search ends
            where a trigger works well, the attacker trained for theirs.
    """
    if not accused:
        return None
    targets = {finding.target for finding in accused}
    measured = {finding.target for finding in accused if finding.asr is not None}
    if targets - measured:
        return 1.0
    looks = sum(
        finding.asr is not None and finding.target in targets
        for item in heard
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
