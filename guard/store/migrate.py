"""Bring a database to the newest schema.

Alembic is configured in code, so it works from a checkout and from an installed package.
"""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from guard.core.errors import InputError
from guard.store.session import database_url, make_engine, reading, transaction

#: Where an installed package has the migrations, and where the repository has them.
_FOLDERS = (
    Path(__file__).parents[1] / "migrations",
    Path(__file__).parents[2] / "migrations",
)
_LOCK = 0x6D696772  # any constant: two hosts that upgrade at once take turns on PostgreSQL


def upgrade(
    url: str, revision: str = "head", *, then: Callable[[Session], None] = lambda _session: None
) -> None:
    """Bring the database at `url` to the schema of `revision`, completely or not at all.

    `then` is called in the same transaction.

    Raises:
        InputError: the URL or the revision is wrong.
        Unavailable: the database did not answer.
    """
    _make_folder(url)
    _run(url, lambda config: command.upgrade(config, revision), then)


def downgrade(url: str, revision: str) -> None:
    """Go back to `revision`; "base" drops all tables with their contents.

    Raises the errors of `upgrade`.
    """
    _run(url, lambda config: command.downgrade(config, revision))


def current(url: str) -> str | None:
    """The revision of the database, or None if it has no tables of the guard.

    Raises the errors of `upgrade`.
    """
    engine = make_engine(url)
    try:
        return current_of(engine)
    finally:
        engine.dispose()


def current_of(engine: Engine) -> str | None:
    """The same as `current`, for an engine that exists already."""
    with reading(engine) as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def head() -> str:
    """The newest revision that this release knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise InputError("The migrations hold no revision; install Registry Guard again.")
    return newest


def _make_folder(url: str) -> None:
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)


def _config(connection: Connection | None = None) -> Config:
    folder = next((folder for folder in _FOLDERS if (folder / "env.py").is_file()), None)
    if folder is None:
        raise InputError(
            "The migrations are not installed with guard; install Registry Guard again."
        )
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _run(
    url: str,
    step: Callable[[Config], None],
    then: Callable[[Session], None] = lambda _session: None,
) -> None:
    engine = make_engine(url)
    try:
        with transaction(engine) as session:
            connection = session.connection()
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            step(_config(connection))
            then(session)
    except CommandError as error:
        raise InputError(f"The database schema cannot be changed: {error}.") from error
    finally:
        engine.dispose()
