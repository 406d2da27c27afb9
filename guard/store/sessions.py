"""Browsers that are signed in. A cookie's secret is never stored, only its SHA-256."""

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from guard.store._read import first, insert_once, rows_of, table
from guard.store.access_tables import BrowserSession
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
