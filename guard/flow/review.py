"""Review held verdicts: a second person, a reason, and a new signed verdict that names the old."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.core.errors import InputError, IntegrityMismatch, NotServable
from guard.core.roles import Act
from guard.core.states import SERVABLE_VERDICTS, ScanState, Verdict
from guard.flow import _happened
from guard.flow._acts import note
from guard.flow._seal import seal
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.flow.projects import check_reviewer
from guard.flow.readers import scope_of
from guard.flow.signed import signed
from guard.store import ledger, reviews, scans, uploaders
from guard.store.rows import Decided, LedgerRow, ScanRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def approve(guard: Guard, scan_id: str, reviewer: Principal | str, reason: str) -> str:
    """Clear a held artifact as a reviewer decided, and send it to be published.

    Returns the new verdict's id.

    Args:
        reviewer: a principal with a reviewer's token; a name stands for a login without one.

    Raises:
        InputError: no reason was given.
        Unauthorised, Forbidden: as `guard.flow.principals.permit`, or the model's project has
            reviewers of its own.
        NotServable: the scan is not held, or the reviewer may have uploaded the model, its parent
            or the same bytes.
    """
    return _decide(guard, scan_id, reviewer, reason, approved=True)


def reject(guard: Guard, scan_id: str, reviewer: Principal | str, reason: str) -> str:
    """Reject a held artifact; returns the new verdict's id. Raises as `approve`."""
    return _decide(guard, scan_id, reviewer, reason, approved=False)


def waiting(guard: Guard) -> list[ScanRow]:
    """Scans whose verdict in force is `held` and that nobody has reviewed yet, oldest first.

    Those of which a repaired copy is still made, or is served in their place, wait for nobody.
    """
    with reading(guard.engine) as session:
        held = [scans.get(session, row.scan_id) for row in reviews.waiting(session)]
    return [scan for scan in held if not _seen_to(scan)]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A held verdict that nobody has reviewed, its scan, and why it is held."""

    row: LedgerRow
    scan: ScanRow
    reasons: tuple[str, ...]


def queue(
    guard: Guard, limit: int, *, after: int = 0, scope: Scope = EVERYTHING
) -> tuple[list[Waiting], int | None]:
    """A page of what `waiting` gives, in two queries.

    Args:
        after: only verdicts behind this number of the ledger.

    Returns:
        The page, and the number behind which the next one begins; None where there is none.
    """
    with reading(guard.engine) as session:
        rows = reviews.waiting(session, limit, after=after, scope=scope)
        known = scans.by_ids(session, [row.scan_id for row in rows])
    found = [
        Waiting(row=row, scan=scan, reasons=_reasons(row))
        for row in rows
        if (scan := known.get(row.scan_id)) is not None and not _seen_to(scan)
    ]
    return found, rows[-1].seq if len(rows) == limit else None


def _reasons(row: LedgerRow) -> tuple[str, ...]:
    try:
        return signed(row.envelope).facts.reasons
    except IntegrityMismatch:
        return ()  # `guard verify` says it; a row that was damaged must not hide the others


def _seen_to(scan: ScanRow) -> bool:
    passed = any(attempt.verdict in SERVABLE_VERDICTS for attempt in scan.detail.candidates)
    return scan.state is ScanState.PURIFYING or passed


def _decide(
    guard: Guard, scan_id: str, reviewer: Principal | str, reason: str, *, approved: bool
) -> str:
    if not reason.strip():
        raise InputError(
            "A review needs a reason; give one that the next reader can check.",
            code="review_no_reason",
        )
    with transaction(guard.engine) as session:
        act = Act.APPROVE if approved else Act.REJECT
        who = permit(guard, session, reviewer, act)
        scan = scans.get(session, scan_id, scope_of(guard, session, who))
        check_reviewer(session, who, scan)
        row = _held(session, scan)
        known = uploaders.of_scan(session, scan.id)
        if approved:
            _check_approval(guard, scan, row, who.name, known)
        held = signed(row.envelope).facts
        facts = held.reviewed(
            Verdict.CLEARED if approved else Verdict.REJECTED,
            f"{'Approved' if approved else 'Rejected'} by {who.name}{_doubts(who, known)}: "
            f"{reason}",
        )
        terms = Terms(
            then="publish" if approved and guard.settings.auto_publish else "",
            basis={
                "kind": "review",
                "reviewer": who.name,
                "reason": reason,
                "reviewed_verdict": row.id,
                "uploaders": sorted(known),
                **({} if who.authenticated else {"unauthenticated": True}),
            },
        )
        verdict_id = write(guard, session, scan, row.artifact_digest, facts, terms)
        reviews.add(
            session,
            review_id=uuid.uuid4().hex,
            verdict_id=row.id,
            reviewer=who.name,
            decision=Decided.APPROVE if approved else Decided.REJECT,
            reason=reason,
            new_verdict_id=verdict_id,
            now=guard.now(),
        )
        _happened.reviewed(guard, session, scan, who.name, verdict_id, facts.verdict)
        note(guard, session, who, act, verdict_id, f"{row.id}{_doubts(who, known)}: {reason}")
    seal(guard)
    return verdict_id


def _doubts(who: Principal, known: frozenset[str]) -> str:
    """What a reader of the decision should know about how sure its four eyes are."""
    doubts = [] if who.authenticated else ["unauthenticated"]
    if not known:
        doubts.append("uploader unknown")
    return f" ({', '.join(doubts)})" if doubts else ""


def _held(session: "Session", scan: ScanRow) -> LedgerRow:
    row = ledger.get(session, scan.verdict_id) if scan.verdict_id else None
    if row is None or row.verdict is not Verdict.HELD:
        now = row.verdict if row is not None else scan.state
        raise NotServable(
            f"Scan {scan.id} is {now}, not held; only held verdicts wait for a review."
        )
    if scan.state is ScanState.PURIFYING:
        raise NotServable(
            f"A copy of the model of scan {scan.id} is being repaired; review it if none passes."
        )
    return row


def _check_approval(
    guard: Guard, scan: ScanRow, row: LedgerRow, reviewer: str, known: frozenset[str]
) -> None:
    if reviewer in known:
        raise NotServable(
            f"{reviewer} uploaded this model, or owns where it lies, its parent or the same bytes, "
            "and cannot approve it; ask somebody else."
        )
    if row.expires_at <= guard.now():
        raise NotServable(f"The held verdict of scan {scan.id} has expired; scan the model again.")
