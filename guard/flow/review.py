"""Review held verdicts: a second person, a reason, and a new signed verdict that names the old."""

import uuid
from typing import TYPE_CHECKING

from guard.core.errors import InputError, NotServable
from guard.core.states import Verdict
from guard.flow._seal import seal
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.flow.signed import signed
from guard.store import ledger, reviews, scans
from guard.store.rows import Decided, LedgerRow, ScanRow
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def approve(guard: Guard, scan_id: str, reviewer: str, reason: str) -> str:
    """Clear a held artifact, send it to be published, and return the new verdict's id.

    Raises:
        InputError: no reason was given.
        NotServable: the scan is not held, or the reviewer uploaded the model.
    """
    return _decide(guard, scan_id, reviewer, reason, approved=True)


def reject(guard: Guard, scan_id: str, reviewer: str, reason: str) -> str:
    """Reject a held artifact and return the new verdict's id; raises as `approve` does."""
    return _decide(guard, scan_id, reviewer, reason, approved=False)


def waiting(guard: Guard) -> list[ScanRow]:
    """Scans whose verdict in force is `held` and that nobody has reviewed yet, oldest first."""
    with reading(guard.engine) as session:
        return [scans.get(session, row.scan_id) for row in reviews.waiting(session)]


def _decide(guard: Guard, scan_id: str, reviewer: str, reason: str, *, approved: bool) -> str:
    if not reason.strip():
        raise InputError(
            "A review needs a reason; give one that the next reader can check.",
            code="review_no_reason",
        )
    with transaction(guard.engine) as session:
        scan = scans.get(session, scan_id)
        row = _held(session, scan)
        if approved:
            _check_approval(guard, scan, row, reviewer)
        held = signed(row.envelope).facts
        facts = held.reviewed(
            Verdict.CLEARED if approved else Verdict.REJECTED,
            f"{'Approved' if approved else 'Rejected'} by {reviewer}: {reason}",
        )
        terms = Terms(
            then="publish" if approved and guard.settings.auto_publish else "",
            basis={
                "kind": "review",
                "reviewer": reviewer,
                "reason": reason,
                "reviewed_verdict": row.id,
            },
        )
        verdict_id = write(guard, session, scan, row.artifact_digest, facts, terms)
        reviews.add(
            session,
            review_id=uuid.uuid4().hex,
            verdict_id=row.id,
            reviewer=reviewer,
            decision=Decided.APPROVE if approved else Decided.REJECT,
            reason=reason,
            new_verdict_id=verdict_id,
            now=guard.now(),
        )
    seal(guard)
    return verdict_id


def _held(session: "Session", scan: ScanRow) -> LedgerRow:
    row = ledger.get(session, scan.verdict_id) if scan.verdict_id else None
    if row is None or row.verdict is not Verdict.HELD:
        now = row.verdict if row is not None else scan.state
        raise NotServable(
            f"Scan {scan.id} is {now}, not held; only held verdicts wait for a review."
        )
    return row


def _check_approval(guard: Guard, scan: ScanRow, row: LedgerRow, reviewer: str) -> None:
    if scan.submitted_by is not None and scan.submitted_by == reviewer:
        raise NotServable(
            f"{reviewer} uploaded this model and cannot approve it; ask somebody else."
        )
    if row.expires_at <= guard.now():
        raise NotServable(f"The held verdict of scan {scan.id} has expired; scan the model again.")
