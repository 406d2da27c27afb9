"""Events for others: written in the transaction of what they are about, if anybody listens."""

import uuid
from datetime import datetime

from sqlalchemy import exists, insert, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import ALL_FIELDS, FIELDS, EventType
from guard.core.text import printable
from guard.store import outbox
from guard.store._read import first, rows_of, table
from guard.store.notify_rows import EventRow
from guard.store.notify_tables import Hook, HookEvent

_HOOKS, _EVENTS = table(Hook), table(HookEvent)
#: No text of an event is longer: reasons and names are written by strangers.
MOST = 500
#: The task that hands an event on.
TASK = "notify"


def emit(
    s: Session, event: EventType, now: datetime, sentence: str, *, name: str = "", **data: str
) -> None:
    """Record that something happened and have it handed on, where there is any destination.

    Args:
        sentence: for people.
        name: the served name that it is about, where it is about a model.
        data: further fields of `guard.core.hooks.ALL_FIELDS`; empty ones are left out where a type
            does not need them.
    """
    if not s.execute(select(exists().where(_HOOKS.c.removed_at.is_(None)))).scalar_one():
        return
    add(s, event, now, sentence, name=name, **data)


def add(
    s: Session, event: EventType, now: datetime, sentence: str, *, name: str = "", **data: str
) -> str:
    """Do what `emit` does, whether there is a destination or not; the event's id."""
    texts = {"sentence": sentence, "name": name, **data}
    event_id = uuid.uuid4().hex
    s.execute(
        insert(_EVENTS).values(
            id=event_id,
            type=str(event),
            name=name,
            data={
                key: printable(texts.get(key, ""), limit=MOST)
                for key in ALL_FIELDS
                if texts.get(key) or key in FIELDS[event]
            },
            at=now,
            fanned_out_at=None,
        )
    )
    outbox.add(s, TASK, {"event_id": event_id}, now)
    return event_id


def fanned_out(s: Session, event_id: str, now: datetime) -> None:
    """Every destination that wants the event has a delivery by now."""
    s.execute(update(_EVENTS).where(_EVENTS.c.id == event_id).values(fanned_out_at=now))


def left_behind(s: Session, before: datetime, limit: int = 100) -> list[str]:
    """Events from before a time whose message did not lead to deliveries, the oldest first."""
    where = (_EVENTS.c.fanned_out_at.is_(None), _EVENTS.c.at < before)
    statement = select(_EVENTS.c.id).where(*where).order_by(_EVENTS.c.at, _EVENTS.c.id)
    return list(s.execute(statement.limit(limit)).scalars())


def get(s: Session, event_id: str) -> EventRow:
    """The event with this id.

    Raises:
        InputError: there is none (any more).
    """
    found = first(s, EventRow, rows_of(HookEvent).where(_EVENTS.c.id == event_id))
    if found is None:
        raise InputError(f"There is no event {event_id!r}.", code="unknown_hook_event")
    return found
