"""Write very many rows into an empty table, as fast as the database takes them."""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from sqlalchemy import Engine

from guard.store._read import table
from guard.store._table import Base


def load(engine: Engine, entity: type[Base], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert the rows in one commit: by COPY on PostgreSQL, by one statement on SQLite.

    Args:
        rows: all with the columns of the first one, which no default fills.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    names, target = list(first), table(entity)
    to_driver = [_processor(engine, target.c[name].type) for name in names]
    values = (
        tuple(done(row[name]) for name, done in zip(names, to_driver, strict=True))
        for row in chain([first], rows)
    )
    columns = ", ".join(f'"{name}"' for name in names)
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if engine.dialect.name == "sqlite":
            cursor.execute("PRAGMA synchronous=OFF")
            cursor.execute("PRAGMA cache_size=-2000000")
            cursor.execute("BEGIN")
            marks = ", ".join("?" * len(names))
            into = f"INSERT INTO {target.name} ({columns}) VALUES ({marks})"  # noqa: S608 - our own
            cursor.executemany(into, values)  # type: ignore[arg-type]  # any iterable will do
            cursor.execute("COMMIT")
        else:
            with cursor.copy(f"COPY {target.name} ({columns}) FROM STDIN") as copy:
                for row in values:
                    copy.write_row(row)
            raw.commit()
    finally:
        raw.invalidate()  # a connection that waits for the disc less is for nobody else


def _processor(engine: Engine, kind: Any) -> Callable[[Any], Any]:
    found = kind.dialect_impl(engine.dialect).bind_processor(engine.dialect)
    return found if found is not None else lambda value: value
