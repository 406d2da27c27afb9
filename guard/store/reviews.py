"""Reviews: a person's decision about a verdict, which may not concern their own upload."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.states import Verdict
from guard.store import uploaders
from guard.store._read import many, rows_of, table
from guard.store.console_tables import ExhibitRecord
from guard.store.rows import Decided, LedgerRow, ReviewRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import LedgerEntry, Review, Scan

_REVIEWS, _LEDGER, _SCANS = table(Review), table(LedgerEntry), table(Scan)
_EXHIBITS = table(ExhibitRecord)


class OwnUpload(InputError):
    """The reviewer uploaded the model, and approval needs a second person."""

    code = "own_upload"


def add(
    s: Session,
    *,
    review_id: str,
    verdict_id: str,
    reviewer: str,
    decision: Decided,
    reason: str,
    now: datetime,
    new_verdict_id: str | None = None,
) -> ReviewRow:
    """Record a review of one verdict; it holds for that verdict's digest only.

    Raises:
        InputError: there is no such verdict, or no reason was given.
        OwnUpload: the reviewer may have uploaded the artifact, its parent or the same bytes (a
            database trigger refuses the same).
    """
    if not reason.strip() or not reviewer.strip():
        raise InputError(
            "A review needs the reviewer's name and a reason.", code="review_without_reason"
        )
    found = s.execute(
        select(_LEDGER.c.id, _LEDGER.c.scan_id).where(_LEDGER.c.id == verdict_id)
    ).first()
    if found is None:
        raise InputError(f"The ledger holds no verdict {verdict_id!r}.", code="unknown_verdict")
    if decision == Decided.APPROVE and reviewer in uploaders.of_scan(s, found.scan_id):
        raise OwnUpload(
            f"{reviewer} uploaded this model and cannot approve it; ask another person."
        )
    row = ReviewRow(
        id=review_id,
        verdict_id=verdict_id,
        reviewer=reviewer,
        decision=decision,
        reason=reason,
        new_verdict_id=new_verdict_id,
        at=now,
    )
    s.execute(insert(_REVIEWS).values(**vars(row)))
    return row


def for_verdict(s: Session, verdict_id: str) -> list[ReviewRow]:
    """Every review of a verdict, the oldest first."""
    return many(
        s,
        ReviewRow,
        rows_of(Review).where(_REVIEWS.c.verdict_id == verdict_id).order_by(_REVIEWS.c.at),
    )


def list_recent(s: Session, limit: int = 50) -> list[ReviewRow]:
    """The newest reviews first."""
    return many(
        s, ReviewRow, rows_of(Review).order_by(_REVIEWS.c.at.desc(), _REVIEWS.c.id).limit(limit)
    )


def waiting(
    s: Session,
    limit: int | None = None,
    *,
    after: int = 0,
    undrawn: bool = False,
    scope: Scope = EVERYTHING,
) -> list[LedgerRow]:
    """Held verdicts that are in force for their scan and not reviewed yet, the oldest first.

    Args:
        after: only rows of the ledger behind this number.
        undrawn: only those whose images nobody has made.
    """
    statement = _waiting(rows_of(LedgerEntry)).where(_LEDGER.c.seq > after)
    statement = statement.where(*scope.scans()).limit(limit)
    if undrawn:
        drawn = select(_EXHIBITS.c.verdict_id).where(_EXHIBITS.c.verdict_id == _LEDGER.c.id)
        statement = statement.where(~drawn.exists())
    return many(s, LedgerRow, statement)


def waiting_ids(s: Session, limit: int, scope: Scope = EVERYTHING) -> list[str]:
    """The ids of what `waiting` gives."""
    found = _waiting(select(_LEDGER.c.id)).where(*scope.scans()).limit(limit)
    return list(s.execute(found).scalars())


def _waiting(columns: Select[Any]) -> Select[Any]:
    reviewed = select(_REVIEWS.c.id).where(_REVIEWS.c.verdict_id == _LEDGER.c.id).exists()
    return (
        columns
        # The scan that gave it: a re-scan's verdict is in force for the first scan as well.
        .join(_SCANS, (_SCANS.c.verdict_id == _LEDGER.c.id) & (_SCANS.c.id == _LEDGER.c.scan_id))
        .where(_LEDGER.c.verdict == Verdict.HELD, ~reviewed)
        .order_by(_LEDGER.c.seq)
    )
