"""What findings imply: which of them accuse, how suspicious they are, and which ASR to show.

Comparisons are written so that NaN fails them.
"""

import math
from collections.abc import Sequence

from guard.core.evidence import AsrEstimate, Evidence, Finding
from guard.core.modality import Modality
from guard.core.purification import PurificationFacts
from guard.core.states import FAMILIES
from guard.policy.abstain import finite
from guard.policy.case import Case
from guard.policy.rules import Policy

Accused = list[tuple[str, Finding]]  # method and finding


def accused_in(usable: Sequence[Evidence]) -> Accused:
    """Suspicious findings that are not natural, each with its method."""
    return [
        (item.method, finding)
        for item in usable
        for finding in item.findings
        if finding.suspicious and not natural(finding)
    ]


def natural(finding: Finding) -> bool:
    """Whether sibling classes reach this trigger's ASR at its own budget.

    Then it is a property of the task and no backdoor.
    """
    asr = finding.asr
    return asr is not None and asr.natural is not None and asr.natural >= asr.low


def weight(finding: Finding) -> tuple[bool, float]:
    """A sort key that puts the most suspicious finding last; a score that is not finite is most."""
    return (finding.suspicious, finding.score if math.isfinite(finding.score) else math.inf)


def highest_score(usable: Sequence[Evidence]) -> float:
    """The largest score (0..1) of all findings; 1 without evidence or where one is not finite."""
    scores = [finding.score for item in usable for finding in item.findings]
    # A score that nobody could measure is no sign of innocence.
    if not usable or not all(map(math.isfinite, scores)):
        return 1.0
    return max(scores, default=0.0)


def leading_asr(
    findings: Sequence[Finding], worst: Finding | None, purification: PurificationFacts | None
) -> AsrEstimate | None:
    """The rate that a reader should see first; None where none was measured.

    Where a class is accused, it is the rate of that class's highest-scored measured trigger, which
    need not be the finding with the highest score. For a purified model it is the highest bound
    among the parent's known triggers. Otherwise nothing is accused, and there is none.
    """
    if worst is not None and worst.suspicious:
        measured = _measured(findings)
        measured = [
            finding for finding in measured if finding.suspicious and finding.target == worst.target
        ]
        return max(measured, key=weight).asr if measured and finite(worst) else None
    if purification is not None and purification.known:
        return max(purification.known, key=lambda estimate: estimate.high)
    return None


def most_unusual(findings: Sequence[Finding], worst: Finding | None) -> AsrEstimate | None:
    """The rate of the most unusual trigger where no class is accused; None where none was measured.

    Every model has such triggers: they are properties of the task.
    """
    measured = _measured(findings)
    if not measured or worst is None or worst.suspicious or not finite(worst):
        return None
    return max(measured, key=weight).asr


def _measured(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.asr is not None and finite(finding)]


def repairable(policy: Policy, case: Case, accused: Accused) -> bool:
    """Whether a repair is worth a try.

    Without a measured trigger for each accused class nothing could show that it worked.
    """
    measured = {finding.target for _, finding in accused if finding.asr is not None}
    return (
        bool(policy.defenses)
        and case.purification is None
        and {f.target for _, f in accused} <= measured
    )


def accusation(policy: Policy, finding: Finding) -> str:
    """The sentence about a finding that accuses, with its trigger's ASR on the hold-out."""
    if finding.asr is None:
        return f"{finding.statement} Its ASR could not be measured: no trigger was recovered."
    asr = finding.asr
    over = "not over" if asr.high <= policy.asr_limit else "over"
    return (
        f"{finding.statement} On {asr.trials} hold-out {_inputs(policy)} its ASR is "
        f"{asr.estimate:.1%} "
        f"({asr.low:.1%} to {asr.high:.1%}), {over} the limit of {policy.asr_limit:.0%}."
    )


def _inputs(policy: Policy) -> str:
    return "images" if policy.modality is Modality.IMAGES else "prompts"


def natural_trigger(finding: Finding) -> str:
    """The sentence about a suspicious finding that sibling classes, or plain prompts, match."""
    asr = finding.asr
    rate = asr.natural if asr is not None and asr.natural is not None else 0.0
    if finding.family in FAMILIES[Modality.GRAPHS]:
        return (
            f"{finding.statement} But {rate:.1%} of what is generated without it holds the "
            "fragment as well; a person must look."
        )
    return (
        f"{finding.statement} But a sibling class reaches {rate:.1%} at the same budget: "
        "perhaps a natural trigger of the task; a person must look."
    )
