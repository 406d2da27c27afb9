"""Dead letters: messages that no task could handle, kept for a person."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store._read import many, only, rows_of, table
from guard.store.rows import DeadLetterRow
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import DeadLetter

_LETTERS = table(DeadLetter)


def add(
    s: Session, task: str, payload: Mapping[str, Any], error: str, now: datetime
) -> DeadLetterRow:
    """Record a message and the error that ended its last try."""
    row = DeadLetterRow(id=uuid.uuid4().hex, task=task, payload=dict(payload), error=error, at=now)
    s.execute(insert(_LETTERS).values(**vars(row)))
    return row


def get(s: Session, id_or_prefix: str, scope: Scope = EVERYTHING) -> DeadLetterRow:
    """One dead letter, by its id or an unambiguous start of it.

    Raises:
        InputError: there is not exactly one in `scope`.
    """
    otherwise = InputError(
        f"There is not exactly one dead letter {id_or_prefix!r}; `guard dead-letters list` lists "
        "them.",
        code="unknown_dead_letter",
    )
    return only(s, DeadLetterRow, DeadLetter, id_or_prefix, otherwise, *scope.nothing())


def list_all(s: Session, limit: int = 100, scope: Scope = EVERYTHING) -> list[DeadLetterRow]:
    """Dead letters, the newest first."""
    found = rows_of(DeadLetter).where(*scope.nothing())
    ordered = found.order_by(_LETTERS.c.at.desc(), _LETTERS.c.id).limit(limit)
    return many(s, DeadLetterRow, ordered)
