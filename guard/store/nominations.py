"""Nominations: every notice of an object, and its outcome."""

from datetime import datetime

from sqlalchemy import bindparam, insert, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store._read import first, many, rows_of, table
from guard.store.rows import NominationRow, NominationState
from guard.store.scope import EVERYTHING, Scope
from guard.store.tables import Nomination

_NOMINATIONS = table(Nomination)
# Made once: to put a statement together takes longer than to run it.
_ADD = insert(_NOMINATIONS)
_GET = rows_of(Nomination).where(_NOMINATIONS.c.id == bindparam("wanted"))


def add(
    s: Session,
    *,
    nomination_id: str,
    bucket: str,
    key: str,
    version_id: str | None,
    source: str,
    now: datetime,
) -> NominationRow:
    """Record a notice in state `new`; an object may have any number of notices."""
    row = NominationRow(
        id=nomination_id,
        bucket=bucket,
        key=key,
        version_id=version_id,
        source=source,
        received_at=now,
        state=NominationState.NEW,
        reason="",
        scan_id=None,
    )
    s.execute(_ADD, vars(row))
    return row


def get(s: Session, nomination_id: str, scope: Scope = EVERYTHING) -> NominationRow:
    """The notice with this id.

    Raises:
        InputError: there is none in `scope`.
    """
    seen = tuple(scope.at(_NOMINATIONS.c.bucket, _NOMINATIONS.c.key))
    found = first(s, NominationRow, _GET.where(*seen) if seen else _GET, wanted=nomination_id)
    if found is None:
        raise InputError(f"There is no nomination {nomination_id!r}.", code="unknown_nomination")
    return found


def settle(
    s: Session,
    nomination_id: str,
    state: NominationState,
    *,
    reason: str = "",
    scan_id: str | None = None,
) -> None:
    """Record the outcome of a notice."""
    values = {"state": state, "reason": reason, "scan_id": scan_id}
    s.execute(update(_NOMINATIONS).where(_NOMINATIONS.c.id == nomination_id).values(values))


def pending(s: Session, limit: int = 100) -> list[NominationRow]:
    """Notices that have not been handled, the oldest first."""
    statement = rows_of(Nomination).where(_NOMINATIONS.c.state == NominationState.NEW)
    return many(
        s,
        NominationRow,
        statement.order_by(_NOMINATIONS.c.received_at, _NOMINATIONS.c.id).limit(limit),
    )


def list_recent(
    s: Session, limit: int = 50, *, state: NominationState | None = None
) -> list[NominationRow]:
    """The newest notices first; of one state if given."""
    statement = (
        rows_of(Nomination)
        .order_by(_NOMINATIONS.c.received_at.desc(), _NOMINATIONS.c.id)
        .limit(limit)
    )
    return many(
        s,
        NominationRow,
        statement if state is None else statement.where(_NOMINATIONS.c.state == state),
    )
