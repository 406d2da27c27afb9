"""Every row of the database as lines of JSON, and back: the same on SQLite and PostgreSQL.

Values are read by the types of the tables as they are, not by those of this release's code: what
the code does not know is kept as it is, and an older schema is restored before it is upgraded.

A line is `{"table": NAME, "columns": [...]}`, which the rows of that table follow, each an array.
Tables come in an order in which each row's references are there before it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    Table,
    insert,
    inspect,
    text,
)
from sqlalchemy.orm import Session

from guard.core.errors import IntegrityMismatch
from guard.store._table import Base
from guard.store.session import reading
from guard.store.types import PlainJson

BATCH = 500  # rows in memory at once
_VERSION = "alembic_version"


def lines(engine: Engine, count: Callable[[str], None]) -> Iterator[bytes]:
    """The guard's tables as they are at one moment, while others go on writing.

    Args:
        count: called with a table's name for each of its rows.

    Raises:
        Unavailable: the database did not answer.
    """
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with reading(engine) as session:
        connection = session.connection()
        there = set(inspect(connection).get_table_names())
        for table in _tables(connection, sorted(there & Base.metadata.tables.keys())):
            names = [column.name for column in table.columns]
            yield _line({"table": table.name, "columns": names})
            chosen = table.select().order_by(*table.primary_key.columns)
            for row in connection.execution_options(yield_per=BATCH).execute(chosen):
                count(table.name)
                yield _line([_plain(value) for value in row])


def load(session: Session, dumped: Iterable[bytes]) -> dict[str, int]:
    """Insert the rows into tables of the same schema that are empty; the number of each's rows.

    Raises:
        IntegrityMismatch: the lines do not fit the tables.
        StoreConflict: the database's own rules refuse a row.
    """
    connection = session.connection()
    tables = {table.name: table for table in _tables(connection, None)}
    counts: dict[str, int] = {}
    loader: _Loader | None = None
    for line in dumped:
        value = json.loads(line)
        if isinstance(value, dict):
            if loader is not None:
                counts[loader.table.name] = loader.end()
            loader = _Loader(connection, _named(tables, value), list(value["columns"]))
        elif loader is None:
            raise IntegrityMismatch("The dump begins with a row of no table.", code="bad_backup")
        else:
            loader.add(value)
    if loader is not None:
        counts[loader.table.name] = loader.end()
    _go_on_counting(connection, [tables[name] for name in counts])
    return counts


class _Loader:
    """Inserts one table's rows, those that another one of them refers to before it."""

    def __init__(self, connection: Connection, table: Table, columns: list[str]) -> None:
        self.table = table
        self._connection = connection
        self._columns = [table.columns[name] for name in columns]
        (self._key, *more) = table.primary_key.columns
        up = [key.parent.name for key in table.foreign_keys if key.column.table is table]
        self._parent = up[0] if up and not more else None
        self._there: set[Any] = set()
        self._waiting: dict[Any, list[dict[str, Any]]] = {}
        self._batch: list[dict[str, Any]] = []
        self._count = 0

    def add(self, values: list[Any]) -> None:
        """Take a row; it may be inserted later than the next one."""
        row = {
            column.name: _typed(column.type, value)
            for column, value in zip(self._columns, values, strict=True)
        }
        if self._parent is None:
            self._insert(row)
            return
        above = row[self._parent]
        if above is not None and above not in self._there:
            self._waiting.setdefault(above, []).append(row)
            return
        ready = [row]
        while ready:
            one = ready.pop()
            self._insert(one)
            self._there.add(one[self._key.name])
            ready += self._waiting.pop(one[self._key.name], [])

    def end(self) -> int:
        """Insert what is left, and give the number of rows.

        Raises:
            IntegrityMismatch: a row refers to one that is not there.
        """
        if self._waiting:
            raise IntegrityMismatch(
                f"Rows of {self.table.name} refer to others that the dump lacks.", code="bad_backup"
            )
        self._flush()
        return self._count

    def _insert(self, row: dict[str, Any]) -> None:
        self._batch.append(row)
        self._count += 1
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._batch:
            self._connection.execute(insert(self.table), self._batch)
            self._batch = []


def _tables(connection: Connection, names: list[str] | None) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection, only=names)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                # A missing value is SQL's NULL, as in our own tables.
                column.type = PlainJson
    return [table for table in metadata.sorted_tables if table.name != _VERSION]


def _named(tables: Mapping[str, Table], value: Mapping[str, Any]) -> Table:
    table = tables.get(str(value.get("table")))
    if table is None or set(value.get("columns", ())) != set(table.columns.keys()):
        raise IntegrityMismatch(
            f"The dump has a table {str(value.get('table'))[:60]!r} that this schema has not, or "
            "has with other columns.",
            code="bad_backup",
        )
    return table


def _go_on_counting(connection: Connection, tables: Iterable[Table]) -> None:
    """Let PostgreSQL number the next rows behind those that were inserted with their numbers."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables:
        (key, *more) = table.primary_key.columns
        if more or not isinstance(key.type, Integer):
            continue
        names = {"table": table.name, "key": key.name}
        sequence = connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :key)"), names
        ).scalar()
        if sequence is not None:
            connection.execute(
                text(
                    f"SELECT setval(:sequence, (SELECT max({key.name}) FROM {table.name}))"  # noqa: S608 - names of our own schema
                ),
                {"sequence": sequence},
            )


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
    return value


def _typed(kind: Any, value: Any) -> Any:
    if isinstance(kind, DateTime) and isinstance(value, str):
        return datetime.fromisoformat(value).astimezone(UTC)
    return value
