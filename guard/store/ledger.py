"""The verdict ledger: append-only rows, each of which holds the hash of the row before.

`guard.core.ledger` defines the hash, and `guard.attest.chain` checks it.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.ledger import row_hash
from guard.core.states import UNDECIDED, Verdict
from guard.store._chain import Chain
from guard.store._read import first, many, rows_of, table
from guard.store.rows import LedgerRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import LedgerEntry, Scan

_CHAIN = Chain(LedgerEntry, LedgerRow, row_hash)
_LEDGER, _SCANS = _CHAIN.table, table(Scan)
#: `guard.store._chain.Chain` says what each does.
rows, last, at, count = _CHAIN.rows, _CHAIN.last, _CHAIN.at, _CHAIN.count


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
    return _CHAIN.append(
        s,
        {
            "id": verdict_id,
            "artifact_digest": artifact,
            "scan_id": scan_id,
            "verdict": verdict,
            "envelope": dict(envelope),
            "issued_at": issued_at.astimezone(UTC),
            "expires_at": expires_at.astimezone(UTC),
            "policy_digest": policy_digest,
        },
    )


def get(s: Session, verdict_id: str, scope: Scope = EVERYTHING) -> LedgerRow:
    """The verdict with this id.

    Raises:
        InputError: there is none in `scope`.
    """
    where = (_LEDGER.c.id == verdict_id, *scope.of_scan(_LEDGER.c.scan_id))
    found = first(s, LedgerRow, rows_of(LedgerEntry).where(*where))
    if found is None:
        raise InputError(f"The ledger holds no verdict {verdict_id!r}.", code="unknown_verdict")
    return found


def by_ids(s: Session, ids: Collection[str]) -> dict[str, LedgerRow]:
    """The verdicts with these ids, by id."""
    which = rows_of(LedgerEntry).where(_LEDGER.c.id.in_(list(ids)))
    return {row.id: row for row in (many(s, LedgerRow, which) if ids else [])}


def latest_for(s: Session, digest: str, *, before: int | None = None) -> LedgerRow | None:
    """The newest verdict on an artifact, of those before row `before` if given, or None.

    `guard.flow._newest` says which one counts.
    """
    statement = rows_of(LedgerEntry).where(_LEDGER.c.artifact_digest == digest)
    if before is not None:
        statement = statement.where(_LEDGER.c.seq < before)
    return first(s, LedgerRow, statement.order_by(_LEDGER.c.seq.desc()).limit(1))


def counting() -> Select[tuple[int]]:
    """The numbers of the verdicts that count, one an artifact, for statistics: columns decide."""
    decided = case((_LEDGER.c.verdict.not_in(UNDECIDED), _LEDGER.c.seq))
    newest = func.coalesce(func.max(decided), func.max(_LEDGER.c.seq))
    return select(newest).group_by(_LEDGER.c.artifact_digest)


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


def ended_between(s: Session, after: datetime, until: datetime) -> list[str]:
    """The scans for which a verdict is in force that ended in this time."""
    statement = (
        select(_SCANS.c.id)
        .join(_LEDGER, _LEDGER.c.id == _SCANS.c.verdict_id)
        .where(_LEDGER.c.expires_at > after, _LEDGER.c.expires_at <= until)
        .order_by(_LEDGER.c.seq, _SCANS.c.id)
    )
    return list(s.execute(statement).scalars())
