"""The verdict ledger: append-only rows, each of which holds the hash of the row before.

`guard.core.ledger` defines the hash, and `guard.attest.chain` checks it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.ledger import GENESIS, row_hash
from guard.core.states import Verdict
from guard.store._read import first, many, rows_of, table
from guard.store.rows import LedgerRow
from guard.store.tables import LedgerEntry

_LOCK = 0x67756172  # any constant: the advisory lock that serialises appends on PostgreSQL
_LEDGER = table(LedgerEntry)


def append(
    s: Session,
    *,
    verdict_id: str,
    artifact: str,
    scan_id: str,
    verdict: Verdict,
    envelope: Mapping[str, Any],
    issued_at: datetime,
    expires_at: datetime,
    policy_digest: str,
) -> LedgerRow:
    """Add a verdict at the end of the chain.

    Call it inside `transaction`, because others wait until it commits. If `verdict_id` is in the
    chain already, nothing is added and that row is returned.
    """
    lock(s)
    there = _find(s, verdict_id)
    if there is not None:
        return there
    end = last(s)
    previous = GENESIS if end is None else end.hash
    values: dict[str, Any] = {
        "seq": 1 if end is None else end.seq + 1,
        "id": verdict_id,
        "artifact_digest": artifact,
        "scan_id": scan_id,
        "verdict": verdict,
        "envelope": dict(envelope),
        "issued_at": issued_at.astimezone(UTC),
        "expires_at": expires_at.astimezone(UTC),
        "policy_digest": policy_digest,
    }
    row = LedgerRow(**values, previous=previous, hash=row_hash(previous, values))
    s.execute(insert(_LEDGER).values(**values, previous=previous, hash=row.hash))
    return row


def get(s: Session, verdict_id: str) -> LedgerRow:
    """The verdict with this id.

    Raises:
        InputError: there is none.
    """
    found = _find(s, verdict_id)
    if found is None:
        raise InputError(f"The ledger holds no verdict {verdict_id!r}.", code="unknown_verdict")
    return found


def latest_for(s: Session, digest: str) -> LedgerRow | None:
    """The newest verdict on an artifact, or None."""
    statement = rows_of(LedgerEntry).where(_LEDGER.c.artifact_digest == digest)
    return first(s, LedgerRow, statement.order_by(_LEDGER.c.seq.desc()).limit(1))


def for_artifact(s: Session, digest: str) -> list[LedgerRow]:
    """Every verdict on an artifact, the oldest first."""
    return many(
        s,
        LedgerRow,
        rows_of(LedgerEntry).where(_LEDGER.c.artifact_digest == digest).order_by(_LEDGER.c.seq),
    )


def for_scan(s: Session, scan_id: str) -> list[LedgerRow]:
    """Every verdict of a scan, the oldest first: the parent's and its purified candidates'."""
    return many(
        s,
        LedgerRow,
        rows_of(LedgerEntry).where(_LEDGER.c.scan_id == scan_id).order_by(_LEDGER.c.seq),
    )


def rows(s: Session, after: int = 0, limit: int | None = None) -> list[LedgerRow]:
    """The rows of the chain in order, starting behind `after`."""
    return many(
        s,
        LedgerRow,
        rows_of(LedgerEntry).where(_LEDGER.c.seq > after).order_by(_LEDGER.c.seq).limit(limit),
    )


def lock(s: Session) -> None:
    """Make every other append wait until this transaction ends; SQLite's transactions do so."""
    if s.get_bind().dialect.name == "postgresql":
        s.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def last(s: Session) -> LedgerRow | None:
    """The last row of the chain, or None."""
    return first(s, LedgerRow, rows_of(LedgerEntry).order_by(_LEDGER.c.seq.desc()).limit(1))


def at(s: Session, seq: int) -> LedgerRow | None:
    """The row with this number, or None."""
    return first(s, LedgerRow, rows_of(LedgerEntry).where(_LEDGER.c.seq == seq))


def count(s: Session, after: int = 0) -> int:
    """How many rows stand behind `after`; fewer than the numbers say where one was deleted."""
    return int(s.execute(select(func.count()).where(_LEDGER.c.seq > after)).scalar_one())


def _find(s: Session, verdict_id: str) -> LedgerRow | None:
    return first(s, LedgerRow, rows_of(LedgerEntry).where(_LEDGER.c.id == verdict_id))
