"""Whether a database may have changed, asked for less than a query costs."""

import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError


class Changes:
    """Answers whether anything may have been committed since it was last asked.

    SQLite counts the commits of other connections, so that a look takes microseconds; it keeps one
    connection of the engine. On PostgreSQL the answer is always yes.

    Args:
        engine: on the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Any = None
        self._seen: Any = None

    def since_last(self) -> bool:
        """Whether something may have changed; yes for the first time, and where it is not known."""
        if self._engine.dialect.name != "sqlite":
            return True
        now = None
        with suppress(SQLAlchemyError, sqlite3.Error):
            if self._connection is None:
                self._connection = self._engine.raw_connection()
            ((now,),) = self._connection.execute("PRAGMA data_version").fetchall()
        changed = now is None or now != self._seen
        self._seen = now
        return changed
