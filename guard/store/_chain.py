"""A table whose rows are a chain: numbered without a gap, each with the hash of the row before.

The ledger's verdicts and the ledger's acts are one each; `guard.attest.links` checks them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from guard.core.ledger import GENESIS, Link
from guard.store._read import first, many, rows_of, table
from guard.store._table import Base

_LOCK = 0x67756172  # any constant: the advisory lock that serialises appends on PostgreSQL
R = TypeVar("R", bound=Link)


@dataclass(frozen=True)
class Chain(Generic[R]):
    """The chain of `entity`; `hasher` is its hash of `guard.core.ledger`."""

    entity: type[Base]
    row: type[R]
    hasher: Callable[[str, Mapping[str, Any]], str]

    @property
    def table(self) -> Table:
        """The Core table, which has the columns `seq`, `id`, `previous` and `hash`."""
        return table(self.entity)

    def append(self, s: Session, values: Mapping[str, Any]) -> R:
        """Add a row at the end, inside `transaction`: others wait until it commits.

        If its id is in the chain already, nothing is added and that row is returned.
        """
        lock(s)
        there = self.find(s, values["id"])
        if there is not None:
            return there
        end = self.last(s)
        previous = GENESIS if end is None else end.hash
        numbered = {"seq": 1 if end is None else end.seq + 1, **values}
        links = {"previous": previous, "hash": self.hasher(previous, numbered)}
        s.execute(insert(self.table).values(**numbered, **links))
        return self.row(**numbered, **links)

    def find(self, s: Session, row_id: str) -> R | None:
        """The row with this id, or None."""
        return first(s, self.row, rows_of(self.entity).where(self.table.c.id == row_id))

    def last(self, s: Session) -> R | None:
        """The last row, or None."""
        newest = rows_of(self.entity).order_by(self.table.c.seq.desc()).limit(1)
        return first(s, self.row, newest)

    def at(self, s: Session, seq: int) -> R | None:
        """The row with this number, or None."""
        return first(s, self.row, rows_of(self.entity).where(self.table.c.seq == seq))

    def rows(self, s: Session, after: int = 0, limit: int | None = None) -> list[R]:
        """The rows in order, starting behind `after`."""
        behind = rows_of(self.entity).where(self.table.c.seq > after)
        return many(s, self.row, behind.order_by(self.table.c.seq).limit(limit))

    def count(self, s: Session, after: int, through: int) -> int:
        """How many rows there are from behind `after` to `through`; fewer where one was deleted."""
        where = (self.table.c.seq > after, self.table.c.seq <= through)
        number = select(func.count()).select_from(self.table).where(*where)
        return int(s.execute(number).scalar_one())


def lock(s: Session) -> None:
    """Make every other append wait until this transaction ends; SQLite's transactions do so."""
    if s.get_bind().dialect.name == "postgresql":
        s.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
