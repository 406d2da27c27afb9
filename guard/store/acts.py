"""The acts of principals, append-only: who approved, rejected, published, withdrew, gave tokens."""

from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.orm import Session

from guard.core.roles import Act
from guard.store._read import many, rows_of, table
from guard.store.rows import ActRow
from guard.store.tables import ActRecord

_ACTS = table(ActRecord)


def add(
    s: Session,
    *,
    act: Act,
    principal: str,
    role: str,
    authenticated: bool,
    token_id: str,
    subject: str,
    detail: str,
    now: datetime,
) -> None:
    """Record an act, in the transaction that does it."""
    s.execute(
        insert(_ACTS).values(
            act=act,
            principal=principal,
            role=role,
            authenticated=authenticated,
            token_id=token_id,
            subject=subject,
            detail=detail,
            at=now,
        )
    )


def list_recent(s: Session, limit: int = 50) -> list[ActRow]:
    """The newest acts first."""
    return many(s, ActRow, rows_of(ActRecord).order_by(_ACTS.c.seq.desc()).limit(limit))
