"""What a report on a repaired model says before everything else."""

from guard.core.states import Verdict
from guard.reports.charts import percent
from guard.reports.report import Report


def repair_sentence(report: Report) -> str:
    """Whether the repair holds, in one sentence; empty where none was made or nobody knows yet."""
    if report.purification is None or report.expired:
        return ""
    if report.verdict is Verdict.REJECTED:
        return "The repair does not hold: the reasons say why."
    if report.verdict is not Verdict.PURIFIED:
        return ""
    now = [after for _, after in report.replays]
    if not now:
        return "The repair holds: the copy passed all that the policy asks of a repair."
    then = [before for before, _ in report.replays if before is not None]
    worst = max(now, key=lambda rate: rate.high)
    before = (
        f" led up to {percent(max(rate.estimate for rate in then))} of hold-out inputs to the "
        "attacker's class and"
        if then
        else ""
    )
    return (
        f"The repair holds: the uploaded model's triggers ({len(now)}){before} lead at most "
        f"{percent(worst.estimate)} ({percent(worst.low)} to {percent(worst.high)}) there now."
    )
