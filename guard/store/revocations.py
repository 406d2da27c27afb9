"""Revocations: digests that must not be served again, whatever was signed before."""

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from guard.store._read import many, rows_of, table
from guard.store.rows import RevocationRow
from guard.store.tables import Revocation

_REVOCATIONS = table(Revocation)


def add(
    s: Session, *, revocation_id: str, digest: str, reason: str, by: str, now: datetime
) -> None:
    """Revoke a digest; once this is committed, it stays among `digests`."""
    s.execute(
        insert(_REVOCATIONS).values(id=revocation_id, digest=digest, reason=reason, by=by, at=now)
    )


def digests(s: Session) -> frozenset[str]:
    """Every revoked digest."""
    return frozenset(s.execute(select(_REVOCATIONS.c.digest).distinct()).scalars())


def list_all(s: Session) -> list[RevocationRow]:
    """Every revocation, the newest first."""
    return many(
        s, RevocationRow, rows_of(Revocation).order_by(_REVOCATIONS.c.at.desc(), _REVOCATIONS.c.id)
    )
