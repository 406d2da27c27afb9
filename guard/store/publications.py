"""Publications: the artifacts given to serving, with name and version."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.core.hooks import EventType
from guard.store import hook_events
from guard.store._read import first, many, rows_of, table
from guard.store.rows import PublicationRow, PublicationState
from guard.store.tables import Publication

_PUBLICATIONS = table(Publication)


def add(
    s: Session,
    *,
    publication_id: str,
    digest: str,
    name: str,
    version: str,
    publisher: str,
    archive_digest: str,
    receipt: Mapping[str, Any],
    envelope: Mapping[str, Any],
    now: datetime,
) -> PublicationRow:
    """Record that an artifact is being served.

    Raises:
        StoreConflict: at commit, if the version of that name is taken; use the next one.
    """
    values: dict[str, Any] = {
        "id": publication_id,
        "digest": digest,
        "name": name,
        "version": version,
        "publisher": publisher,
        "archive_digest": archive_digest,
        "receipt": dict(receipt),
        "envelope": dict(envelope),
        "state": PublicationState.ACTIVE,
        "at": now,
        "withdrawn_at": None,
        "reason": "",
    }
    s.execute(insert(_PUBLICATIONS).values(**values))
    row = get(s, publication_id)
    _served(s, row, now)
    return row


def get(s: Session, publication_id: str) -> PublicationRow:
    """The publication with this id.

    Raises:
        InputError: there is none.
    """
    found = first(
        s, PublicationRow, rows_of(Publication).where(_PUBLICATIONS.c.id == publication_id)
    )
    if found is None:
        raise InputError(f"There is no publication {publication_id!r}.", code="unknown_publication")
    return found


def find(s: Session, name: str, version: str) -> PublicationRow | None:
    """The publication of this version of this name, withdrawn or not."""
    where = (_PUBLICATIONS.c.name == name, _PUBLICATIONS.c.version == version)
    return first(s, PublicationRow, rows_of(Publication).where(*where))


def active(s: Session, name: str | None = None) -> list[PublicationRow]:
    """The publications that should be served, by name and age; of one name if given."""
    where = [_PUBLICATIONS.c.state == PublicationState.ACTIVE]
    if name is not None:
        where.append(_PUBLICATIONS.c.name == name)
    statement = rows_of(Publication).where(*where)
    return many(
        s,
        PublicationRow,
        statement.order_by(_PUBLICATIONS.c.name, _PUBLICATIONS.c.at, _PUBLICATIONS.c.id),
    )


def lapsed(s: Session, since: datetime) -> list[PublicationRow]:
    """The last publication of each name that is not served any more, if it ended after `since`."""
    served = select(_PUBLICATIONS.c.name).where(_PUBLICATIONS.c.state == PublicationState.ACTIVE)
    where = (_PUBLICATIONS.c.withdrawn_at >= since, _PUBLICATIONS.c.name.not_in(served))
    rows = many(
        s,
        PublicationRow,
        rows_of(Publication).where(*where).order_by(_PUBLICATIONS.c.at, _PUBLICATIONS.c.id),
    )
    return list({row.name: row for row in rows}.values())


def of_name(s: Session, name: str) -> list[PublicationRow]:
    """Every publication of a name, the one that was given to serving last first."""
    rows = many(s, PublicationRow, rows_of(Publication).where(_PUBLICATIONS.c.name == name))
    return sorted(rows, key=lambda row: (row.at, int(row.version.split(".")[0])), reverse=True)


def list_all(s: Session, limit: int = 200) -> list[PublicationRow]:
    """The newest publications first, withdrawn ones included."""
    statement = rows_of(Publication).order_by(_PUBLICATIONS.c.at.desc(), _PUBLICATIONS.c.id)
    return many(s, PublicationRow, statement.limit(limit))


def next_version(s: Session, name: str) -> str:
    """The version after every version ("1.0", "2.0", ...) this name ever had, withdrawn or not.

    Versions only grow, so an old model cannot return under the version of a newer one.
    """
    used = s.execute(select(_PUBLICATIONS.c.version).where(_PUBLICATIONS.c.name == name)).scalars()
    majors = [int(version.split(".")[0]) for version in used]
    return f"{max(majors, default=0) + 1}.0"


def withdraw(s: Session, publication_id: str, *, reason: str, now: datetime) -> PublicationRow:
    """Mark a publication as withdrawn; one that is withdrawn already stays as it is."""
    ended = s.execute(
        update(_PUBLICATIONS)
        .where(
            _PUBLICATIONS.c.id == publication_id, _PUBLICATIONS.c.state == PublicationState.ACTIVE
        )
        .values(state=PublicationState.WITHDRAWN, withdrawn_at=now, reason=reason)
        .returning(_PUBLICATIONS.c.id)
    ).first()
    row = get(s, publication_id)
    if ended is not None:
        hook_events.emit(
            s,
            EventType.UNPUBLISHED,
            now,
            f"{row.name} version {row.version} is not served any more: {reason}",
            name=row.name,
            digest=row.digest,
            version=row.version,
            detail=reason,
        )
    return row


def _served(s: Session, row: PublicationRow, now: datetime) -> None:
    hook_events.emit(
        s,
        EventType.PUBLISHED,
        now,
        f"{row.name} version {row.version} is served.",
        name=row.name,
        digest=row.digest,
        version=row.version,
    )


def version_for(s: Session, name: str, digest: str) -> str:
    """The version under which an artifact is active already, or else the next one.

    So a repeated publish changes nothing.
    """
    there = [row for row in active(s, name) if row.digest == digest]
    return there[-1].version if there else next_version(s, name)


def renew(
    s: Session,
    publication_id: str,
    *,
    archive_digest: str,
    receipt: Mapping[str, Any],
    envelope: Mapping[str, Any],
    now: datetime,
) -> None:
    """Record that a publication was repeated, perhaps with a newer release statement."""
    values = {
        "archive_digest": archive_digest,
        "receipt": dict(receipt),
        "envelope": dict(envelope),
        "at": now,
        "state": PublicationState.ACTIVE,
        "withdrawn_at": None,
        "reason": "",
    }
    before = get(s, publication_id)
    s.execute(update(_PUBLICATIONS).where(_PUBLICATIONS.c.id == publication_id).values(**values))
    if before.state is not PublicationState.ACTIVE:
        _served(s, before, now)
