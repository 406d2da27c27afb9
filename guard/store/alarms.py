"""Alarms for people to see, at most one open for each kind and subject."""

import uuid
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import EventType, of_alarm
from guard.store import hook_events
from guard.store._read import insert_once, many, only, rows_of, table
from guard.store.rows import AlarmRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import Alarm

_ALARMS = table(Alarm)


def raise_(s: Session, kind: str, subject: str, detail: str, now: datetime) -> bool:
    """Open an alarm; False if one of this kind and subject is open already and stays as it is."""
    values = {"id": uuid.uuid4().hex, "kind": kind, "subject": subject, "detail": detail, "at": now}
    if not insert_once(s, Alarm, values):
        return False
    sentence = f"Alarm {kind} about {subject}: {detail}"
    about = {"kind": kind, "about": subject, "detail": detail}
    hook_events.emit(s, of_alarm(kind), now, sentence, name=_model_of(kind, subject), **about)
    return True


def get(s: Session, id_or_prefix: str, scope: Scope = EVERYTHING) -> AlarmRow:
    """One alarm, by its id or an unambiguous start of it.

    Raises:
        InputError: there is not exactly one in `scope`.
    """
    otherwise = InputError(
        f"There is not exactly one alarm {id_or_prefix!r}; `guard alarms list --all` lists them.",
        code="unknown_alarm",
    )
    return only(s, AlarmRow, Alarm, id_or_prefix, otherwise, *scope.alarms(_ALARMS.c.subject))


def clear(s: Session, kind: str, subject: str, now: datetime) -> None:
    """Close the open alarm of this kind and subject, if there is one."""
    where = (_ALARMS.c.kind == kind, _ALARMS.c.subject == subject, _ALARMS.c.cleared_at.is_(None))
    closed = update(_ALARMS).where(*where).values(cleared_at=now).returning(_ALARMS.c.id)
    if s.execute(closed).first() is not None:
        sentence, model = f"Alarm {kind} about {subject} is over.", _model_of(kind, subject)
        about = {"kind": kind, "about": subject}
        hook_events.emit(s, EventType.ALARM_CLOSED, now, sentence, name=model, **about)


def _model_of(kind: str, subject: str) -> str:
    """The served name in the subject of an alarm about what is served, or ""."""
    served = kind.startswith(("serving_", "verdict_")) or kind == "tag_failed"
    return subject.rpartition(" ")[0] if served else ""


def open_alarms(s: Session, kind: str | None = None, scope: Scope = EVERYTHING) -> list[AlarmRow]:
    """Open alarms, the newest first; of one kind if given."""
    statement = (
        rows_of(Alarm)
        .where(_ALARMS.c.cleared_at.is_(None), *scope.alarms(_ALARMS.c.subject))
        .order_by(_ALARMS.c.at.desc(), _ALARMS.c.id)
    )
    return many(s, AlarmRow, statement if kind is None else statement.where(_ALARMS.c.kind == kind))


def list_recent(s: Session, limit: int = 50, scope: Scope = EVERYTHING) -> list[AlarmRow]:
    """The newest alarms first, cleared ones included."""
    found = rows_of(Alarm).where(*scope.alarms(_ALARMS.c.subject))
    return many(s, AlarmRow, found.order_by(_ALARMS.c.at.desc(), _ALARMS.c.id).limit(limit))
