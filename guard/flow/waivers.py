"""Waive one finding about one artifact, by two people and for a time, and decide anew.

A waiver never stands in for an examination: only a finding that is there can be waived. It is void
when the policy, the method's version or the clean set is another.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from guard.core.digests import is_digest
from guard.core.errors import InputError, NotServable
from guard.core.evidence import Evidence, Outcome, Target
from guard.core.plain import iso
from guard.core.roles import Act
from guard.core.states import ScanState
from guard.core.waivers import Waiver
from guard.detectors import DETECTORS
from guard.flow import _newest, _waivers, rescan
from guard.flow._acts import note
from guard.flow._modality import for_artifact, for_scan
from guard.flow._seal import settle
from guard.flow._waivers import Asked
from guard.flow.context import Guard
from guard.flow.decide import case_of
from guard.flow.principals import Principal, permit
from guard.flow.projects import check_reviewer
from guard.flow.readers import scope_of
from guard.policy import Case
from guard.policy.current import current
from guard.store import acts, scans, uploaders
from guard.store.rows import ScanRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DONE, FAILED = ScanState.DONE, ScanState.FAILED
MAX_DAYS = 180
MIN_PREFIX = 8


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A waiver and its state: `waiting`, `in force`, `revoked`, `expired` or `void`."""

    waiver: Waiver
    state: str


def ask(
    guard: Guard, who: Principal, wanted: str, finding: str, *, reason: str, until: datetime
) -> Waiver:
    """Ask for a waiver of one finding; it counts once a second person agrees.

    Args:
        wanted: the artifact's SHA-256, or a scan of it.
        finding: METHOD, or METHOD:CLASS where the method accuses several classes.
        until: when it ends, at most 180 days ahead.

    Raises:
        Unauthorised, Forbidden: `who` shows no reviewer's token.
        NotServable: `who` may have uploaded the artifact, its parent or the same bytes.
        InputError: there is no such finding, no reason, or the time cannot be.
    """
    _check_reason(reason)
    if not guard.now() < until <= guard.now() + timedelta(days=MAX_DAYS):
        raise InputError(
            f"A waiver must end in the future and within {MAX_DAYS} days.", code="waiver_until"
        )
    with reading(guard.engine) as session:
        permit(guard, session, who, Act.WAIVE)
        scan = _examined(guard, session, wanted, scope_of(guard, session, who))
    guard = for_scan(guard, scan)
    target, found = _finding(_known(guard, scan), guard, finding)
    facts = {
        "method": found[0].method,
        "version": found[0].version,
        "target": target,
        "evidence": sorted(item.key for item in found),
        "policy": guard.policy.digest,
        "until": iso(until),
    }
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.WAIVE)
        _check_uploader(session, scan, who)
        digest = scan.canonical_digest or ""
        row = note(guard, session, who, Act.WAIVE, digest, reason.strip(), facts)
        made = _waivers.read(session, [row])[0].waiver
    settle(guard)
    return made


def approve(guard: Guard, who: Principal, wanted: str) -> tuple[Waiver, list[str]]:
    """Agree to a waiver that somebody else asked for, and decide about its artifact anew.

    Returns:
        The waiver, and the ids of the re-scans that decide from the stored evidence.

    Raises:
        Unauthorised, Forbidden: `who` shows no reviewer's token.
        NotServable: `who` asked for it, or may have uploaded the artifact.
        InputError: there is no such waiver, or it does not wait.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.APPROVE_WAIVER)
        one = _named(session, wanted, scope_of(guard, session, who))
        if one.waiver.owner == who.name:
            raise NotServable(f"{who.name} asked for this waiver; a second person must agree.")
        scan = _examined(guard, session, one.waiver.artifact)
        _check_uploader(session, scan, who)
        if (state := _state(guard, one)) != "waiting":
            raise InputError(f"The waiver {one.asked.id} is {state}.", code="waiver_not_waiting")
        detail = f"{one.waiver.finding} of {one.waiver.artifact}"
        note(guard, session, who, Act.APPROVE_WAIVER, one.asked.id, detail)
        waiver = _named(session, one.asked.id).waiver
        # One that is worked on goes its way: a repair under way is not overtaken.
        why, states = "a finding was waived", {DONE, FAILED}
        opened = _decide_anew(guard, session, waiver, why, states)
    settle(guard)
    return waiver, opened


def revoke(guard: Guard, who: Principal, wanted: str, reason: str) -> tuple[Waiver, list[str]]:
    """End a waiver, and decide about its artifact anew where it counted.

    Raises:
        Unauthorised, Forbidden: `who` shows neither a reviewer's nor an operator's token.
        InputError: there is no such waiver, no reason, or it was revoked before.
    """
    _check_reason(reason)
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.REVOKE_WAIVER)
        one = _named(session, wanted, scope_of(guard, session, who))
        if one.ended is not None:
            raise InputError(
                f"The waiver {one.asked.id} is revoked already.", code="waiver_not_waiting"
            )
        note(guard, session, who, Act.REVOKE_WAIVER, one.asked.id, reason.strip())
        opened = list[str]()
        if one.agreed is not None:
            why, states = "a waiver ended", frozenset(ScanState)
            opened = _decide_anew(guard, session, one.waiver, why, states)
    settle(guard)
    return one.waiver, opened


def listed(guard: Guard, scope: Scope = EVERYTHING) -> list[Listed]:
    """Every waiver that was ever asked for, the newest first, with its state."""
    with reading(guard.engine) as session:
        found = _waivers.read(session, acts.of_kind(session, Act.WAIVE, scope))
    return [Listed(waiver=one.waiver, state=_state(guard, one)) for one in reversed(found)]


def waiting(guard: Guard, limit: int, scope: Scope = EVERYTHING) -> list[Waiver]:
    """The newest waivers that wait for a second person and have not ended."""
    with reading(guard.engine) as session:
        found = _waivers.read(session, acts.unanswered(session, limit, scope))
    return [one.waiver for one in found if one.waiver.until > guard.now()]


def about(guard: Guard, digest: str) -> list[Listed]:
    """The waivers about one artifact, the newest first, with their states."""
    with reading(guard.engine) as session:
        asked = acts.about(session, [digest], Act.WAIVE)
        if not asked:
            return []
        found = _waivers.read(session, asked)
        own = for_artifact(guard, session, digest)
    return [Listed(waiver=one.waiver, state=_state_by(own, one)) for one in reversed(found)]


def show(guard: Guard, wanted: str, scope: Scope = EVERYTHING) -> Listed:
    """One waiver with its state, by its id or the start of it.

    Raises:
        InputError: there is not exactly one.
    """
    with reading(guard.engine) as session:
        one = _named(session, wanted, scope)
    return Listed(waiver=one.waiver, state=_state(guard, one))


def _state(guard: Guard, one: Asked) -> str:
    with reading(guard.engine) as session:
        guard = for_artifact(guard, session, one.waiver.artifact)
    return _state_by(guard, one)


def _state_by(guard: Guard, one: Asked) -> str:
    """The state of a waiver, where `guard` has the policy for its artifact in force."""
    if one.ended is not None:
        return "revoked"
    if one.waiver.until <= guard.now():
        return "expired"
    known = one.waiver.method in guard.policy.detectors
    version = DETECTORS.version(one.waiver.method) if known else None
    if (one.waiver.policy, one.waiver.version) != (guard.policy.digest, version):
        return "void"
    return "waiting" if one.agreed is None else "in force"


def _examined(guard: Guard, session: "Session", wanted: str, scope: Scope = EVERYTHING) -> ScanRow:
    """The scan that gave the verdict in force on an artifact."""
    found = scans.for_digest(session, wanted, scope) if is_digest(wanted) else []
    scan = found[0] if found else scans.get(session, wanted, scope)
    row = _newest.verdict(session, scan.canonical_digest or "", guard.trusted, scan)
    if row is None:
        raise InputError(
            f"There is no verdict on {wanted} yet, so that there is nothing to waive.",
            code="waiver_no_finding",
        )
    return scans.get(session, row.scan_id)


def _finding(case: Case, guard: Guard, text: str) -> tuple[Target, list[Evidence]]:
    """The accused class and the evidence of METHOD or METHOD:CLASS."""
    method, colon, wanted = text.partition(":")
    items = current(guard.policy, method, case) if method in guard.policy.detectors else []
    looked = [item for item in items if item.outcome is not Outcome.COULD_NOT_LOOK]
    if method in guard.policy.detectors and not looked:
        raise InputError(
            f"{method} has not examined this artifact; a waiver never stands in for an "
            "examination.",
            code="waiver_coverage",
        )
    accused = {
        finding.target: str(finding.target)
        for item in looked
        for finding in item.findings
        if finding.suspicious
    }
    chosen = [target for target, shown in accused.items() if not colon or shown == wanted]
    if len(chosen) != 1:
        there = ", ".join(f"{method}:{shown}" for shown in sorted(accused.values()))
        raise InputError(
            f"{text!r} names no single suspicious finding; {there or 'there is none'}.",
            code="waiver_no_finding",
        )
    (target,) = chosen
    return target, [
        item
        for item in looked
        if any(finding.suspicious and finding.target == target for finding in item.findings)
    ]


def _named(session: "Session", wanted: str, scope: Scope = EVERYTHING) -> Asked:
    found = _waivers.named(session, wanted, scope) if len(wanted) >= MIN_PREFIX else None
    if found is None:
        raise InputError(
            f"{wanted!r} names no single waiver; `guard waive list` shows them.",
            code="unknown_waiver",
        )
    return found


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError(
            "A waiver needs a reason; give one that the next reader can check.",
            code="waiver_no_reason",
        )


def _check_uploader(session: "Session", scan: ScanRow, who: Principal) -> None:
    check_reviewer(session, who, scan)
    if who.name in uploaders.of_scan(session, scan.id):
        raise NotServable(
            f"{who.name} uploaded this model, or owns where it lies, its parent or the same bytes, "
            "and cannot waive a finding about it; ask somebody else."
        )


def _decide_anew(
    guard: Guard, session: "Session", waiver: Waiver, why: str, states: Collection[ScanState]
) -> list[str]:
    """Have every scan of the artifact in one of these states decided from what is stored.

    In the transaction of the act: a process that dies behind it leaves nothing undecided.
    """
    giver = _examined(guard, session, waiver.artifact)
    roots = [
        scan
        for scan in scans.for_digest(session, waiver.artifact)
        if scan.canonical_digest == waiver.artifact
        and scan.detail.rescan is None
        and scan.verdict_id is not None
        and scan.state in states
    ]
    return [rescan.open_in(guard, session, root, giver, why)[0] for root in roots]


def _known(guard: Guard, scan: ScanRow) -> Case:
    """The scan's case as far as a process knows it that has no method's packages, as the API."""
    versions = {name: DETECTORS.version(name) for name in guard.policy.detectors}
    return replace(case_of(guard, scan, methods={}), versions=versions)
