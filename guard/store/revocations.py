"""Revocations: digests that must not be served again, whatever was signed before."""

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from guard.core.hooks import EventType
from guard.store import hook_events
from guard.store._read import many, rows_of, table
from guard.store.rows import RevocationRow
from guard.store.tables import Publication, Revocation

_REVOCATIONS, _PUBLICATIONS = table(Revocation), table(Publication)


def add(
    s: Session, *, revocation_id: str, digest: str, reason: str, by: str, now: datetime
) -> None:
    """Revoke a digest; once this is committed, it stays among `digests`."""
    s.execute(
        insert(_REVOCATIONS).values(id=revocation_id, digest=digest, reason=reason, by=by, at=now)
    )
    served = select(_PUBLICATIONS.c.name).where(_PUBLICATIONS.c.digest == digest).limit(1)
    name = s.execute(served).scalar_one_or_none() or ""
    sentence = f"{by} withdrew {name or digest[:12]}: {reason}"
    about = {"digest": digest, "by": by, "detail": reason}
    hook_events.emit(s, EventType.WITHDRAWN, now, sentence, name=name, **about)


def digests(s: Session) -> frozenset[str]:
    """Every revoked digest."""
    return frozenset(s.execute(select(_REVOCATIONS.c.digest).distinct()).scalars())


def list_all(s: Session) -> list[RevocationRow]:
    """Every revocation, the newest first."""
    return many(
        s, RevocationRow, rows_of(Revocation).order_by(_REVOCATIONS.c.at.desc(), _REVOCATIONS.c.id)
    )
