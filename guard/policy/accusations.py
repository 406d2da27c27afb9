"""What findings amount to: which of them accuse, how suspicious they are, and which ASR to show.

Comparisons are written so that NaN fails them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from guard.core.evidence import AsrEstimate, Evidence, Finding
from guard.core.purification import PurificationFacts
from guard.policy.abstain import finite
from guard.policy.case import Case
from guard.policy.rules import Policy

Accused = list[tuple[str, Finding]]  # method and finding


def accused_in(looked: Sequence[Evidence]) -> Accused:
    """Suspicious findings that are not natural, each with its method."""
    return [
        (item.method, finding)
        for item in looked
        for finding in item.findings
        if finding.suspicious and not natural(finding)
    ]


def natural(finding: Finding) -> bool:
    """Whether sibling classes reach this trigger's ASR at its own budget.

    Then it is a property of the task, and no implant.
    """
    asr = finding.asr
    return asr is not None and asr.natural is not None and asr.natural >= asr.low


def weight(finding: Finding) -> tuple[bool, float]:
    """Orders findings, the most suspicious last; a score that is not finite counts as the most."""
    return (finding.suspicious, finding.score if math.isfinite(finding.score) else math.inf)


def highest_score(looked: Sequence[Evidence]) -> float:
    """The largest score (0..1) of all findings; 1 where nobody looked or one is not finite."""
    scores = [finding.score for item in looked for finding in item.findings]
    # A score that nobody could measure is no sign of innocence.
    if not looked or not all(map(math.isfinite, scores)):
        return 1.0
    return max(scores, default=0.0)


def leading_asr(
    findings: Sequence[Finding], worst: Finding | None, purification: PurificationFacts | None
) -> AsrEstimate | None:
    """The rate that a reader should see first; None where none was measured.

    Of the accused class it is that of the highest-scored trigger that was measured, which need not
    be the finding with the highest score; of a purified model that of the parent's triggers,
    replayed; else that of the most unusual trigger found, marked as natural by a `natural` rate
    equal to its own: siblings need as little.
    """
    measured = [finding for finding in findings if finding.asr is not None and finite(finding)]
    if worst is not None and worst.suspicious:
        measured = [
            finding for finding in measured if finding.suspicious and finding.target == worst.target
        ]
        return max(measured, key=weight).asr if measured and finite(worst) else None
    if purification is not None and purification.replayed:
        return max(purification.replayed, key=lambda estimate: estimate.high)
    if not measured or worst is None or not finite(worst):
        return None
    shown = max(measured, key=weight).asr
    assert shown is not None  # noqa: S101 - for mypy: only measured ones are here
    return replace(shown, natural=shown.estimate)


def repairable(policy: Policy, case: Case, accused: Accused) -> bool:
    """Whether a repair is worth a try.

    Without a measured trigger for each class nothing could show that it worked.
    """
    measured = {finding.target for _, finding in accused if finding.asr is not None}
    return (
        bool(policy.defenses)
        and case.purification is None
        and {f.target for _, f in accused} <= measured
    )


def accusation(policy: Policy, finding: Finding) -> str:
    """A finding that accuses, with what its trigger does on the hold-out, for people."""
    if finding.asr is None:
        return f"{finding.statement} An ASR could not be measured, for no trigger was recovered."
    asr = finding.asr
    over = "not over" if asr.high <= policy.asr_limit else "over"
    return (
        f"{finding.statement} On {asr.trials} hold-out images its ASR is {asr.estimate:.1%} "
        f"({asr.low:.1%} to {asr.high:.1%}), {over} the limit of {policy.asr_limit:.0%}."
    )


def natural_trigger(finding: Finding) -> str:
    """A suspicious finding that siblings match, for people."""
    asr = finding.asr
    rate = asr.natural if asr is not None and asr.natural is not None else 0.0
    return (
        f"{finding.statement} But a sibling class reaches {rate:.1%} at the same budget: "
        "perhaps a natural trigger of the task; a person must look."
    )
