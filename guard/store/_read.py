"""Helpers that the named queries share: rows in and out, and inserts that may be repeated."""

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store._table import Base

R = TypeVar("R")
MIN_PREFIX = 4


def table(entity: type[Base]) -> Table:
    """The Core table of an entity.

    Queries select columns, so that no ORM object is ever stale or returned.
    """
    return Base.metadata.tables[entity.__tablename__]


def rows_of(entity: type[Base]) -> Select[Any]:
    """SELECT every column of `entity`."""
    return select(*table(entity).c)


def many(s: Session, row: type[R], statement: Any) -> list[R]:
    """All rows of a statement that yields the columns of `row`."""
    return [row(**found._mapping) for found in s.execute(statement)]


def first(s: Session, row: type[R], statement: Any, **values: Any) -> R | None:
    """The first row, or None; `values` fill what the statement leaves open."""
    found = s.execute(statement, values).first()
    return None if found is None else row(**found._mapping)


def only(
    s: Session,
    row: type[R],
    entity: type[Base],
    id_or_prefix: str,
    otherwise: InputError,
    *where: ColumnElement[bool],
) -> R:
    """The row with this id, or the only one whose id starts with it (`MIN_PREFIX` or more).

    Args:
        where: rows that do not meet these are as unknown as those that are not there.

    Raises:
        InputError: `otherwise`; there is no such row, or several.
    """
    key = table(entity).c.id
    found = many(s, row, rows_of(entity).where(key == id_or_prefix, *where))
    if not found and len(id_or_prefix) >= MIN_PREFIX:
        near = key.startswith(id_or_prefix, autoescape=True)
        found = many(s, row, rows_of(entity).where(near, *where).limit(2))
    if len(found) != 1:
        raise otherwise
    return found[0]


def insert_once(s: Session, entity: type[Base], values: Mapping[str, Any]) -> bool:
    """Insert the row unless a unique constraint is violated; returns whether it was inserted."""
    dialect = sqlite if s.get_bind().dialect.name == "sqlite" else postgresql
    target = table(entity)
    statement = dialect.insert(target).values(**values).on_conflict_do_nothing()
    return s.execute(statement.returning(*target.primary_key.columns)).first() is not None
