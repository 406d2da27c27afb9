"""Exhibits: the images of a verdict's report, for processes that read no blobs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from guard.store._read import insert_once, table
from guard.store.console_tables import ExhibitRecord, Heartbeat

_EXHIBITS, _BEATS = table(ExhibitRecord), table(Heartbeat)


def add(s: Session, verdict_id: str, shown: Mapping[str, Any], now: datetime) -> bool:
    """Keep the images of a verdict; False where there are some already, which stay."""
    values = {"verdict_id": verdict_id, "shown": dict(shown), "at": now}
    return insert_once(s, ExhibitRecord, values)


def find(s: Session, verdict_id: str) -> dict[str, Any] | None:
    """The images of a verdict, or None where nobody has made them."""
    there = select(_EXHIBITS.c.shown).where(_EXHIBITS.c.verdict_id == verdict_id)
    found: dict[str, Any] | None = s.execute(there).scalar_one_or_none()
    return found


def beat(s: Session, name: str, now: datetime) -> None:
    """Record that something was done now."""
    dialect = sqlite if s.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(_BEATS).values(name=name, at=now)
    s.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"at": now}))


def last_beat(s: Session, name: str) -> datetime | None:
    """When something was last done; None where it never was."""
    found: datetime | None = s.execute(
        select(_BEATS.c.at).where(_BEATS.c.name == name)
    ).scalar_one_or_none()
    return found
