"""Deliveries of events to destinations, and the log of their tries."""

import uuid
from datetime import datetime

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import DeliveryState
from guard.store._read import first, insert_once, many, only, rows_of, table
from guard.store.notify_rows import AttemptRow, DeliveryRow
from guard.store.notify_tables import Delivery, DeliveryAttempt, Hook, HookEvent

_DELIVERIES, _ATTEMPTS = table(Delivery), table(DeliveryAttempt)
_HOOKS, _EVENTS = table(Hook), table(HookEvent)
_WAITING = DeliveryState.WAITING


def add(s: Session, event_id: str, hook_id: str, now: datetime, *, dropped: bool = False) -> bool:
    """Have an event sent to a destination, once; False where that was asked before."""
    values = {
        "id": uuid.uuid4().hex,
        "event_id": event_id,
        "hook_id": hook_id,
        "state": DeliveryState.DROPPED if dropped else _WAITING,
        "attempts": 0,
        "next_at": now,
        "created_at": now,
        "ended_at": now if dropped else None,
    }
    return insert_once(s, Delivery, values)


def get(s: Session, id_or_prefix: str) -> DeliveryRow:
    """One delivery, by its id or an unambiguous start of it.

    Raises:
        InputError: there is not exactly one.
    """
    otherwise = InputError(
        f"There is not exactly one delivery {id_or_prefix!r}; `guard hook log` lists them.",
        code="unknown_delivery",
    )
    return only(s, DeliveryRow, Delivery, id_or_prefix, otherwise)


def waiting(s: Session, hook_id: str) -> int:
    """How many deliveries wait for a destination."""
    counted = select(func.count()).select_from(_DELIVERIES)
    mine = (_DELIVERIES.c.hook_id == hook_id, _DELIVERIES.c.ended_at.is_(None))
    return int(s.execute(counted.where(*mine)).scalar_one())


def due(s: Session, hook_id: str, now: datetime) -> DeliveryRow | None:
    """The oldest delivery that is due to a destination which is in force and does not rest."""
    statement = (
        rows_of(Delivery)
        .join(_HOOKS, _HOOKS.c.id == _DELIVERIES.c.hook_id)
        .where(
            _DELIVERIES.c.hook_id == hook_id,
            _DELIVERIES.c.ended_at.is_(None),
            _DELIVERIES.c.next_at <= now,
            _HOOKS.c.removed_at.is_(None),
            or_(_HOOKS.c.resting_until.is_(None), _HOOKS.c.resting_until <= now),
        )
        .order_by(_DELIVERIES.c.seq)
        .limit(1)
    )
    return first(s, DeliveryRow, statement)


def claim(s: Session, row: DeliveryRow, until: datetime) -> bool:
    """Take a delivery for one try, unless another worker just did; if this one dies, it is due."""
    mine = (
        _DELIVERIES.c.id == row.id,
        _DELIVERIES.c.state == _WAITING,
        _DELIVERIES.c.next_at == row.next_at,
    )
    taken = update(_DELIVERIES).where(*mine).values(next_at=until, attempts=row.attempts + 1)
    return s.execute(taken.returning(_DELIVERIES.c.id)).first() is not None


def record(
    s: Session,
    delivery_id: str,
    *,
    at: datetime,
    status: int | None,
    error: str,
    seconds: float,
) -> None:
    """Note one try in the log."""
    s.execute(
        insert(_ATTEMPTS).values(
            delivery_id=delivery_id, at=at, status=status, error=error, seconds=seconds
        )
    )


def end(s: Session, delivery_id: str, state: DeliveryState, now: datetime) -> None:
    """A delivery came to its end."""
    mine = _DELIVERIES.c.id == delivery_id
    s.execute(update(_DELIVERIES).where(mine).values(state=state, ended_at=now))


def later(s: Session, delivery_id: str, at: datetime) -> None:
    """Try a delivery again at a time."""
    mine = _DELIVERIES.c.id == delivery_id
    s.execute(update(_DELIVERIES).where(mine).values(next_at=at))


def revive(s: Session, delivery_id: str, now: datetime) -> None:
    """Start the tries of a delivery anew, under the id that the receiver may know."""
    s.execute(
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id == delivery_id)
        .values(state=_WAITING, attempts=0, next_at=now, ended_at=None)
    )


def drop_waiting(s: Session, hook_id: str, now: datetime) -> None:
    """Drop what waits for a destination."""
    s.execute(
        update(_DELIVERIES)
        .where(_DELIVERIES.c.hook_id == hook_id, _DELIVERIES.c.state == _WAITING)
        .values(state=DeliveryState.DROPPED, ended_at=now)
    )


def recent(
    s: Session, hook_id: str | None = None, *, dead: bool = False, limit: int = 50
) -> list[DeliveryRow]:
    """The newest deliveries first; of one destination, or dead ones only."""
    statement = rows_of(Delivery).order_by(_DELIVERIES.c.seq.desc())
    if hook_id is not None:
        statement = statement.where(_DELIVERIES.c.hook_id == hook_id)
    if dead:
        statement = statement.where(_DELIVERIES.c.state == DeliveryState.DEAD)
    return many(s, DeliveryRow, statement.limit(limit))


def attempts(s: Session, delivery_id: str) -> list[AttemptRow]:
    """The tries of a delivery, the oldest first."""
    mine = rows_of(DeliveryAttempt).where(_ATTEMPTS.c.delivery_id == delivery_id)
    return many(s, AttemptRow, mine.order_by(_ATTEMPTS.c.seq))


def prune(s: Session, *, before: datetime, limit: int) -> int:
    """Delete at most `limit` events from before a time, with their deliveries and these' log.

    Returns:
        How many events.
    """
    oldest = select(_EVENTS.c.id).where(_EVENTS.c.at < before).order_by(_EVENTS.c.at)
    old = list(s.execute(oldest.limit(limit)).scalars())
    mine = select(_DELIVERIES.c.id).where(_DELIVERIES.c.event_id.in_(old))
    s.execute(delete(_ATTEMPTS).where(_ATTEMPTS.c.delivery_id.in_(mine)))
    s.execute(delete(_DELIVERIES).where(_DELIVERIES.c.event_id.in_(old)))
    s.execute(delete(_EVENTS).where(_EVENTS.c.id.in_(old)))
    return len(old)
