"""The outbox: messages that are committed together with the rows they concern.

The relay sends them afterwards, at least once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select, update
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
    """Messages to send now, the oldest first.

    On PostgreSQL, rows that another relay holds are skipped, not waited for.
    """
    statement = (
        rows_of(Outbox)
        .where(_OUTBOX.c.sent_at.is_(None), _OUTBOX.c.not_before <= now)
        .order_by(_OUTBOX.c.not_before, _OUTBOX.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return many(s, OutboxRow, statement)


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
