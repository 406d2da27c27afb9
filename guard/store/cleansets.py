"""Clean sets: facts by digest; of several sets with one name the latest is in use."""

from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from guard.core.errors import CleanSetError
from guard.core.evidence import AnyCleanSet, clean_set_from
from guard.core.plain import to_plain
from guard.store._read import rows_of, table
from guard.store.tables import CleanSetRecord

_CLEANSETS = table(CleanSetRecord)


def put(s: Session, facts: AnyCleanSet, now: datetime) -> None:
    """Record a clean set, and make it the one in use under its name even if it was known before."""
    dialect = sqlite if s.get_bind().dialect.name == "sqlite" else postgresql
    values = {"digest": facts.digest, "name": facts.name, "facts": to_plain(facts), "added_at": now}
    statement = dialect.insert(_CLEANSETS).values(**values)
    s.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=values))


def get(s: Session, digest: str) -> AnyCleanSet:
    """The clean set with this digest.

    Raises:
        CleanSetError: there is none.
    """
    found = s.execute(rows_of(CleanSetRecord).where(_CLEANSETS.c.digest == digest)).first()
    if found is None:
        raise CleanSetError(f"The guard knows no clean set {digest[:12]}.", code="unknown_cleanset")
    return clean_set_from(found.facts)


def get_by_name(s: Session, name: str) -> AnyCleanSet | None:
    """The clean set in use under a name, or None."""
    statement = rows_of(CleanSetRecord).where(_CLEANSETS.c.name == name)
    found = s.execute(
        statement.order_by(_CLEANSETS.c.added_at.desc(), _CLEANSETS.c.digest).limit(1)
    ).first()
    return None if found is None else clean_set_from(found.facts)


def list_all(s: Session) -> list[AnyCleanSet]:
    """Every clean set, ordered by name, then from the latest to the oldest."""
    order = (_CLEANSETS.c.name, _CLEANSETS.c.added_at.desc(), _CLEANSETS.c.digest)
    return [
        clean_set_from(found.facts) for found in s.execute(rows_of(CleanSetRecord).order_by(*order))
    ]
