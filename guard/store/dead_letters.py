"""Dead letters: messages that no task could handle, kept for a person."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from guard.store._read import many, rows_of, table
from guard.store.rows import DeadLetterRow
from guard.store.tables import DeadLetter

_LETTERS = table(DeadLetter)


def add(
    s: Session, task: str, payload: Mapping[str, Any], error: str, now: datetime
) -> DeadLetterRow:
    """Record a message and the error that ended its last try."""
    row = DeadLetterRow(id=uuid.uuid4().hex, task=task, payload=dict(payload), error=error, at=now)
    s.execute(insert(_LETTERS).values(**vars(row)))
    return row


def list_all(s: Session, limit: int = 100) -> list[DeadLetterRow]:
    """Dead letters, the newest first."""
    return many(
        s,
        DeadLetterRow,
        rows_of(DeadLetter).order_by(_LETTERS.c.at.desc(), _LETTERS.c.id).limit(limit),
    )
