"""The outbox: messages that are committed together with the rows they concern.

A relay takes some for a while, sends them, and marks them; any number of relays share the work.
What a relay that died had taken is due again after that while, so each is sent at least once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, insert, or_, select, update
from sqlalchemy.orm import Session

from guard.store._read import many, rows_of, table
from guard.store.rows import OutboxRow
from guard.store.tables import Outbox

_OUTBOX = table(Outbox)
_ADD = insert(_OUTBOX)


def add(
    s: Session, task: str, payload: Mapping[str, Any], now: datetime, delay_seconds: float = 0
) -> None:
    """Have `task` sent with `payload` (ids only) after this transaction's commit and the delay."""
    due_at = now + timedelta(seconds=delay_seconds)
    values = {"task": task, "payload": dict(payload), "created_at": now, "not_before": due_at}
    s.execute(_ADD, values)


def due(s: Session, now: datetime, limit: int = 100) -> list[OutboxRow]:
    """Messages to send now that no relay has taken, the oldest first."""
    return many(s, OutboxRow, _due(now, limit))


def take(s: Session, now: datetime, seconds: float, limit: int = 100) -> list[OutboxRow]:
    """Take messages that are due, the oldest first; for `seconds` no other relay sends them.

    Several that ask at once get different ones: PostgreSQL skips rows that another transaction
    holds, and on SQLite transactions that write take turns.
    """
    found = _due(now, limit).with_for_update(skip_locked=True)
    rows = many(s, OutboxRow, found)
    mine = _OUTBOX.c.id.in_([row.id for row in rows])
    s.execute(update(_OUTBOX).where(mine).values(taken_until=now + timedelta(seconds=seconds)))
    return rows


def give_back(s: Session, ids: Iterable[int]) -> None:
    """Have messages that were taken and not sent sent by whoever is next."""
    s.execute(update(_OUTBOX).where(_OUTBOX.c.id.in_(list(ids))).values(taken_until=None))


def mark_sent(s: Session, ids: Iterable[int], now: datetime) -> None:
    """Mark messages as sent, so that `due` no longer lists them."""
    s.execute(update(_OUTBOX).where(_OUTBOX.c.id.in_(list(ids))).values(sent_at=now))


def waiting(s: Session) -> int:
    """How many messages are unsent, due or not."""
    return int(
        s.execute(
            select(func.count()).select_from(_OUTBOX).where(_OUTBOX.c.sent_at.is_(None))
        ).scalar_one()
    )


def unsent_ids(s: Session) -> frozenset[str]:
    """Every id in the payload of an unsent message."""
    payloads = s.execute(select(_OUTBOX.c.payload).where(_OUTBOX.c.sent_at.is_(None))).scalars()
    return frozenset(str(value) for payload in payloads for value in payload.values())


def _due(now: datetime, limit: int) -> Select[Any]:
    column = _OUTBOX.c
    free = or_(column.taken_until.is_(None), column.taken_until <= now)
    where = (column.sent_at.is_(None), column.not_before <= now, free)
    return rows_of(Outbox).where(*where).order_by(column.not_before, column.id).limit(limit)
