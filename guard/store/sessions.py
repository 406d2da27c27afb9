"""Browsers that are signed in. A cookie's secret is never stored, only its SHA-256."""

from datetime import datetime

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from guard.store._read import first, insert_once, many, rows_of, table
from guard.store.access_tables import BrowserSession, LogoutStatement
from guard.store.rows import SessionRow

_SESSIONS = table(BrowserSession)


def add(s: Session, row: SessionRow) -> bool:
    """Record that a browser signed in; returns whether its attempt opened no session before."""
    return insert_once(s, BrowserSession, vars(row))


def find(s: Session, session_id: str) -> SessionRow | None:
    """The session with this id, or None."""
    return first(s, SessionRow, rows_of(BrowserSession).where(_SESSIONS.c.id == session_id))


def touch(s: Session, session_id: str, now: datetime) -> None:
    """Record that a session was used."""
    s.execute(update(_SESSIONS).where(_SESSIONS.c.id == session_id).values(last_used_at=now))


def end(s: Session, session_id: str, now: datetime) -> bool:
    """End a session; returns whether it had not ended before."""
    mine = (_SESSIONS.c.id == session_id, _SESSIONS.c.ended_at.is_(None))
    ended = update(_SESSIONS).where(*mine).values(ended_at=now).returning(_SESSIONS.c.id)
    return s.execute(ended).first() is not None


def of_provider(
    s: Session, now: datetime, *, principal: str | None = None, sid: str | None = None
) -> list[SessionRow]:
    """The sessions in force that an identity provider opened, the oldest first.

    Args:
        principal: whose; anybody's where none is given.
        sid: of this session at the provider. Together with a principal, theirs that name none are
            meant as well: they may be of it.
    """
    found = rows_of(BrowserSession).where(
        _SESSIONS.c.attempt.is_not(None),
        _SESSIONS.c.ended_at.is_(None),
        _SESSIONS.c.expires_at > now,
    )
    if principal is not None:
        found = found.where(_SESSIONS.c.principal == principal)
    if sid is not None:
        same = _SESSIONS.c.sid == sid
        found = found.where(same if principal is None else or_(same, _SESSIONS.c.sid.is_(None)))
    return many(s, SessionRow, found.order_by(_SESSIONS.c.created_at, _SESSIONS.c.id))


def receive_once(s: Session, statement: str, now: datetime) -> bool:
    """Record a statement that something ended; returns whether it came for the first time."""
    return insert_once(s, LogoutStatement, {"id": statement, "at": now})
