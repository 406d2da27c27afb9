"""Engines and transactions, set up so that SQLite and PostgreSQL give the same guarantees."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from guard.core.errors import InputError, Unavailable

BUSY_TIMEOUT_MS = 30_000
_BEGIN = "guard_sqlite_begin"


class StoreConflict(InputError):
    """The database's own rules refuse a change.

    For example, a name is taken, another row must exist first, or a table is append-only.
    """

    code = "store_conflict"


def database_url(url: str) -> URL:
    """Parse a URL; plain `postgresql://` (and `postgres://`) means psycopg 3.

    Raises:
        InputError: it is neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except Exception as error:  # make_url raises ArgumentError, ValueError and others
        raise InputError(
            "The database URL cannot be read; write sqlite:///FILE or postgresql://..."
        ) from error
    if parsed.get_backend_name() in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        return parsed
    raise InputError(
        "Only SQLite and PostgreSQL databases are supported; write sqlite:///FILE or postgresql://..."
    )


def make_engine(url: str) -> Engine:
    """An engine on `url` that has not connected yet.

    SQLite: WAL, foreign keys on, 30 s of waiting for a lock, and a transaction begins as
    `transaction` or `reading` requests. PostgreSQL: READ COMMITTED, connections tested before use.
    """
    parsed = database_url(url)
    dumps = partial(json.dumps, allow_nan=False, ensure_ascii=False)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            json_serializer=dumps,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(parsed, json_serializer=dumps, pool_pre_ping=True)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions itself: it would do so late, and never for DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _write_ahead(cursor)
    for pragma in (
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "recursive_triggers=ON",  # otherwise INSERT OR REPLACE bypasses the append-only triggers
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Switch a new file to WAL, with retries.

    If several processes do so at once, SQLite fails without waiting for its busy timeout.
    """
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once if another one wrote
    # meanwhile, whatever the busy timeout is; taking the write lock at the start waits instead.
    connection.exec_driver_sql(
        f"BEGIN {connection.get_execution_options().get(_BEGIN, 'IMMEDIATE')}"
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Commit everything in the block, or nothing.

    On SQLite, writers take turns from the start of the block.

    Raises:
        StoreConflict: a constraint or an append-only trigger refused.
        Unavailable: the database did not answer, is locked, or lacks the schema.
    """
    with _translated(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads, in parallel with any writer; its own changes are rolled back.

    Raises the errors of `transaction`.
    """
    beside = engine.execution_options(**{_BEGIN: "DEFERRED"})
    with _translated(), Session(beside, expire_on_commit=False) as session:
        yield session


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise StoreConflict(f"The database refused a row: {_first_line(error)}.") from error
    except DataError as error:
        raise InputError(f"A value does not fit the database: {_first_line(error)}.") from error
    except DBAPIError as error:
        if "append-only" in str(error.orig):
            raise StoreConflict(f"The database refused a change: {_first_line(error)}.") from error
        raise Unavailable(
            f"The database failed ({_first_line(error)}); check GUARD_DATABASE_URL, "
            "and run "
            "`guard db upgrade` if its schema is old."
        ) from error
    except PoolTimeout as error:
        raise Unavailable("No database connection became free in time; try again.") from error


def _first_line(error: DBAPIError) -> str:
    # The driver's message only: SQLAlchemy's own text would add the SQL and its parameters.
    return (str(error.orig).splitlines() or ["no detail"])[0][:300].rstrip(".")
