"""What a sift of the training set does to a verdict: it can only make it stricter.

A sift that accuses nobody has no effect: the uploader may have named an innocent set. So it clears
nothing, and adds no coverage.

    * poisoned: the policy's action, `rejected`, `held` or `reported`
    * for a person: held, unless the policy only wants a report
    * could not look: held where the policy requires a sift, otherwise a note among the reasons
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from guard.core.evidence import Evidence, Finding, Outcome
from guard.core.sift import METHOD, PROVEN, VERSION, SiftedSet, SiftVerdict
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.policy.case import Case
from guard.policy.rules import Policy
from guard.policy.ruling import Ruling

#: Of several sifts the gravest counts, and of equal ones the latest; looking goes before not.
_GRAVITY = (
    SiftVerdict.COULD_NOT_LOOK,
    SiftVerdict.NOTHING,
    SiftVerdict.REVIEW,
    SiftVerdict.POISONED,
)


@dataclass(frozen=True, kw_only=True)
class Sift:
    """The sift that counts; `leading` is its gravest accusation, None where nobody is accused."""

    facts: SiftedSet
    reasons: tuple[str, ...]
    leading: Finding | None = None


def current_sifts(policy: Policy, case: Case) -> list[Evidence]:
    """All sifts of this artifact's training sets under the policy's rules, the oldest first."""
    rule = policy.training_set
    return [
        item
        for item in stored_sifts(case)
        if item.version == VERSION
        and item.parameters.get("max_fdr") == rule.max_fdr
        and item.parameters.get("min_images") == rule.min_images
    ]


def stored_sifts(case: Case) -> list[Evidence]:
    """All sifts of this artifact's training sets with this clean set."""
    return [
        item
        for item in case.evidence
        if item.method == METHOD
        and item.artifact == case.artifact
        and item.cleanset == case.cleanset.digest
    ]


def looked(policy: Policy, case: Case) -> bool:
    """Whether a training set was sifted under the policy's rules, with whatever result."""
    return any(result_of(item) is not _GRAVITY[0] for item in current_sifts(policy, case))


def result_of(item: Evidence) -> SiftVerdict:
    """The result that a sift's evidence states."""
    if item.outcome is Outcome.COULD_NOT_LOOK:
        return SiftVerdict.COULD_NOT_LOOK
    accused = [finding for finding in item.findings if finding.suspicious]
    if any(not finding.score < PROVEN for finding in accused):
        return SiftVerdict.POISONED
    return SiftVerdict.REVIEW if accused else SiftVerdict.NOTHING


def sift_of(policy: Policy, case: Case) -> Sift | None:
    """The sift that counts for a case; None where no training set was named."""
    found = current_sifts(policy, case)
    if not found:
        return None
    _, item = max(enumerate(found), key=lambda one: (_GRAVITY.index(result_of(one[1])), one[0]))
    result = result_of(item)
    accused = sorted(
        (finding for finding in item.findings if finding.suspicious),
        key=lambda finding: (-finding.score, -finding.numbers.get("count", 0)),
    )
    return Sift(
        facts=SiftedSet(
            uri=_text(item.parameters, "uri"),
            digest=_text(item.parameters, "set") or None,
            result=result,
            suspects=round(sum(finding.numbers.get("count", 0) for finding in item.findings)),
            report=item.blobs.get("report"),
        ),
        reasons=_reasons(item, result, accused),
        leading=accused[0] if accused else None,
    )


def _reasons(item: Evidence, result: SiftVerdict, accused: list[Finding]) -> tuple[str, ...]:
    uri = _text(item.parameters, "uri")
    if result is SiftVerdict.COULD_NOT_LOOK:
        return (f"The training set {uri} could not be sifted: {item.reason}",)
    wanted = [one for one in accused if result is SiftVerdict.REVIEW or not one.score < PROVEN]
    return tuple(f"In the training set {uri}, {one.statement}" for one in wanted)


def _text(parameters: Mapping[str, Any], name: str) -> str:
    return str(parameters.get(name, ""))


def with_sift(policy: Policy, found: Sift | None, ruling: Ruling, *, repairable: bool) -> Ruling:
    """The ruling of all other rules, made stricter by a sift.

    `repairable`: a repair is worth a try as far as the detectors' accusations go.
    """
    if found is None or found.facts.result is SiftVerdict.NOTHING:
        return ruling
    rule, result = policy.training_set, found.facts.result
    passes = ruling.verdict in SERVABLE_VERDICTS
    if result is SiftVerdict.COULD_NOT_LOOK:
        if not (rule.required and passes):
            return replace(ruling, reasons=(*ruling.reasons, *found.reasons))
        remark = "The policy requires a sift of the training set; a person must look."
        return Ruling(Verdict.HELD, (*found.reasons, remark))
    if rule.action == "reported":
        return replace(ruling, reasons=(*ruling.reasons, *found.reasons))
    if result is SiftVerdict.POISONED and rule.action == "rejected":
        others = () if passes else ruling.reasons
        if ruling.verdict is Verdict.INCONCLUSIVE:
            others = tuple(f"This is proven all the same. {sentence}" for sentence in others)
        return Ruling(
            Verdict.REJECTED, (*found.reasons, *others), repairable=repairable, natural=False
        )
    if passes:
        return Ruling(Verdict.HELD, (*found.reasons, "A person must look at these images."))
    return replace(ruling, reasons=(*ruling.reasons, *found.reasons))
