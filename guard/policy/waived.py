"""Which findings do not count because two people waived them; an examination is never waived."""

from collections.abc import Sequence
from dataclasses import replace

from guard.core.evidence import Evidence, Finding
from guard.core.waivers import Waiver
from guard.policy.case import Case
from guard.policy.combine import Combined, combine
from guard.policy.per_class import ALONE
from guard.policy.rules import Policy


def in_force(policy: Policy, case: Case) -> tuple[Waiver, ...]:
    """The waivers of a case that hold under this policy and the methods' present versions."""
    if not case.waivers:
        return ()
    digest = policy.digest
    return tuple(
        waiver
        for waiver in case.waivers
        if waiver.artifact == case.artifact
        and waiver.policy == digest
        and waiver.method in policy.detectors
        and waiver.version == case.versions.get(waiver.method)
    )


def without(item: Evidence, waivers: Sequence[Waiver]) -> Evidence:
    """The evidence without what was waived: findings, and a waived class's p value in others.

    Its outcome and its families stay: what could not look still could not.
    """
    targets = [waiver.target for waiver in waivers if _about(waiver, item)]
    if not targets:
        return item
    hidden = {f"{ALONE}_{target}" for target in targets}
    kept = tuple(
        replace(
            finding,
            numbers={name: one for name, one in finding.numbers.items() if name not in hidden},
        )
        for finding in item.findings
        if finding.target not in targets
    )
    return replace(item, findings=kept)


def used(items: Sequence[Evidence], waivers: Sequence[Waiver]) -> tuple[Waiver, ...]:
    """The waivers that take a suspicious finding out of this evidence."""
    return tuple(
        waiver
        for waiver in waivers
        if any(_takes(waiver, item, finding) for item in items for finding in item.findings)
    )


def combined(kept: Sequence[Evidence], whole: Sequence[Evidence]) -> Combined:
    """The p values of what counts, with the coverage of all that was examined."""
    counted, examined = combine(kept), combine(whole)
    return replace(counted, covered=examined.covered, uninformative=examined.uninformative)


def _about(waiver: Waiver, item: Evidence) -> bool:
    return item.method == waiver.method and item.key in waiver.evidence


def _takes(waiver: Waiver, item: Evidence, finding: Finding) -> bool:
    return finding.suspicious and finding.target == waiver.target and _about(waiver, item)
