"""Leases of rows: who works on one, and that an older holder cannot write any more.

A table with leases has the columns `id`, `attempts`, `lease_token` and `lease_until`.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, or_, select, update
from sqlalchemy.orm import Session

from guard.core.errors import LeaseLost
from guard.store.rows import Lease

_CALLED = {"scans": "Scan", "training_jobs": "Training job"}


def free(rows: Table, now: datetime) -> ColumnElement[bool]:
    """The condition that nobody holds a row."""
    return or_(rows.c.lease_until.is_(None), rows.c.lease_until < now)


def claim(s: Session, rows: Table, row_id: str, *, now: datetime, seconds: float) -> Lease | None:
    """Take a row for `seconds`; None if another worker holds it or there is no such row.

    A single statement decides, so only one of any number of claimers wins. The token grows with
    every claim: an older holder that resumes fails in `check` and `renew`.
    """
    found = s.execute(
        update(rows)
        .where(rows.c.id == row_id, free(rows, now))
        .values(
            lease_token=rows.c.lease_token + 1,
            attempts=rows.c.attempts + 1,
            lease_until=now + timedelta(seconds=seconds),
        )
        .returning(rows.c.lease_token, rows.c.attempts)
    ).first()
    if found is None:
        return None
    return Lease(scan_id=row_id, token=found.lease_token, attempts=found.attempts)


def check(s: Session, rows: Table, lease: Lease) -> None:
    """Check that the lease is the latest one, and keep it so until this transaction ends.

    Raises:
        LeaseLost: another worker took the row over.
    """
    # FOR UPDATE: a claim that comes now waits until this transaction has committed.
    token = s.execute(
        select(rows.c.lease_token).where(rows.c.id == lease.scan_id).with_for_update()
    ).scalar()
    if token != lease.token:
        raise lost(rows, lease)


def renew(s: Session, rows: Table, lease: Lease, *, now: datetime, seconds: float) -> None:
    """Hold a row for `seconds` from now on; raises the errors of `check`."""
    values = {"lease_until": now + timedelta(seconds=seconds)}
    found = s.execute(update(rows).where(*mine(rows, lease)).values(values).returning(rows.c.id))
    if found.first() is None:
        raise lost(rows, lease)


def release(s: Session, rows: Table, lease: Lease, *, done: bool) -> None:
    """Release a row; harmless if the lease was lost.

    Work that succeeded (`done`) resets the count of attempts; work that failed keeps it.
    """
    values: dict[str, Any] = {"lease_until": None}
    if done:
        values["attempts"] = 0
    s.execute(update(rows).where(*mine(rows, lease)).values(values))


def mine(rows: Table, lease: Lease) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The condition that a row is held under this lease."""
    return rows.c.id == lease.scan_id, rows.c.lease_token == lease.token


def lost(rows: Table, lease: Lease) -> LeaseLost:
    """The error that the lease is no longer the latest."""
    return LeaseLost(
        f"{_CALLED[rows.name]} {lease.scan_id} was taken over by another worker; stop without "
        "writing."
    )
